//! A controller in memory, which only sees the bytes that the kernel gets.

use libc::iovec;

/// `len` bytes that repeat only after `period`, a prime number, so that consecutive blocks differ.
pub(super) fn pattern(period: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<_> = (0..period).map(|at| (at * at + at / 7) as u8).collect();
    bytes = bytes.repeat(len / period + 1);
    bytes.truncate(len);
    bytes
}

/// A namespace whose controller executes commands, and fails the test if one exceeds a limit.
pub(super) struct FakeController {
    pub(super) image: Vec<u8>,
    pub(super) nsid: u32,
    pub(super) block: u64,
    /// The most bytes of a read or write, and of Write Zeroes.
    pub(super) most: u64,
    pub(super) most_zeroes: u64,
    /// The most bytes of a range of Dataset Management, and of all ranges of a command.
    pub(super) most_of_range: u64,
    pub(super) most_deallocated: u64,
    /// The limits of the kernel: pages of memory, and where segments may have gaps.
    pub(super) pages: u64,
    pub(super) gap_mask: u64,
    pub(super) boundary: u64,
    /// The number of commands that covered each block.
    pub(super) covered: Vec<u32>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The ranges of a Dataset Management command that deallocates: the first block and the number of
/// blocks of each.
///
/// # Safety
/// The memory that the command names is valid.
pub(super) unsafe fn ranges(command: &[u8; 80]) -> Vec<(u64, u64)> {
    assert_eq!(u32_at(command, 44), 4, "deallocate");
    let (addr, len) = (u64_at(command, 24), u32_at(command, 36) as usize);
    let count = u32_at(command, 40) + 1;
    assert!(count <= 256, "{count} ranges in one command");
    assert_eq!(len, 16 * count as usize, "their number is counted from 0");
    // SAFETY: the contract is the same.
    let bytes = unsafe { std::slice::from_raw_parts(addr as *const u8, len) };
    bytes.chunks(16).map(|range| (u64_at(range, 8), u32_at(range, 4).into())).collect()
}

impl FakeController {
    pub(super) fn new(blocks: u64, block: u64) -> Self {
        let image = pattern(4099, (blocks * block) as usize);
        Self {
            image,
            nsid: 7,
            block,
            most: u64::MAX,
            most_zeroes: u64::MAX,
            most_of_range: u64::MAX,
            most_deallocated: u64::MAX,
            pages: u64::MAX,
            gap_mask: 0,
            boundary: 0,
            covered: vec![0; blocks as usize],
        }
    }

    /// Executes a command in the layout of `struct nvme_uring_cmd`.
    ///
    /// # Safety
    /// The memory that the command names is valid, and for a read nothing else accesses it.
    pub(super) unsafe fn execute(&mut self, command: &[u8; 80], vectored: bool) {
        assert_eq!(u32_at(command, 4), self.nsid);
        let is_zero = |range: std::ops::Range<usize>| command[range].iter().all(|&byte| byte == 0);
        // Flags; reserved; dwords 2 and 3; metadata; its length; dwords 14 and 15; timeout;
        // reserved.
        for reserved in [1..4, 8..24, 32..36, 56..80] {
            assert!(is_zero(reserved.clone()), "{reserved:?} of {command:?}");
        }
        let (addr, data_len) = (u64_at(command, 24), u32_at(command, 36));
        let (start, low) = (u64_at(command, 40), u32_at(command, 48) & 0xFFFF);
        let blocks = u64::from(low) + 1;
        let len = blocks * self.block;
        match command[0] {
            opcode @ (0x01 | 0x02) => {
                assert!(len <= self.most, "{len} bytes in one command");
                let list = if vectored {
                    assert!(data_len > 1, "a list of {data_len} segments");
                    let list = addr as *const iovec;
                    // SAFETY: the list belongs to the command, so it is valid.
                    unsafe { std::slice::from_raw_parts(list, data_len as usize) }.to_vec()
                } else {
                    let iov_base = addr as *mut libc::c_void;
                    vec![iovec { iov_base, iov_len: data_len as usize }]
                };
                self.check_memory(&list, len);
                let mut at = (start * self.block) as usize;
                for segment in &list {
                    let (memory, len) = (segment.iov_base.cast::<u8>(), segment.iov_len);
                    let image = self.image[at..at + len].as_mut_ptr();
                    let (from, to) = if opcode == 0x01 { (memory, image) } else { (image, memory) };
                    // SAFETY: the memory belongs to the command (the contract of this function),
                    // and does not overlap ours.
                    unsafe { to.copy_from_nonoverlapping(from, len) };
                    at += len;
                }
                self.check_boundary(start, blocks);
                self.cover(start, blocks);
            }
            0x08 => {
                assert!(len <= self.most_zeroes, "{len} bytes in one Write Zeroes");
                assert_eq!((addr, data_len), (0, 0), "it has no data");
                let at = (start * self.block) as usize;
                self.image[at..at + len as usize].fill(0);
                self.cover(start, blocks);
            }
            0x09 => {
                // SAFETY: the ranges belong to the command, so they are valid.
                let ranges = unsafe { ranges(command) };
                let total: u64 = ranges.iter().map(|(_, blocks)| blocks * self.block).sum();
                assert!(total <= self.most_deallocated, "{total} bytes in one command");
                for (start, blocks) in ranges {
                    assert!(blocks * self.block <= self.most_of_range && blocks > 0);
                    self.cover(start, blocks);
                }
            }
            opcode => panic!("opcode {opcode:#x}"),
        }
    }

    fn check_memory(&self, list: &[iovec], len: u64) {
        let total: u64 = list.iter().map(|segment| segment.iov_len as u64).sum();
        assert_eq!(
            total, len,
            "the controller moves that many blocks, whatever length the kernel got"
        );
        let ends: Vec<_> = list
            .iter()
            .map(|segment| {
                (segment.iov_base as u64, segment.iov_base as u64 + segment.iov_len as u64)
            })
            .collect();
        for pair in ends.windows(2) {
            assert_eq!((pair[0].1 | pair[1].0) & self.gap_mask, 0, "a gap inside a page");
        }
        let pages: u64 = ends.iter().map(|(start, end)| end.div_ceil(4096) - start / 4096).sum();
        assert!(pages <= self.pages || total == self.block, "{pages} pages");
    }

    fn check_boundary(&self, start: u64, blocks: u64) {
        let (first, last) = (start * self.block, (start + blocks) * self.block - 1);
        if let Some(number) = first.checked_div(self.boundary) {
            assert_eq!(number, last / self.boundary, "it crosses a boundary");
        }
    }

    fn cover(&mut self, start: u64, blocks: u64) {
        for block in start..start + blocks {
            self.covered[block as usize] += 1;
        }
    }
}
