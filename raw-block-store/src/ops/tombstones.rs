//! Writing tombstones, and removing what they delete.

use raw_block_core::{AlignedBuf, ErrorClass, ErrorKind, WriteAt};

use super::attempts::{FailedSlot, header_error};
use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::format::{Entry, KeyHash, SegmentHeader, SlotHeader, tombstones_per_slot};
use crate::io::Placement;
use crate::io::segment_header;
use crate::mutant::Mutant;
use crate::reclaim;
use crate::state::index::{Located, Place};
use crate::state::space::{
    AllocatedObject, Allocation, CheckpointPurpose, Outcome, Shortage, Slot, Space, Stream,
};
use crate::state::unwind::OnPanic;
use crate::state::{NoSpace, StoreState};

pub(super) const DELETE: &str = "delete an object";

impl StoreState {
    /// Deletes keys, whether they are there or not. Returns for each whether there was an object
    /// with it.
    pub(super) fn write_tombstones(&self, keys: &[KeyHash]) -> Vec<Result<bool, Error>> {
        let per_slot = tombstones_per_slot(self.layout.block_size).max(1);
        let mut results = Vec::with_capacity(keys.len());
        for keys in keys.chunks(per_slot) {
            let written = match self.allocate_slot() {
                Ok(allocation) => self.write_slot(keys, &allocation, &mut results),
                Err(full @ Error::OutOfSpace { .. }) => {
                    match self.with_space(Space::take_sequence_of_delete) {
                        Some(sequence) => self.delete_by_checkpoint(keys, sequence, &mut results),
                        None => Err(full),
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                results.extend(keys.iter().map(|_| Err(error.clone())));
            }
        }
        results
    }

    /// Allocates a slot for tombstones. Waits for reclaims, which serve deletes first.
    fn allocate_slot(&self) -> Result<Allocation, Error> {
        let mut allocation = Allocation::default();
        match self.allocate_tombstones(&mut allocation) {
            Ok(()) => return Ok(allocation),
            Err(NoSpace::Memory(error)) => return Err(error),
            Err(NoSpace::Space(_)) => {}
        }
        self.check_writes(DELETE)?;
        let waiting = self.with_space(Space::ask_for_tombstones);
        let stop = OnPanic(|| self.stop_asking_in_panic(waiting));
        let allocated = self.wait_for_slot(waiting);
        drop(stop);
        allocated
    }

    /// Allocates a slot for tombstones for a delete that asked for it.
    fn wait_for_slot(&self, waiting: u64) -> Result<Allocation, Error> {
        loop {
            let ended = self.wait_for_space(|space| {
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
                        Ok(_) => continue,
                        Err(error) => error,
                    }
                }
                Err(NoSpace::Space(Shortage::Full)) => self.out_of_space(),
            };
            return self.stop_asking(waiting).unwrap_or(Err(error));
        }
    }

    /// Waits for space no more, because the device panicked. What was granted in the meantime
    /// fails.
    fn stop_asking_in_panic(&self, waiting: u64) {
        if let Some(granted) = self.with_space(|space| space.stop_asking(waiting)) {
            for slot in &granted.slots {
                self.abandon(slot, granted.objects_of(slot));
            }
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

    /// Writes a slot of tombstones, elsewhere if that fails, removes what they delete, and appends
    /// for each key whether there was an object with it.
    ///
    /// # Errors
    /// No result was appended.
    fn write_slot(
        &self,
        keys: &[KeyHash],
        allocation: &Allocation,
        results: &mut Vec<Result<bool, Error>>,
    ) -> Result<(), Error> {
        let mut given_up = Ok(());
        let mut attempt = |allocation: &Allocation| {
            let slots = allocation.slots.iter().zip(&allocation.objects);
            slots
                .filter_map(|(slot, object)| self.try_tombstones(keys, slot, object, results))
                .collect()
        };
        let failed = attempt(allocation);
        self.retry(failed, attempt, |_, _, error| given_up = Err(error.clone()));
        match (given_up, allocation.objects.first()) {
            (Err(Error::Device { error, .. }), Some(object))
                if error.kind() == ErrorKind::NoSpace =>
            {
                self.delete_by_checkpoint(keys, object.sequence, results)
            }
            (given_up, _) => given_up,
        }
    }

    /// Deletes keys without tombstones, because there is no space for them in the segments, or in
    /// the file system: there is for checkpoints, and one that covers the deletion names none of
    /// the objects. `sequence` is that of the deletion, which is not in flight.
    ///
    /// # Errors
    /// No result was appended.
    fn delete_by_checkpoint(
        &self,
        keys: &[KeyHash],
        sequence: u64,
        results: &mut Vec<Result<bool, Error>>,
    ) -> Result<(), Error> {
        let mut deleted = Vec::with_capacity(keys.len());
        let mut remove = |space: &mut Space| {
            // Mutations remove them earlier.
            if deleted.is_empty() {
                let oldest = space.oldest_in_flight();
                deleted.extend(keys.iter().map(|key| self.index.delete(key, sequence, oldest)));
                let dropped: Vec<_> = deleted.iter().flatten().copied().collect();
                space.removed(&dropped);
            }
        };
        if Mutant::DeletedBeforeOlderChanges.is_on() {
            self.with_space(&mut remove);
        }
        // A checkpoint that does not cover the deletion must name the objects: without a tombstone,
        // a recovery would find an older version by a scan.
        self.wait_for(|space| (space.oldest_in_flight() > sequence).then_some(()));
        if Mutant::DeletedDuringCheckpoint.is_on() || Mutant::DeletedWithoutCheckpoint.is_on() {
            self.with_space(&mut remove);
        }
        if !Mutant::DeletedWithoutCheckpoint.is_on() {
            checkpoint::take_after(self, CheckpointPurpose::Period, &mut remove)?;
            self.forbid_older_checkpoints()?;
        }
        results.extend(deleted.iter().map(|object| Ok(object.is_some())));
        self.counters.deletes.add(keys.len() as u64);
        Ok(())
    }

    /// Writes a slot of tombstones once, and removes what they delete. Returns it if that failed.
    fn try_tombstones(
        &self,
        keys: &[KeyHash],
        slot: &Slot,
        object: &AllocatedObject,
        results: &mut Vec<Result<bool, Error>>,
    ) -> Option<FailedSlot> {
        let objects = std::slice::from_ref(object);
        let abandon = OnPanic(|| self.abandon(slot, objects));
        let written = self.write_once(slot, object.sequence, keys);
        drop(abandon);
        let written = written.and_then(|()| {
            let is_there = self.wait_for_header(slot);
            if is_there { Ok(()) } else { Err(header_error(slot, DELETE, self.device_name())) }
        });
        match written {
            Ok(()) => {
                let dropped = self.publish_tombstones(slot, object, keys, results);
                self.published(slot, objects, [Outcome::Shown], &dropped);
                self.write_succeeded();
                None
            }
            Err(error) => {
                self.published(slot, objects, [Outcome::Failed], &[]);
                Some(FailedSlot::new(slot, objects, error))
            }
        }
    }

    fn write_once(&self, slot: &Slot, sequence: u64, keys: &[KeyHash]) -> Result<(), Error> {
        let block_size = self.layout.block_size as usize;
        let encoded = AlignedBuf::zeroed(2 * block_size).context(DELETE).and_then(|mut blocks| {
            let (header, tombstones) = blocks.split_at_mut(block_size);
            if let Some(opened) = &slot.opened {
                SegmentHeader::encode(header, &self.layout, &segment_header::fields(opened))?;
            }
            SlotHeader::encode_tombstones(tombstones, &self.layout, &slot.place(), sequence, keys)?;
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
        let errors = [&written, &opened].into_iter().filter_map(|result| result.as_ref().err());
        for error in errors.filter(|error| error.class() == ErrorClass::Unknown) {
            self.quarantine(slot.segment, slot.generation, error);
        }
        opened.and(written).context(DELETE)
    }

    /// The tombstones are written: removes the objects that they delete, and returns them.
    fn publish_tombstones(
        &self,
        slot: &Slot,
        object: &AllocatedObject,
        keys: &[KeyHash],
        results: &mut Vec<Result<bool, Error>>,
    ) -> Vec<Located> {
        let place = Place { segment: slot.segment, number: object.number };
        self.index.set_tombstone(place, &Entry::tombstone(object.sequence, slot.block));
        let oldest = self.with_space(|space| space.oldest_in_flight());
        let mut dropped = Vec::new();
        for key in keys {
            let deleted = self.index.delete(key, object.sequence, oldest);
            results.push(Ok(deleted.is_some()));
            dropped.extend(deleted);
        }
        self.counters.deletes.add(keys.len() as u64);
        dropped
    }
}

#[cfg(test)]
mod tests;
