//! Which of a device's placement handles writes go through.

use raw_block_core::{Geometry, WriteOptions};

use crate::state::space::Stream;

/// What is written together and becomes garbage together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// A segment of this stream, its header and its table included.
    Stream(Stream),
    /// The containers of checkpoints.
    Containers,
}

impl Placement {
    /// The options of such a write: each kind has its own handle, as far as the device has them.
    pub(crate) fn options(self, geometry: &Geometry) -> WriteOptions {
        let kind = match self {
            Self::Stream(Stream::New) => 0,
            Self::Stream(Stream::Kept) => 1,
            Self::Stream(Stream::Tombstones) => 2,
            Self::Containers => 3,
        };
        let last = geometry.placement_handles.checked_sub(1);
        WriteOptions::new().placement(last.map(|last| last.min(kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handles(placement_handles: u16) -> [Option<u16>; 4] {
        let mut geometry = Geometry::new(1 << 20, 4096).unwrap();
        geometry.placement_handles = placement_handles;
        let [new, kept, tombstones] = Stream::ALL.map(Placement::Stream);
        [new, kept, tombstones, Placement::Containers]
            .map(|placement| placement.options(&geometry).placement)
    }

    #[test]
    fn each_kind_of_write_has_its_own_handle_as_far_as_there_are() {
        assert_eq!(handles(0), [None; 4]);
        assert_eq!(handles(1), [Some(0); 4]);
        assert_eq!(handles(2), [Some(0), Some(1), Some(1), Some(1)]);
        assert_eq!(handles(4), [0, 1, 2, 3].map(Some));
        assert_eq!(handles(8), [0, 1, 2, 3].map(Some));
    }
}
