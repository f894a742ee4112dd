//! The keys of tombstone slots that tables name.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::damages::{Damages, UnreadableBlock, is_readable};
use super::plan::Segments;
use crate::Error;
use crate::error::Context;
use crate::format::{Layout, SlotHeader};
use crate::state::index::{KeyHash, Located};

/// Slots that are read at once.
const BATCH: usize = 512;

/// Reads tombstone slots. Calls `each` with the sequence and the keys of each.
///
/// # Errors
/// [`Error::NewestLost`] when a slot cannot be read, unless older states are accepted;
/// [`Error::Device`].
pub(super) fn read(
    dispatcher: &Dispatcher,
    layout: &Layout,
    segments: &Segments<'_>,
    slots: &[Located],
    damages: &mut Damages<'_>,
    mut each: impl FnMut(u64, &[KeyHash]),
) -> Result<(), Error> {
    let block_size = layout.block_size as usize;
    let at_once = BATCH.min(slots.len());
    let mut blocks = AlignedBuf::zeroed(at_once * block_size).context("read tombstones")?;
    for slots in slots.chunks(BATCH) {
        let mut reads: Vec<_> = slots
            .iter()
            .zip(blocks.chunks_exact_mut(block_size))
            .map(|(slot, block)| {
                let Located { place, entry } = slot;
                ReadAt::new(layout.block_offset(place.segment, entry.block.get()), block)
            })
            .collect();
        let results = dispatcher.read_buffers(&mut reads);
        for ((slot, bytes), result) in
            slots.iter().zip(blocks.chunks_exact(block_size)).zip(results)
        {
            let Located { place, entry } = slot;
            let (segment, block) = (place.segment, entry.block.get());
            if let Err(error) = is_readable(result)? {
                damages.leave_out("a tombstone", &UnreadableBlock { segment, block, error })?;
                continue;
            }
            match SlotHeader::read(bytes, layout, segment, block) {
                Ok(view) if view.header.generation.get() == segments.generation(segment) => {
                    each(entry.sequence.get(), view.tombstones().unwrap_or(&[]));
                }
                Ok(_) => {
                    damages.note_damage("a tombstone", segment, block, &"another slot is there");
                }
                Err(damage) => damages.note_damage("a tombstone", segment, block, &damage),
            }
        }
    }
    Ok(())
}
