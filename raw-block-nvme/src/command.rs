//! NVMe commands in the layout of the kernel's passthrough.

use std::time::Duration;

use zerocopy::{Immutable, IntoBytes};

/// Opcodes of the I/O commands used here (NVM Command Set Specification, "I/O Commands").
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
const IO_MANAGEMENT_RECEIVE: u8 = 0x12;
/// Opcode of the only admin command used here (Base Specification, "Admin Command Set").
const IDENTIFY: u8 = 0x06;

/// Command dword 12, bit 30: the write is on the medium before the command completes.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Command dword 12, bits 23:20, the directive type: 2 is data placement.
const DATA_PLACEMENT: u32 = 2 << 20;
/// Command dword 11 of Dataset Management, bit 2: deallocate.
const DEALLOCATE: u32 = 1 << 2;
/// Management operation of I/O Management Receive: the status of the reclaim unit handles.
const RECLAIM_UNIT_HANDLE_STATUS: u32 = 1;

/// A command in the layout of `struct nvme_uring_cmd` (`linux/nvme_ioctl.h`), which is also that of
/// `struct nvme_passthru_cmd64` without its result: the dwords of the command and, in place of its
/// pointers, the address of the data.
///
/// **Invariant:** `data_len` is exactly the length of the blocks that the command names. The
/// controller moves that much, whatever length the kernel got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Command {
    pub(crate) opcode: u8,
    flags: u8,
    reserved1: u16,
    pub(crate) nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    /// The address of the data, or of a list of segments.
    pub(crate) addr: u64,
    metadata_len: u32,
    /// The length of the data in bytes, or of the list in segments.
    pub(crate) data_len: u32,
    pub(crate) cdw10: u32,
    pub(crate) cdw11: u32,
    pub(crate) cdw12: u32,
    pub(crate) cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    /// 0: the timeout of the driver.
    timeout_ms: u32,
    reserved2: u32,
}

const _: () = assert!(size_of::<Command>() == 72);

/// The field Number of Logical Blocks, which counts from 0.
fn zero_based(blocks: u64) -> u32 {
    debug_assert!((1..=1 << 16).contains(&blocks), "a command of {blocks} blocks");
    (blocks.wrapping_sub(1) & 0xFFFF) as u32
}

impl Command {
    /// Identify: fills 4096 bytes with the structure `cns` (CNS) of the command set `csi` (CSI).
    pub(crate) fn identify(nsid: u32, cns: u8, csi: u8) -> Self {
        Self {
            opcode: IDENTIFY,
            nsid,
            cdw10: u32::from(cns),
            cdw11: u32::from(csi) << 24,
            ..Self::default()
        }
    }

    /// Fills `len` bytes, a multiple of 4, with the status of the reclaim unit handles.
    pub(crate) fn reclaim_unit_handles(nsid: u32, len: usize) -> Self {
        Self {
            opcode: IO_MANAGEMENT_RECEIVE,
            nsid,
            cdw10: RECLAIM_UNIT_HANDLE_STATUS,
            // The number of dwords, counted from 0.
            cdw11: u32::try_from(len / 4).unwrap_or(u32::MAX) - 1,
            ..Self::default()
        }
    }

    /// A command for `blocks` blocks from block `start` on.
    fn on_blocks(opcode: u8, nsid: u32, start: u64, blocks: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a number")]
        let (low, high) = (start as u32, (start >> 32) as u32);
        let cdw12 = zero_based(blocks);
        Self { opcode, nsid, cdw10: low, cdw11: high, cdw12, ..Self::default() }
    }

    /// Reads `blocks` blocks, 1 to 65,536.
    pub(crate) fn read(nsid: u32, start: u64, blocks: u64) -> Self {
        Self::on_blocks(READ, nsid, start, blocks)
    }

    /// Writes `blocks` blocks, 1 to 65,536.
    pub(crate) fn write(nsid: u32, start: u64, blocks: u64) -> Self {
        Self::on_blocks(WRITE, nsid, start, blocks)
    }

    /// Sets `blocks` blocks, 1 to 65,536, to zeroes.
    pub(crate) fn write_zeroes(nsid: u32, start: u64, blocks: u64) -> Self {
        Self::on_blocks(WRITE_ZEROES, nsid, start, blocks)
    }

    /// Deallocates the ranges in its data, 1 to 256.
    pub(crate) fn deallocate(nsid: u32, ranges: u64) -> Self {
        debug_assert!((1..=256).contains(&ranges), "a command of {ranges} ranges");
        // Counted from 0.
        let cdw10 = (ranges.wrapping_sub(1) & 0xFF) as u32;
        Self { opcode: DATASET_MANAGEMENT, nsid, cdw10, cdw11: DEALLOCATE, ..Self::default() }
    }

    /// Makes the data in a volatile write cache durable.
    pub(crate) fn flush(nsid: u32) -> Self {
        Self { opcode: FLUSH, nsid, ..Self::default() }
    }

    /// The same write, durable when it completes.
    pub(crate) fn forced(mut self) -> Self {
        self.cdw12 |= FORCE_UNIT_ACCESS;
        self
    }

    /// The same write, with this placement identifier of a reclaim unit handle.
    pub(crate) fn placed(mut self, identifier: u16) -> Self {
        self.cdw12 |= DATA_PLACEMENT;
        self.cdw13 |= u32::from(identifier) << 16;
        self
    }

    /// The same command over `len` bytes (or a list of `len` segments) at this address.
    pub(crate) fn over(mut self, addr: usize, len: usize) -> Self {
        self.addr = addr as u64;
        // The limits keep both far below. The kernel would refuse the saturated value.
        self.data_len = u32::try_from(len).unwrap_or(u32::MAX);
        self
    }

    /// The same command with a timeout, in whole milliseconds.
    pub(crate) fn timing_out(mut self, after: Duration) -> Self {
        self.timeout_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }

    /// The command area of a submission entry.
    pub(crate) fn to_entry(self) -> [u8; 80] {
        let mut bytes = [0; 80];
        bytes[..size_of::<Self>()].copy_from_slice(self.as_bytes());
        bytes
    }
}

/// One range of Dataset Management: 16 bytes in the controller's order, which is little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Range([u8; 16]);

impl Range {
    /// `blocks` blocks, not counted from 0, from block `start` on.
    pub(crate) fn new(start: u64, blocks: u32) -> Self {
        let mut bytes = [0; 16];
        // The first dword has hints about the use of the range.
        bytes[4..8].copy_from_slice(&blocks.to_le_bytes());
        bytes[8..].copy_from_slice(&start.to_le_bytes());
        Self(bytes)
    }
}
