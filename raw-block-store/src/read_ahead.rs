//! Reading many objects, and those behind them while somebody looks at the first.

use std::collections::VecDeque;

use raw_block_core::{AlignedBuf, BUFFER_ALIGNMENT, BufferPool, OwnedTransfer, ReadAt, Ticket};

use crate::Error;
use crate::error::Doing;
use crate::format::ObjectEntry;
use crate::index::Located;
use crate::layout::slot_offset;
use crate::shared::Shared;

/// Bytes of buffers that are filled by one batch, unless a single object needs more. Neighbours become few and long
/// requests to the device, which are slower than several of this length one after the other.
const PIECE: usize = 2 << 20;
/// Batches that have buffers: one that is looked at, the others under way.
const PIECES: usize = 4;
/// Slots in which a batch looks for objects.
const SLOTS: usize = 4096;

/// Reads the first bytes of all objects, in the order of the slots.
///
/// The device always has the next batch while the one before it is looked at, and every object has a buffer of its own
/// in huge pages, so nothing is copied or allocated on the way.
pub(crate) struct ReadAhead<'a, F> {
    shared: &'a Shared,
    /// How many bytes of an object are read.
    len: F,
    pool: BufferPool,
    /// The first slot that no batch has yet.
    next_slot: u64,
    under_way: VecDeque<UnderWay>,
}

/// Objects whose reading was begun together.
struct UnderWay {
    objects: Vec<(Located, usize)>,
    slots_done: u64,
    reading: Reading,
}

enum Reading {
    Begun(Box<Ticket>),
    Over(Vec<Read>),
}

/// A buffer, and how reading into it went.
type Read = (AlignedBuf, Result<(), raw_block_core::Error>);

/// Objects that were read together.
pub(crate) struct Piece {
    /// Each with how many bytes of it were wanted.
    pub(crate) objects: Vec<(Located, usize, Read)>,
    /// Slots that are done with this piece.
    pub(crate) slots_done: u64,
}

impl Drop for Piece {
    /// Gives the buffers back in the order in which they are taken again, so that neighbours on the device stay
    /// neighbours in memory, and a merged read has few pieces.
    fn drop(&mut self) {
        while self.objects.pop().is_some() {}
    }
}

impl<'a, F: Fn(&ObjectEntry) -> usize> ReadAhead<'a, F> {
    /// `len` is at most `longest`.
    pub(crate) fn new(shared: &'a Shared, longest: usize, len: F) -> Result<Self, Error> {
        let in_a_piece = (PIECE / longest.next_multiple_of(BUFFER_ALIGNMENT)).max(1);
        let pool = BufferPool::new(longest, in_a_piece * PIECES).doing("make room for objects")?;
        Ok(Self { shared, len, pool, next_slot: 0, under_way: VecDeque::new() })
    }

    /// The objects that come next; `None` behind the last slot. What the piece before this one has for buffers must
    /// have been dropped.
    pub(crate) fn next(&mut self) -> Option<Piece> {
        while self.under_way.len() < PIECES && self.next_slot < self.shared.layout.slot_count.get()
        {
            let begun = self.begin();
            self.under_way.push_back(begun);
        }
        let UnderWay { objects, slots_done, reading } = self.under_way.pop_front()?;
        let reads = match reading {
            Reading::Begun(ticket) => {
                ticket.wait().into_iter().map(|read| (read.buffer, read.result)).collect()
            }
            Reading::Over(reads) => reads,
        };
        let objects = objects.into_iter().zip(reads);
        let objects = objects.map(|((located, len), read)| (located, len, read)).collect();
        Some(Piece { objects, slots_done })
    }

    /// Begins to read the objects in the next slots.
    fn begin(&mut self) -> UnderWay {
        let Self { shared, len, pool, next_slot, .. } = self;
        let count = usize::try_from(shared.layout.slot_count.get() - *next_slot);
        let mut entries = vec![ObjectEntry::NONE; count.unwrap_or(SLOTS).min(SLOTS)];
        shared.index.copy(*next_slot, &mut entries);
        let (mut objects, mut reads) = (Vec::new(), Vec::new());
        let in_a_piece = pool.count() / PIECES;
        for entry in entries {
            if entry.is_live() {
                if reads.len() == in_a_piece {
                    break;
                }
                let Some(buffer) = pool.take() else { break };
                let (slot, len) = (*next_slot, len(&entry));
                let read = OwnedTransfer::new(slot_offset(&shared.layout, slot), buffer);
                reads.push(OwnedTransfer { payload_len: len, total_len: len as u64, ..read });
                objects.push((Located { slot, entry }, len));
            }
            *next_slot += 1;
        }
        let reading = match shared.device.batched_read(reads) {
            Ok(ticket) => Reading::Begun(Box::new(ticket)),
            // No queue is left for it: then it waits for one, as every other call does.
            Err(refused) => Reading::Over(read_at_once(shared, refused.batch)),
        };
        UnderWay { objects, slots_done: *next_slot, reading }
    }
}

fn read_at_once(shared: &Shared, mut batch: Vec<OwnedTransfer>) -> Vec<Read> {
    let mut reads: Vec<_> = batch
        .iter_mut()
        .map(|read| ReadAt::new(read.offset, &mut read.buffer[..read.payload_len]))
        .collect();
    let results = shared.device.read_buffers(&mut reads);
    batch.into_iter().map(|read| read.buffer).zip(results).collect()
}
