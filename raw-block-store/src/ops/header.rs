//! Reading what a slot header says of an object.

use crate::Error;
use crate::Store;
use crate::format::{Damage, ObjectView, SlotHeader, SlotView};
use crate::state::StoreState;
use crate::state::index::Located;

const STRUCTURE: &str = "a slot header";

/// The header of the slot in this block of a segment, which was written in this generation of it.
///
/// # Errors
/// [`Error::Damaged`].
pub(super) fn slot_header<'b>(
    state: &StoreState,
    bytes: &'b [u8],
    (segment, block): (u32, u32),
    generation: u64,
) -> Result<SlotView<'b>, Error> {
    let view = SlotHeader::read(bytes, &state.layout, segment, block);
    view.and_then(|view| view.of_generation(generation)).map_err(|damage| {
        let offset = state.layout.block_offset(segment, block);
        Error::Damaged { structure: STRUCTURE, offset, damage }
    })
}

impl Store {
    /// What a slot header says of an object.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is another object than the index shows.
    pub(super) fn object_in<'b>(
        &self,
        view: &SlotView<'b>,
        located: &Located,
    ) -> Result<ObjectView<'b>, Error> {
        let Located { place, entry } = located;
        let is_it = |object: &ObjectView<'_>| {
            object.entry == entry && self.hash(object.key) == entry.key_hash
        };
        view.object(place.number).filter(is_it).ok_or_else(|| {
            let offset = self.state.layout.block_offset(place.segment, entry.header_block());
            let damage = Damage::Inconsistent("it names another object than the index");
            Error::Damaged { structure: STRUCTURE, offset, damage }
        })
    }
}
