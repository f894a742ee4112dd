//! Copying one long object in parts.

use super::copier::{Copier, CopyOutcome, ObjectCopy, group_len};
use super::source::Fate;
use crate::Error;
use crate::format::{PayloadHasher, SlotHeader};
use crate::io::slot_header::{self, ObjectName};
use crate::state::space::Slot;

/// How many times a payload is read that fails its check.
const ATTEMPTS: usize = 2;

/// Why a part was not copied.
enum Part {
    Unreadable,
    WriteFailed(raw_block_core::Error),
}

/// Copies the object of a slot that has no other.
///
/// # Errors
/// [`Error::Device`] if there is no memory, [`Error::Encode`].
pub(super) fn copy(
    copier: &Copier<'_>,
    slot: &Slot,
    copies: &mut [CopyOutcome],
) -> Result<(), Error> {
    let (Some(copying), Some(&at)) =
        (copier.objects(slot).next(), slot.objects.clone().next().as_ref())
    else {
        return Ok(());
    };
    let scratch = &copier.state.scratch;
    let mut header = scratch.take(copier.block_size())?;
    let header_block = copying.from.object.entry.header_block();
    let is_read = copier.source.read_again(header_block, &mut header)
        || copier.source.read_again(header_block, &mut header);
    let layout = &copier.state.layout;
    let view = SlotHeader::read(&header, layout, copier.source.segment, header_block)
        .and_then(|view| view.of_generation(copier.source.generation()));
    let view = view.ok().filter(|_| is_read);
    let Some(object) = view.and_then(|view| view.object(copying.from.object.place.number)) else {
        copies[at] = fate_of_copy(copier.source.unreadable());
        return Ok(());
    };

    let mut buffer = scratch.take(group_len())?;
    let mut fate = Fate::Move;
    let mut checksum = 0;
    for attempt in 1..=ATTEMPTS {
        match copy_payload(copier, slot, copying, &mut buffer) {
            Ok((new, is_intact)) => {
                checksum = new;
                if is_intact {
                    break;
                }
                if attempt == ATTEMPTS {
                    fate = copier.source.damaged(&copying.from.object);
                }
            }
            Err(Part::Unreadable) if attempt < ATTEMPTS => {}
            Err(Part::Unreadable) => fate = copier.source.unreadable(),
            Err(Part::WriteFailed(error)) => {
                copier.write_failed(slot, &error, copies);
                return Ok(());
            }
        }
    }
    if matches!(fate, Fate::Drop | Fate::Unreadable) {
        copies[at] = fate_of_copy(fate);
        return Ok(());
    }
    let key_hash = copying.from.object.entry.key_hash;
    let named = ObjectName { key_hash, key: object.key, metadata: object.metadata };
    let entry = copier.entry(copying, &named, checksum, fate);
    let mut block = scratch.take(copier.block_size())?;
    slot_header::encode(copier.state, slot, &mut block, [(entry, named)].into_iter(), &[])?;
    let write = [copier.write_at(slot, slot.block, &block)];
    match copier.state.dispatcher.write_buffers(&write).all() {
        Ok(()) => {
            copier.state.write_succeeded();
            copies[at] = CopyOutcome::Written { entry, damaged: fate == Fate::MoveDamaged };
        }
        Err(error) => copier.write_failed(slot, &error, copies),
    }
    Ok(())
}

fn fate_of_copy(fate: Fate) -> CopyOutcome {
    if fate == Fate::Drop { CopyOutcome::Dropped } else { CopyOutcome::Unreadable }
}

/// Copies the payload part by part. Returns its checksum at the new place, and whether it is what
/// was written.
fn copy_payload(
    copier: &Copier<'_>,
    slot: &Slot,
    copying: ObjectCopy<'_>,
    buffer: &mut [u8],
) -> Result<(u64, bool), Part> {
    let ObjectCopy { from, to } = copying;
    let (layout, block_size) = (&copier.state.layout, copier.block_size());
    let entry = &from.object.entry;
    let source = &copier.source;
    let mut hasher = PayloadHasher::new();
    let (mut left, mut done) = (entry.payload_len.get() as usize, 0);
    while left > 0 {
        let len = left.min(buffer.len() / block_size * block_size);
        let part = &mut buffer[..len.next_multiple_of(block_size)];
        let read = source.read_at(entry.block.get() + done, part);
        copier.state.dispatcher.read_buffers(&mut [read]).all().map_err(|_| Part::Unreadable)?;
        part[len..].fill(0);
        hasher.update(&part[..len]);
        let write = [copier.write_at(slot, to.block + done, part)];
        copier.state.dispatcher.write_buffers(&write).all().map_err(Part::WriteFailed)?;
        left -= len;
        done += u32::try_from(part.len() / block_size).unwrap_or(u32::MAX);
    }
    let hash = hasher.finish();
    let checksum = slot_header::payload_place(slot, to).checksum(layout, hash);
    Ok((checksum, source.is_intact(entry, hash)))
}
