//! The copies of the superblock: their places, and which of them counts.

use super::{SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock};
use crate::format::Damage;

const CELL: u64 = SUPERBLOCK_CELL_LEN as u64;

/// The places of the copies of the superblock on a device of `device_len` bytes: its first two
/// cells and the last complete one. `None` if the device has fewer than three cells.
pub fn superblock_offsets(device_len: u64) -> Option<[u64; SUPERBLOCK_COPIES]> {
    let last = (device_len / CELL).checked_sub(1)?;
    (last >= 2).then_some([0, CELL, last * CELL])
}

/// The copies in the cells of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperblockCopies<'a> {
    /// The copy that counts, if there is one.
    pub newest: Option<&'a Superblock>,
    /// Each copy, in the order of the cells. A valid copy may be older than the
    /// newest.
    pub copies: [Result<&'a Superblock, Damage>; SUPERBLOCK_COPIES],
}

impl Superblock {
    /// Reads the copies in `cells` and picks the one with the highest
    /// generation. A cell that could not be read is passed as an empty slice.
    ///
    /// The first valid copy determines the store on the device; valid copies of another store are
    /// reported as [`Damage::ForeignStore`]. If two copies of one generation differ, the first one
    /// counts, and the other is reported as [`Damage::Inconsistent`].
    ///
    /// If a copy is intact, but has a version or features that this software does not know, no copy
    /// counts: the others may be older.
    pub fn newest(cells: [&[u8]; SUPERBLOCK_COPIES]) -> SuperblockCopies<'_> {
        let mut copies = cells.map(Superblock::read);

        if let Some(first) = copies.iter().flatten().copied().next() {
            for copy in &mut copies {
                if let Ok(superblock) = copy
                    && let Err(damage) = superblock.preamble.check_store(&first.preamble.uuid)
                {
                    *copy = Err(damage);
                }
            }
        }

        let is_beyond_us = |copy: &Result<_, Damage>| {
            matches!(copy, Err(Damage::Version { .. } | Damage::UnknownFeatures { .. }))
        };
        if copies.iter().any(is_beyond_us) {
            return SuperblockCopies { newest: None, copies };
        }

        // Of equal maxima `max_by_key` returns the last: in reverse, the first.
        let valid = copies.iter().flatten().copied();
        let newest = valid.rev().max_by_key(|copy| copy.generation.get());

        if let Some(newest) = newest {
            for copy in &mut copies {
                if copy.as_ref().is_ok_and(|superblock| {
                    superblock.generation == newest.generation && *superblock != newest
                }) {
                    *copy = Err(Damage::Inconsistent(
                        "the copy differs from another one of the same generation",
                    ));
                }
            }
        }
        SuperblockCopies { newest, copies }
    }
}
