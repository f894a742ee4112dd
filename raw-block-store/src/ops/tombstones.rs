//! Writing tombstones: deletes that run at the same time share a slot.

use std::sync::{Condvar, Mutex, MutexGuard};

use raw_block_core::{AlignedBuf, ErrorClass, WriteAt, waiting};

use super::stage::slot_place;
use super::write::header_error;
use crate::Error;
use crate::error::Doing;
use crate::format::{Entry, KeyHash, SegmentHeader, SlotHeader, tombstones_per_slot};
use crate::placement::Placement;
use crate::reclaim;
use crate::segment_header;
use crate::state::index::Place;
use crate::state::space::{Allocation, Demand, Outcome, Retry, Shortage, Slot, Space, Stream};
use crate::state::{NoSpace, StoreState};

/// How many times a tombstone slot is written before its deletes fail.
const ATTEMPTS: usize = 3;
const DELETE: &str = "delete an object";

/// Deletes that wait to be written together.
#[derive(Debug, Default)]
pub(crate) struct DeleteQueue {
    state: Mutex<Queue>,
    /// Signalled when a group was written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// The keys of the next group.
    keys: Vec<KeyHash>,
    /// The number of the next group.
    group: u64,
    /// Whether a thread writes a group.
    writing: bool,
    /// The groups that failed, with how many threads have not seen that.
    failed: Vec<(u64, Deleted, usize)>,
    /// How many threads have keys in the next group.
    members: usize,
    /// The number of the group that was written last, plus one.
    ended: u64,
}

/// How deletes ended: tombstones of many keys take several slots.
#[derive(Clone, Debug, Default)]
pub(super) struct Deleted {
    /// How many keys were deleted, the first ones.
    pub(super) count: usize,
    /// Why not all of them were: [`Error::Device`], [`Error::OutOfMemory`], [`Error::OutOfSpace`].
    pub(super) error: Option<Error>,
}

impl Deleted {
    /// What became of the keys of one thread: this many from this position on.
    fn of(&self, start: usize, count: usize) -> Self {
        let deleted = self.count.saturating_sub(start).min(count);
        Self { count: deleted, error: self.error.clone().filter(|_| deleted < count) }
    }
}

impl StoreState {
    /// Deletes keys, whether they are there or not. One thread at a time writes the keys of all that wait.
    pub(super) fn delete_keys(&self, keys: &[KeyHash]) -> Deleted {
        let count = keys.len();
        let mut queue = self.lock_deletes();
        let start = queue.keys.len();
        queue.keys.extend_from_slice(keys);
        queue.members += 1;
        let group = queue.group;
        loop {
            if queue.ended > group {
                return queue
                    .take_result(group)
                    .map_or(Deleted { count, error: None }, |deleted| deleted.of(start, count));
            }
            if !queue.writing {
                break;
            }
            queue = waiting::wait(&self.deletes.written, &self.deletes.state, queue);
        }
        // No key is added to the group from here on: its tombstones get their sequence after the last one was added.
        queue.writing = true;
        queue.group += 1;
        let keys = std::mem::take(&mut queue.keys);
        let members = std::mem::take(&mut queue.members);
        drop(queue);
        let deleted = self.write_tombstones(&keys);
        let mut queue = self.lock_deletes();
        queue.writing = false;
        queue.ended = group + 1;
        if let (Some(_), others @ 1..) = (&deleted.error, members - 1) {
            queue.failed.push((group, deleted.clone(), others));
        }
        drop(queue);
        self.deletes.written.notify_all();
        deleted.of(start, count)
    }

