//! Registered memory: finds the region that holds an address.

use std::cmp::Reverse;

/// The regions of a ring's table of registered buffers.
#[derive(Debug, Default)]
pub(crate) struct RegisteredRegions {
    /// Sorted by address. None lies inside another one, so the ends are in the same order.
    sorted: Vec<Region>,
}

#[derive(Clone, Copy, Debug)]
struct Region {
    start: usize,
    /// One past the last address.
    end: usize,
    /// Its index in the ring's table.
    index: u16,
}

/// Whether an entry for a list of segments can name registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Yes: all segments lie in the region with this index.
    Region(u16),
    /// No: all segments are registered, but in several regions, and an entry can name only one.
    Crossing,
    /// No: not all segments are registered.
    Plain,
}

impl RegisteredRegions {
    /// The regions of a ring that has registered `table`. Empty entries are free slots.
    pub(crate) fn of(table: &[libc::iovec]) -> Self {
        let mut sorted: Vec<_> = (0..)
            .zip(table)
            .filter(|(_, entry)| entry.iov_len > 0)
            .map(|(index, entry)| {
                let start = entry.iov_base as usize;
                Region { start, end: start + entry.iov_len, index }
            })
            .collect();
        sorted.sort_unstable_by_key(|region| (region.start, Reverse(region.end)));
        // Memory may be registered twice, or as a part of a range that is.
        sorted.dedup_by(|region, before| region.end <= before.end);
        Self { sorted }
    }

    /// Finds the region of `segments`.
    pub(crate) fn find(&self, segments: &[libc::iovec]) -> Lookup {
        let mut found = None;
        let mut crossing = false;
        for segment in segments {
            let start = segment.iov_base as usize;
            let Some((region, crosses)) = self.holding(start, start + segment.iov_len) else {
                return Lookup::Plain;
            };
            let first = *found.get_or_insert(region);
            crossing |= crosses || region != first;
        }
        match found {
            Some(_) if crossing => Lookup::Crossing,
            Some(region) => Lookup::Region(region),
            None => Lookup::Plain,
        }
    }

    /// The region that holds `start`, and whether the range up to `end` continues in other regions.
    /// `None` if an address of the range is in no region.
    fn holding(&self, start: usize, end: usize) -> Option<(u16, bool)> {
        let after = self.sorted.partition_point(|region| region.start <= start);
        let mut regions = self.sorted[after.checked_sub(1)?..].iter();
        let first = regions.next().filter(|region| start < region.end)?;
        let mut covered = first.end;
        while covered < end {
            covered = regions.next().filter(|region| region.start <= covered)?.end;
        }
        Some((first.index, first.end < end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, len: usize) -> libc::iovec {
        libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: len }
    }

    fn regions() -> RegisteredRegions {
        RegisteredRegions::of(&[
            segment(0x9000, 0x1000),
            segment(0x1000, 0x2000),
            segment(0xA000, 0x1000),
        ])
    }

    #[test]
    fn a_segment_is_in_a_region_only_when_that_holds_all_of_it() {
        let find = |start, len| regions().find(&[segment(start, len)]);
        assert_eq!(find(0x1000, 0x2000), Lookup::Region(1));
        assert_eq!(find(0x1800, 0x200), Lookup::Region(1));
        assert_eq!(find(0x9fff, 1), Lookup::Region(0));
        assert_eq!(find(0x2800, 0x1000), Lookup::Plain, "ends past its region");
        assert_eq!(find(0x0800, 0x1000), Lookup::Plain, "begins before the region");
        assert_eq!(find(0x3000, 0x10), Lookup::Plain, "begins right after a region");
        assert_eq!(find(0x5000, 0x10), Lookup::Plain, "between the regions");
        assert_eq!(RegisteredRegions::default().find(&[segment(0x1000, 1)]), Lookup::Plain);
        assert_eq!(regions().find(&[]), Lookup::Plain);
    }

    #[test]
    fn memory_that_is_registered_twice_is_found() {
        let regions = RegisteredRegions::of(&[
            segment(0x2000, 0x100),
            segment(0x1000, 0x4000),
            segment(0x1000, 0x100),
            segment(0x4000, 0x2000),
            segment(0x1000, 0x4000),
        ]);
        let find = |start, len| regions.find(&[segment(start, len)]);
        for (start, len) in [(0x1000, 0x4000), (0x1000, 0x10), (0x2000, 0x10), (0x3000, 0x1000)] {
            let Lookup::Region(index) = find(start, len) else { panic!("{start:x} is not found") };
            assert!([1, 4].contains(&index), "{start:x} is in {index}");
        }
        assert_eq!(find(0x4800, 0x1000), Lookup::Region(3), "in both, and past the first");
        assert_eq!(find(0x3800, 0x2000), Lookup::Crossing);
        assert_eq!(find(0x5000, 0x1001), Lookup::Plain);
    }

    #[test]
    fn segments_in_several_regions_cross() {
        let find = |segments: &[libc::iovec]| regions().find(segments);
        let (low, high) = (segment(0x1000, 0x100), segment(0x9000, 0x100));
        assert_eq!(find(&[low, segment(0x2000, 0x100)]), Lookup::Region(1));
        assert_eq!(find(&[low, high]), Lookup::Crossing);
        assert_eq!(find(&[low, segment(0x5000, 1)]), Lookup::Plain);
        assert_eq!(find(&[segment(0x9800, 0x1000)]), Lookup::Crossing, "one segment in neighbours");
        assert_eq!(find(&[segment(0x9800, 0x1801)]), Lookup::Plain, "and one byte past them");
    }
}
