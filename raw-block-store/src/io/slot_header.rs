//! The headers of slots that were allocated, for puts and for moves.

use crate::Error;
use crate::format::{Entry, KeyHash, PayloadPlace, SlotHeader, SlotObject};
use crate::state::StoreState;
use crate::state::space::{AllocatedObject, Slot};

/// What the entry of an object says wherever it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectName<'a> {
    pub(crate) key_hash: KeyHash,
    pub(crate) key: &'a [u8],
    pub(crate) metadata: &'a [u8],
}

/// Where the payload of an object goes.
pub(crate) fn payload_place(slot: &Slot, object: &AllocatedObject) -> PayloadPlace {
    PayloadPlace {
        segment: slot.segment,
        generation: slot.generation,
        block: object.block,
        sequence: object.sequence,
    }
}

/// The entry of an object whose payload has this checksum.
pub(crate) fn entry(object: &AllocatedObject, named: &ObjectName<'_>, checksum: u64) -> Entry {
    let short = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Entry {
        key_hash: named.key_hash,
        sequence: object.sequence.into(),
        checksum: checksum.into(),
        payload_len: object.demand.payload_len.into(),
        key_len: short(named.key).into(),
        metadata_len: short(named.metadata).into(),
        block: object.block.into(),
        blocks_back: object.blocks_back.into(),
    }
}

/// Fills the header block of a slot with entries and names, and an inline payload or none.
///
/// # Errors
/// [`Error::Encode`].
pub(crate) fn encode<'a>(
    state: &StoreState,
    slot: &Slot,
    block: &mut [u8],
    objects: impl ExactSizeIterator<Item = (Entry, ObjectName<'a>)>,
    inline: &[u8],
) -> Result<(), Error> {
    let objects = objects.map(|(entry, ObjectName { key, metadata, .. })| SlotObject {
        entry,
        key,
        metadata,
    });
    Ok(SlotHeader::encode(block, &state.layout, &slot.place(), objects, inline)?)
}
