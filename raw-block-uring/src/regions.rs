//! Registered memory: which part of it an address belongs to.

use std::sync::Arc;

use raw_block_core::Arena;

/// The kernel registers at most this many bytes as one region (`io_uring_register(2)`).
const MAX_REGION: usize = 1 << 30;

/// The regions of a ring's table of registered buffers.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    /// First address, address behind the last, index in the ring's table; in the order of addresses.
    sorted: Vec<(usize, usize, u16)>,
}

impl Regions {
    /// The table entries for these arenas, as the kernel takes them; the position is the index.
    pub(crate) fn table(arenas: &[Arc<Arena>]) -> Vec<libc::iovec> {
        let mut table = Vec::new();
        for arena in arenas {
            let (start, len) = arena.range();
            for at in (0..len).step_by(MAX_REGION) {
                table.push(libc::iovec {
                    iov_base: start.as_ptr().wrapping_add(at).cast(),
                    iov_len: (len - at).min(MAX_REGION),
                });
            }
        }
        table
    }

    /// For looking up addresses in a ring that has registered `table`.
    pub(crate) fn of(table: &[libc::iovec]) -> Self {
        let mut sorted: Vec<_> = (0..)
            .zip(table)
            .map(|(index, entry)| {
                let start = entry.iov_base as usize;
                (start, start + entry.iov_len, index)
            })
            .collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The region that holds all of `segment`.
    pub(crate) fn find(&self, segment: &libc::iovec) -> Option<u16> {
        let start = segment.iov_base as usize;
        let behind = self.sorted.partition_point(|&(first, ..)| first <= start);
        let &(_, end, index) = self.sorted.get(behind.checked_sub(1)?)?;
        (start + segment.iov_len <= end).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, len: usize) -> libc::iovec {
        libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: len }
    }

    #[test]
    fn a_segment_is_found_only_when_one_region_holds_all_of_it() {
        let regions = Regions::of(&[segment(0x9000, 0x1000), segment(0x1000, 0x2000)]);
        assert_eq!(regions.find(&segment(0x1000, 0x2000)), Some(1));
        assert_eq!(regions.find(&segment(0x1800, 0x200)), Some(1));
        assert_eq!(regions.find(&segment(0x9fff, 1)), Some(0));
        assert_eq!(regions.find(&segment(0x2800, 0x1000)), None, "ends behind its region");
        assert_eq!(regions.find(&segment(0x0800, 0x1000)), None, "begins before the region");
        assert_eq!(regions.find(&segment(0x5000, 0x10)), None, "between the regions");
        assert_eq!(Regions::default().find(&segment(0x1000, 1)), None);
    }
}
