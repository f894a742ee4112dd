//! Checkpoints: writing an image of the index, and reading it back.

use std::time::{Duration, Instant};

use raw_block_core::{AlignedBuf, BufferPool, Dispatcher, ReadAt, WriteAt};

use crate::error::Doing;
use crate::fault::{self, Fault};
use crate::format::{
    CheckpointBlock, CheckpointHeader, Damage, ObjectEntry, Superblock, body_blocks,
    entries_per_block,
};
use crate::index::Index;
use crate::layout::buffer_len;
use crate::{Error, fixed};

/// Bytes of a container that are written or read at once: what others wait for behind it is not long.
const PIECE: usize = 256 << 10;
/// Bytes of a body behind which it is flushed, so that the flush that follows is not long either.
const UNFLUSHED: usize = 4 << 20;

/// The checkpoint that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) number: u64,
    /// Which of the two containers holds it.
    pub(crate) container: usize,
    /// The highest number that was tried since the store was opened. One that failed is not used again.
    pub(crate) last_number: u64,
}

/// What a checkpoint is made of.
#[derive(Clone, Copy)]
pub(crate) struct Contents<'a> {
    pub(crate) index: &'a Index,
    /// It speaks for every sequence up to this one, for which the index shows every change.
    pub(crate) covered: u64,
    /// Above every sequence that was given out.
    pub(crate) next_sequence: u64,
}

/// Those who use the device while a checkpoint is written.
pub(crate) trait Others {
    /// Makes durable what is complete.
    fn make_durable(&self) -> Result<(), raw_block_core::Error>;

    /// Leaves the device to them, behind a write that took so long, with so much of the body written.
    fn make_room(&self, took: Duration, written: Written);
}

/// How much of a body is written, in blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) blocks: u64,
    pub(crate) of: u64,
}

/// There are none.
impl Others for Dispatcher {
    fn make_durable(&self) -> Result<(), raw_block_core::Error> {
        self.flush()
    }

    fn make_room(&self, _: Duration, _: Written) {}
}

/// Writes a checkpoint to the container that does not hold the committed one, and commits it: body, flush,
/// header, flush. The flush of the body makes durable everything that it names, and everything that
/// replaced what it does not name.
///
/// Changes may be under way: the index is copied piece by piece, and what has a sequence above the covered
/// one is left out. It speaks for itself.
pub(crate) fn write(
    device: &Dispatcher,
    store: &Superblock,
    committed: &mut Committed,
    contents: Contents<'_>,
    others: &impl Others,
) -> Result<(), Error> {
    const DOING: &str = "write a checkpoint";
    let Contents { index, covered, next_sequence } = contents;
    let container = if Fault::CommittedContainerOverwritten.is_on() {
        committed.container
    } else {
        1 - committed.container
    };
    let offset = store.checkpoint_offset[container].get();
    let block_size = store.block_size.get() as usize;
    let blocks = body_blocks(store.slot_count.get(), store.block_size.get()).unwrap_or(0);
    let mut piece = piece(store, blocks).doing(DOING)?;
    if committed.last_number > committed.number && !Fault::FailedHeaderKept.is_on() {
        // An earlier attempt failed, and its header may be there all the same: out with it, before the
        // body that it names goes.
        fixed::write(device, &[WriteAt::new(offset, &piece[..block_size])]).all().doing(DOING)?;
        others.make_durable().doing(DOING)?;
    }
    committed.last_number += 1;
    let number = committed.last_number;

    let mut live = 0;
    let mut next_block = 0;
    let mut unflushed = 0;
    while next_block < blocks {
        let first_block = next_block;
        let mut filled = 0;
        for block in piece.chunks_exact_mut(block_size) {
            if next_block == blocks {
                break;
            }
            let entries = CheckpointBlock::entries_mut(block, store, next_block)?;
            index.copy(next_block * entries_per_block(store.block_size.get()), entries);
            for entry in entries.iter_mut().filter(|entry| entry.is_live()) {
                if entry.sequence.get() <= covered {
                    live += 1;
                } else {
                    *entry = ObjectEntry::NONE;
                }
            }
            CheckpointBlock::seal(block, store, number, next_block)?;
            filled += block_size;
            next_block += 1;
        }
        let at = offset + (1 + first_block) * block_size as u64;
        let began = Instant::now();
        fixed::write(device, &[WriteAt::new(at, &piece[..filled])]).all().doing(DOING)?;
        let took = began.elapsed();
        unflushed += filled;
        if next_block < blocks {
            if unflushed >= UNFLUSHED {
                others.make_durable().doing(DOING)?;
                unflushed = 0;
            }
            others.make_room(took, Written { blocks: next_block, of: blocks });
        }
    }
    if !Fault::BodyNotFlushed.is_on() {
        others.make_durable().doing(DOING)?;
    }

    let mut header = CheckpointHeader::new(store);
    header.number = number.into();
    header.covered_sequence = covered.into();
    header.next_sequence = next_sequence.into();
    header.live_count = live.into();
    let block = &mut piece[..block_size];
    header.encode(block, store)?;
    fixed::write(device, &[WriteAt::new(offset, block)]).all().doing(DOING)?;
    if !Fault::CheckpointHeaderNotFlushed.is_on() {
        others.make_durable().doing(DOING)?;
    }

    *committed = Committed { number, container, last_number: number };
    Ok(())
}

