//! Checkpoints: writing an image of the index, and reading it back.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use crate::Error;
use crate::error::Doing;
use crate::format::{
    CheckpointBlock, CheckpointHeader, ObjectEntry, Superblock, body_blocks, entries_per_block,
};

/// Bytes of a container that are written or read at once.
const PIECE: usize = 1 << 20;

/// The checkpoint that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) number: u64,
    /// Which of the two containers holds it.
    pub(crate) container: usize,
    /// The checkpoint speaks for every sequence up to this one.
    pub(crate) covered: u64,
    /// Above every sequence that was given out when it was taken.
    pub(crate) next_sequence: u64,
    /// The highest number that was ever tried. One that failed is never used again.
    pub(crate) last_number: u64,
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
    committed.last_number += 1;
    let number = committed.last_number;
    let container = 1 - committed.container;
    let offset = store.checkpoint_offset[container].get();
    let block_size = store.block_size.get() as usize;
    let per_block = entries_in_block(store);

    let mut piece = AlignedBuf::zeroed(piece_len(store)).doing(DOING)?;
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

    let covered = next_sequence - 1;
    *committed = Committed { number, container, covered, next_sequence, last_number: number };
    Ok(())
}

/// Finds the newest checkpoint of this store and calls `visit` with each live entry and its slot.
///
/// # Errors
/// [`Error::Damaged`] when there is none, or it is damaged: the older one may name objects that are no
/// longer there, so it is not used in its place.
pub(crate) fn read(
    device: &Dispatcher,
    store: &Superblock,
    mut visit: impl FnMut(u64, &ObjectEntry),
) -> Result<Committed, Error> {
    let committed = newest(device, store)?;
    let block_size = store.block_size.get() as usize;
    let body = store.checkpoint_offset[committed.container].get() + block_size as u64;
    let blocks = body_blocks(store.slot_count.get(), store.block_size.get()).unwrap_or(0);
    let mut piece = AlignedBuf::zeroed(piece_len(store)).doing("read the checkpoint")?;
    let mut slot = 0;
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
                    visit(slot, entry);
                }
                slot += 1;
            }
            index += 1;
        }
    }
    Ok(committed)
}

/// The newest checkpoint whose header is valid.
fn newest(device: &Dispatcher, store: &Superblock) -> Result<Committed, Error> {
    let block_size = store.block_size.get() as usize;
    let offsets = store.checkpoint_offset.map(u64::from);
    let mut blocks = AlignedBuf::zeroed(2 * block_size).doing("read the checkpoint")?;
    let (first, second) = blocks.split_at_mut(block_size);
    let mut reads = [ReadAt::new(offsets[0], first), ReadAt::new(offsets[1], second)];
    device.read_buffers(&mut reads).all().doing("read the checkpoint")?;

    let mut newest: Option<Committed> = None;
    let mut damaged = None;
    for (container, block) in blocks.chunks_exact(block_size).enumerate() {
        match CheckpointHeader::read(block, store) {
            Ok(header) => {
                let number = header.number.get();
                if newest.is_none_or(|newest| newest.number < number) {
                    newest = Some(Committed {
                        number,
                        container,
                        covered: header.covered_sequence.get(),
                        next_sequence: header.next_sequence.get(),
                        last_number: number,
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

/// The length of a piece: whole blocks, at least one.
fn piece_len(store: &Superblock) -> usize {
    let block_size = store.block_size.get() as usize;
    (PIECE / block_size).max(1) * block_size
}