    fn lock_deletes(&self) -> MutexGuard<'_, Queue> {
        waiting::lock(&self.deletes.state)
    }

    fn write_tombstones(&self, keys: &[KeyHash]) -> Deleted {
        let per_slot = tombstones_per_slot(self.layout.block_size).max(1);
        let mut count = 0;
        for keys in keys.chunks(per_slot) {
            let written =
                self.allocate_slot().and_then(|allocation| self.write_slot(keys, allocation));
            if let Err(error) = written {
                return Deleted { count, error: Some(error) };
            }
            count += keys.len();
        }
        Deleted { count, error: None }
    }

    /// Allocates a slot for tombstones. Waits for reclaims, which serve deletes first.
    fn allocate_slot(&self) -> Result<Allocation, Error> {
        let mut allocation = Allocation::default();
        match self.allocate_tombstones(&mut allocation) {
            Ok(()) => return Ok(allocation),
            Err(NoSpace::Memory(error)) => return Err(error),
            Err(NoSpace::Space(_)) => {}
        }
        let waiting = self.with_space(Space::ask_for_tombstones);
        loop {
            let ended = self.wait_for(|space| {
                let mut allocation = Allocation::default();
                if let Some(granted) = space.take_granted(waiting) {
                    allocation = granted;
                } else {
                    match space.allocate_tombstones(&mut allocation) {
                        Ok(()) => drop(space.stop_asking(waiting)),
                        Err(Shortage::Wait) => return None,
                        Err(shortage) => return Some(Err(NoSpace::Space(shortage))),
                    }
                }
                let extended = self.extend_index(space, 0, &mut allocation);
                Some(extended.map(|()| allocation))
            });
            let error = match ended {
                Ok(allocation) => return Ok(allocation),
                Err(NoSpace::Memory(error)) => error,
                Err(NoSpace::Space(Shortage::Reclaim | Shortage::Wait)) => {
                    match reclaim::make_space(self) {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(NoSpace::Space(Shortage::Full)) => self.out_of_space(),
            };
            return self.stop_asking(waiting).unwrap_or(Err(error));
        }
    }

    /// Waits for space no more. Returns what was granted in the meantime.
    fn stop_asking(&self, waiting: u64) -> Option<Result<Allocation, Error>> {
        self.with_space(|space| {
            let mut granted = space.stop_asking(waiting)?;
            match self.extend_index(space, 0, &mut granted) {
                Ok(()) => Some(Ok(granted)),
                Err(NoSpace::Memory(error)) => Some(Err(error)),
                Err(NoSpace::Space(_)) => None,
            }
        })
    }

    /// Writes a slot of tombstones, elsewhere if that fails, and removes what they delete.
    fn write_slot(&self, keys: &[KeyHash], mut allocation: Allocation) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let Some(slot) = allocation.slots.first().cloned() else { return Ok(()) };
            let Some(object) = allocation.objects.first().copied() else { return Ok(()) };
            let written = self.write_once(&slot, object.sequence, keys);
            let written = written.and_then(|()| {
                let is_there = self.wait_for_header(&slot);
                if is_there { Ok(()) } else { Err(header_error(&slot, self.device_name())) }
            });
            let Err(error) = written else {
                self.publish_tombstones(&slot, object.sequence, object.number, keys, &allocation);
                return Ok(());
            };
            self.published(&slot, &allocation.objects, [Outcome::Failed], &[]);
            let sequence = object.sequence;
            let mut again = vec![Retry { index: 0, demand: Demand::default(), sequence }];
            allocation.clear();
            if attempt < ATTEMPTS {
                let extended = self.with_space(|space| {
                    let _ = space.allocate_again(&slot, &mut again, &mut allocation);
                    self.extend_index(space, 0, &mut allocation)
                });
                if extended.is_ok() && again.is_empty() {
                    self.counters.repeated_writes.add(1);
                    attempt += 1;
                    continue;
                }
                if again.is_empty() {
                    return Err(error);
                }
            } else if let Error::Device { error, .. } = &error {
                self.writes_refused(error);
            }
            self.give_up(&slot, 1);
            return Err(error);
        }
    }

    fn write_once(&self, slot: &Slot, sequence: u64, keys: &[KeyHash]) -> Result<(), Error> {
        let block_size = self.layout.block_size as usize;
        let encoded = AlignedBuf::zeroed(2 * block_size).doing(DELETE).and_then(|mut blocks| {
            let (header, tombstones) = blocks.split_at_mut(block_size);
            if let Some(opened) = &slot.opened {
                SegmentHeader::encode(header, &self.layout, &segment_header::fields(opened))?;
            }
            SlotHeader::encode_tombstones(
                tombstones,
                &self.layout,
                &slot_place(slot),
                sequence,
                keys,
            )?;
            Ok(blocks)
        });
        let blocks = match encoded {
            Ok(blocks) => blocks,
            Err(error) => {
                slot.opened.iter().for_each(|opened| self.header_written(opened, false));
                return Err(error);
            }
        };
        let stream = slot.opened.as_ref().map_or(Stream::Tombstones, |opened| opened.stream);
        let options = Placement::Stream(stream).options(self.dispatcher.geometry());
        let (header, tombstones) = blocks.split_at(block_size);
        let at = |block| self.layout.block_offset(slot.segment, block);
        let mut writes = vec![WriteAt::new(at(slot.block), tombstones).with_options(options)];
        if slot.opened.is_some() {
            writes.push(WriteAt::new(at(0), header).with_options(options));
        }
        self.counters.written_bytes.add((writes.len() * block_size) as u64);
        let mut results = self.dispatcher.write_buffers(&writes).into_iter();
        let written = results.next().unwrap_or(Ok(()));
        let opened = results.next().unwrap_or(Ok(()));
        if let Some(header) = &slot.opened {
            self.header_written(header, opened.is_ok());
        }
        let unknown = |result: &Result<(), raw_block_core::Error>| {
            result.as_ref().is_err_and(|error| error.class() == ErrorClass::Unknown)
        };
        if unknown(&written) || unknown(&opened) {
            self.quarantine(slot.segment, slot.generation);
        }
        opened.and(written).doing(DELETE)
    }

    /// The tombstones are written: removes the objects that they delete.
    fn publish_tombstones(
        &self,
        slot: &Slot,
        sequence: u64,
        number: u32,
        keys: &[KeyHash],
        allocation: &Allocation,
    ) {
        let place = Place { segment: slot.segment, number };
        self.index.set_tombstone(place, &Entry::tombstone(sequence, slot.block));
        let oldest = self.with_space(|space| space.oldest_in_flight());
        let mut dropped = Vec::new();
        for key in keys {
            dropped.extend(self.index.delete(key, sequence, oldest));
        }
        self.counters.deletes.add(keys.len() as u64);
        self.published(slot, &allocation.objects, [Outcome::Shown], &dropped);
    }
}

impl Queue {
    /// How a group ended that a thread had keys in, if it failed.
    fn take_result(&mut self, group: u64) -> Option<Deleted> {
        let at = self.failed.iter().position(|(failed, ..)| *failed == group)?;
        self.failed[at].2 -= 1;
        if self.failed[at].2 == 0 {
            return Some(self.failed.swap_remove(at).1);
        }
        Some(self.failed[at].1.clone())
    }
}