/// Memory for a piece of a container of so many blocks: a pool's, because that is in huge pages, and so one
/// address to the device.
fn piece(store: &Superblock, blocks: u64) -> Result<AlignedBuf, raw_block_core::Error> {
    let limit = if fault::checkpoints_in_single_blocks() { 0 } else { PIECE };
    let pool = BufferPool::new(buffer_len(store, blocks, limit), 1)?;
    Ok(pool.take().unwrap_or_else(|| unreachable!("nobody else has the pool")))
}

/// A checkpoint as it was found on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) committed: Committed,
    /// It speaks for every sequence up to this one.
    pub(crate) covered: u64,
    /// Above every sequence that was given out when its index was copied.
    pub(crate) next_sequence: u64,
    live_count: u64,
}

impl Checkpoint {
    /// Reads the body and calls `visit` with the entries of each piece of it, and the slot of the first.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a block of it is; [`Error::Device`]; what `visit` returns.
    pub(crate) fn entries(
        &self,
        device: &Dispatcher,
        store: &Superblock,
        mut visit: impl FnMut(u64, &[ObjectEntry]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const DOING: &str = "read a checkpoint";
        let Committed { number, container, .. } = self.committed;
        let block_size = store.block_size.get() as usize;
        let body = store.checkpoint_offset[container].get() + block_size as u64;
        let blocks = body_blocks(store.slot_count.get(), store.block_size.get()).unwrap_or(0);
        let mut piece = piece(store, blocks).doing(DOING)?;
        let mut slot = 0;
        let mut live = 0;
        let mut index = 0;
        while index < blocks {
            let at = body + index * block_size as u64;
            let left =
                usize::try_from(blocks - index).unwrap_or(usize::MAX).saturating_mul(block_size);
            let len = piece.len().min(left);
            device.read_buffers(&mut [ReadAt::new(at, &mut piece[..len])]).all().doing(DOING)?;
            for block in piece[..len].chunks_exact(block_size) {
                let entries =
                    CheckpointBlock::read(block, store, number, index).map_err(|damage| {
                        let offset = body + index * block_size as u64;
                        Error::Damaged { structure: "a block of a checkpoint", offset, damage }
                    })?;
                live += entries.iter().filter(|entry| entry.is_live()).count() as u64;
                visit(slot, entries)?;
                slot += entries.len() as u64;
                index += 1;
            }
        }
        if live == self.live_count {
            return Ok(());
        }
        Err(Error::Damaged {
            structure: "the header of a checkpoint",
            offset: store.checkpoint_offset[container].get(),
            damage: Damage::Inconsistent("its body has another number of live entries"),
        })
    }
}

/// The checkpoints of this store whose headers are valid, the newest first.
///
/// # Errors
/// [`Error::Damaged`] when there is none.
pub(crate) fn find(device: &Dispatcher, store: &Superblock) -> Result<Vec<Checkpoint>, Error> {
    const DOING: &str = "read the checkpoints";
    let block_size = store.block_size.get() as usize;
    let offsets = store.checkpoint_offset.map(u64::from);
    let mut blocks = AlignedBuf::zeroed(2 * block_size).doing(DOING)?;
    let (first, second) = blocks.split_at_mut(block_size);
    let mut reads = [ReadAt::new(offsets[0], first), ReadAt::new(offsets[1], second)];
    let readable = device.read_buffers(&mut reads);

    let mut found = Vec::new();
    let mut lost = None;
    let containers = blocks.chunks_exact(block_size).zip(readable).enumerate();
    for (container, (block, readable)) in containers {
        if let Err(error) = readable {
            lost = Some(Error::Device { doing: DOING, error });
            continue;
        }
        match CheckpointHeader::read(block, store) {
            Ok(header) => {
                let number = header.number.get();
                found.push(Checkpoint {
                    committed: Committed { number, container, last_number: number },
                    covered: header.covered_sequence.get(),
                    next_sequence: header.next_sequence.get(),
                    live_count: header.live_count.get(),
                });
            }
            Err(damage) => {
                let (structure, offset) = ("the header of a checkpoint", offsets[container]);
                lost = Some(Error::Damaged { structure, offset, damage });
            }
        }
    }
    found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.committed.number));
    match lost {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}
