//! Checkpoints: writing an image of the index, and reading it back.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use crate::Error;
use crate::error::Doing;
use crate::format::{
    CheckpointBlock, CheckpointHeader, Damage, ObjectEntry, Superblock, body_blocks,
    entries_per_block,
};
use crate::layout::whole_blocks;

/// Bytes of a container that are written or read at once.
const PIECE: usize = 1 << 20;

/// The checkpoint that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) number: u64,
    /// Which of the two containers holds it.
    pub(crate) container: usize,
    /// The highest number that was tried since the store was opened. One that failed is not used again.
    pub(crate) last_number: u64,
}

/// A checkpoint as it was found on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) committed: Committed,
    /// It speaks for every sequence up to this one.
    pub(crate) covered: u64,
    /// Above every sequence that was given out when it was taken.
    pub(crate) next_sequence: u64,
    live_count: u64,
}

/// Writes a checkpoint of `entries` to the container that does not hold the committed one, and commits
/// it: body, flush, header, flush. The first flush makes durable everything that the entries name.
///
/// No operation is under way, so every sequence below `next_sequence` is covered.
pub(crate) fn write(
    device: &Dispatcher,
    store: &Superblock,
    committed: &mut Committed,
    entries: &[ObjectEntry],
    next_sequence: u64,
) -> Result<(), Error> {
    const DOING: &str = "write a checkpoint";
    let container = 1 - committed.container;
    let offset = store.checkpoint_offset[container].get();
    let block_size = store.block_size.get() as usize;
    let per_block = entries_in_block(store);
    let mut piece = AlignedBuf::zeroed(whole_blocks(store, PIECE)).doing(DOING)?;
    if committed.last_number > committed.number {
        // An earlier attempt failed, and its header may be there all the same: out with it, before the
        // body that it names goes.
        device.write_buffers(&[WriteAt::new(offset, &piece[..block_size])]).all().doing(DOING)?;
        device.flush().doing(DOING)?;
    }
    committed.last_number += 1;
    let number = committed.last_number;

    let mut at = offset + block_size as u64;
    let mut blocks = (0..).zip(entries.chunks(per_block)).peekable();
    while blocks.peek().is_some() {
        let mut filled = 0;
        for (block, (index, entries)) in piece.chunks_exact_mut(block_size).zip(&mut blocks) {
            CheckpointBlock::entries_mut(block, store, index)?.copy_from_slice(entries);
            CheckpointBlock::seal(block, store, number, index)?;
            filled += block_size;
        }
        device.write_buffers(&[WriteAt::new(at, &piece[..filled])]).all().doing(DOING)?;
        at += filled as u64;
    }
    device.flush().doing(DOING)?;

    let mut header = CheckpointHeader::new(store);
    header.number = number.into();
    header.covered_sequence = (next_sequence - 1).into();
    header.next_sequence = next_sequence.into();
    header.live_count = (entries.iter().filter(|entry| entry.is_live()).count() as u64).into();
    let block = &mut piece[..block_size];
    header.encode(block, store)?;
    device.write_buffers(&[WriteAt::new(offset, block)]).all().doing(DOING)?;
    device.flush().doing(DOING)?;

    *committed = Committed { number, container, last_number: number };
    Ok(())
}

/// Finds the newest checkpoint of this store and calls `visit` with each live entry and its slot.
///
/// # Errors
/// [`Error::Damaged`] when there is none, or when the body of the newest is damaged: the older one may
/// name objects that are no longer there, so it is not used in its place. If the header itself was
/// damaged after it was committed, the older checkpoint passes for the newest: the two cannot be told
/// from a header that was never completely written.
pub(crate) fn read(
    device: &Dispatcher,
    store: &Superblock,
    mut visit: impl FnMut(u64, &ObjectEntry),
) -> Result<Checkpoint, Error> {
    let checkpoint = newest(device, store)?;
    let committed = checkpoint.committed;
    let block_size = store.block_size.get() as usize;
    let body = store.checkpoint_offset[committed.container].get() + block_size as u64;
    let blocks = body_blocks(store.slot_count.get(), store.block_size.get()).unwrap_or(0);
    let mut piece = AlignedBuf::zeroed(whole_blocks(store, PIECE)).doing("read the checkpoint")?;
    let mut slot = 0;
    let mut live = 0;
    let mut index = 0;
    while index < blocks {
        let at = body + index * block_size as u64;
        let left = usize::try_from(blocks - index).unwrap_or(usize::MAX).saturating_mul(block_size);
        let len = piece.len().min(left);
        let read = &mut piece[..len];
        device.read_buffers(&mut [ReadAt::new(at, read)]).all().doing("read the checkpoint")?;
        for block in piece[..len].chunks_exact(block_size) {
            let entries = CheckpointBlock::read(block, store, committed.number, index);
            let entries = entries.map_err(|damage| Error::Damaged {
                structure: "a block of the newest checkpoint",
                offset: body + index * block_size as u64,
                damage,
            })?;
            for entry in entries {
                if entry.is_live() {
                    live += 1;
                    visit(slot, entry);
                }
                slot += 1;
            }
            index += 1;
        }
    }
    if live != checkpoint.live_count {
        return Err(Error::Damaged {
            structure: "the newest checkpoint",
            offset: store.checkpoint_offset[committed.container].get(),
            damage: Damage::Inconsistent("it has not as many live entries as its header says"),
        });
    }
    Ok(checkpoint)
}

/// The newest checkpoint whose header is valid.
fn newest(device: &Dispatcher, store: &Superblock) -> Result<Checkpoint, Error> {
    let block_size = store.block_size.get() as usize;
    let offsets = store.checkpoint_offset.map(u64::from);
    let mut blocks = AlignedBuf::zeroed(2 * block_size).doing("read the checkpoint")?;
    let (first, second) = blocks.split_at_mut(block_size);
    let mut reads = [ReadAt::new(offsets[0], first), ReadAt::new(offsets[1], second)];
    device.read_buffers(&mut reads).all().doing("read the checkpoint")?;

    let mut newest: Option<Checkpoint> = None;
    let mut damaged = None;
    for (container, block) in blocks.chunks_exact(block_size).enumerate() {
        match CheckpointHeader::read(block, store) {
            Ok(header) => {
                let number = header.number.get();
                if newest.is_none_or(|newest| newest.committed.number < number) {
                    newest = Some(Checkpoint {
                        committed: Committed { number, container, last_number: number },
                        covered: header.covered_sequence.get(),
                        next_sequence: header.next_sequence.get(),
                        live_count: header.live_count.get(),
                    });
                }
            }
            Err(damage) => {
                let (structure, offset) = ("the header of a checkpoint", offsets[container]);
                damaged = Some(Error::Damaged { structure, offset, damage });
            }
        }
    }
    // Both were read, so without a valid one there is a damaged one.
    newest.ok_or_else(|| {
        damaged.unwrap_or_else(|| unreachable!("each header is either valid or damaged"))
    })
}

fn entries_in_block(store: &Superblock) -> usize {
    usize::try_from(entries_per_block(store.block_size.get())).unwrap_or(1)
}
