//! Writing what was allocated for puts, and publishing it.

use raw_block_core::backend::Transfer;
use raw_block_core::{ErrorClass, WriteAt};

use super::attempts::{Failed, GaveUp, header_error};
use super::stage::{PutBatch, Stage, Target};
use crate::Error;
use crate::format::Entry;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::{Located, Place, Published};
use crate::state::space::{Allocated, Allocation, Outcome, Slot};
use crate::unwind::OnPanic;

const PUT: &str = "put an object";

/// What became of the writes of an allocation.
struct Written {
    /// For each object its entry.
    entries: Vec<Entry>,
    /// For each object the error of its payload or of its slot's header.
    errors: Vec<Option<Error>>,
}

impl StoreState {
    /// Writes objects of a batch where they were allocated, and publishes them. Those whose write fails are
    /// written elsewhere. Adds to `unplaced` the positions of those for which there is no space elsewhere.
    pub(super) fn write_objects(
        &self,
        batch: &PutBatch<'_>,
        allocation: &Allocation,
        results: &mut [Result<bool, Error>],
        unplaced: &mut Vec<usize>,
    ) {
        let attempt = |allocation: &Allocation| self.attempt(batch, allocation);
        self.write_slots(allocation, attempt, |index, why, error| {
            let at = batch.position(index);
            results[at] = Err(error.clone());
            if why == GaveUp::NoSpace {
                unplaced.push(at);
            }
        });
    }

    /// Writes and publishes an allocation once. Returns what failed.
    fn attempt(&self, batch: &PutBatch<'_>, allocation: &Allocation) -> Vec<Failed> {
        let stage = Stage::new(self, batch, allocation);
        let abandon = OnPanic(|| {
            for slot in &allocation.slots {
                self.abandon(slot, allocation.objects_of(slot));
            }
        });
        let written = self.write(&stage);
        drop(abandon);
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.headers_not_written(allocation);
                Written {
                    entries: vec![Entry::EMPTY; allocation.objects.len()],
                    errors: vec![Some(error); allocation.objects.len()],
                }
            }
        };
        self.publish(allocation, written)
    }

    /// Nothing was written, so the headers of opened segments are not there.
    fn headers_not_written(&self, allocation: &Allocation) {
        for opened in allocation.slots.iter().filter_map(|slot| slot.opened.as_ref()) {
            self.header_written(opened, false);
        }
    }

    /// Writes an allocation: all payloads, and the headers of the slots, those of large ones after their payloads.
    ///
    /// # Errors
    /// Nothing was written.
    fn write(&self, stage: &Stage<'_>) -> Result<Written, Error> {
        let objects = stage.allocation.objects.len();
        let (mut entries, mut errors) = (vec![Entry::EMPTY; objects], vec![None; objects]);
        let block_size = self.layout.block_size as usize;
        let (early, late) = stage.header_blocks();
        let mut early = self.scratch.take(early * block_size)?;
        let mut late = self.scratch.take(late * block_size)?;
        stage.encode_early(&mut early, &mut entries)?;
        let (writes, targets) = stage.early_writes(&early);
        // The checksums of large payloads are computed while the device writes them.
        let work = || stage.encode_late(&mut late, &mut entries);
        let (results, encoded) = self.dispatcher.write_buffers_while(&writes, work);
        self.count_written(&writes);
        for (target, result) in targets.into_iter().zip(results) {
            self.note_written(stage, target, result, &mut errors);
        }
        if let Err(error) = encoded {
            errors.fill(Some(error));
            return Ok(Written { entries, errors });
        }
        let (writes, targets) = stage.late_writes(&late);
        let results = self.dispatcher.write_buffers(&writes);
        self.count_written(&writes);
        for (target, result) in targets.into_iter().zip(results) {
            self.note_written(stage, target, result, &mut errors);
        }
        Ok(Written { entries, errors })
    }

    fn count_written(&self, writes: &[WriteAt<'_>]) {
        self.counters.written_bytes.add(writes.iter().map(WriteAt::total_len).sum());
    }

    /// Notes how a transfer ended.
    fn note_written(
        &self,
        stage: &Stage<'_>,
        target: Target,
        result: Result<(), raw_block_core::Error>,
        errors: &mut [Option<Error>],
    ) {
        let (Target::SegmentHeader(at) | Target::SlotHeader(at) | Target::Payload { slot: at, .. }) =
            target;
        let slot = &stage.allocation.slots[at];
        if let (Target::SegmentHeader(_), Some(opened)) = (target, &slot.opened) {
            self.header_written(opened, result.is_ok());
        }
        let Err(error) = result else { return };
        if error.class() == ErrorClass::Unknown {
            self.quarantine(slot.segment, slot.generation, &error);
        }
        let error = Error::Device { context: PUT, error };
        match target {
            Target::Payload { object, .. } => errors[object] = Some(error),
            Target::SegmentHeader(_) | Target::SlotHeader(_) => {
                errors[slot.objects.clone()].fill(Some(error));
            }
        }
    }

    /// Publishes what was written. Returns what failed.
    fn publish(&self, allocation: &Allocation, written: Written) -> Vec<Failed> {
        let Written { entries, mut errors } = written;
        let mut failed = Vec::new();
        let objects = allocation.objects.len();
        let (mut located, mut published) =
            (Vec::with_capacity(objects), Vec::with_capacity(objects));
        for slot in &allocation.slots {
            if !self.wait_for_header(slot) {
                let error = || header_error(slot, PUT, self.device_name());
                errors[slot.objects.clone()].iter_mut().for_each(|of| {
                    of.get_or_insert_with(error);
                });
            }
            let objects = allocation.objects_of(slot);
            let (entries, errors) = (&entries[slot.objects.clone()], &errors[slot.objects.clone()]);
            located.clear();
            published.clear();
            for ((object, entry), error) in objects.iter().zip(entries).zip(errors) {
                if error.is_none() {
                    let place = Place { segment: slot.segment, number: object.number };
                    located.push(Located { place, entry: *entry });
                }
            }
            let mut early = slot.clone();
            if Mutant::CompletedCountsAsPublished.is_on() && errors.iter().all(Option::is_none) {
                let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
                self.with_space(|space| space.end_early(&mut early, count));
                // Other threads of a simulation may go first here.
                self.with_space(|_| ());
            }
            self.index.publish_many(&located, &mut published);
            self.count_puts(&located);
            if !located.is_empty() {
                self.write_succeeded();
            }
            self.end_slot(&early, objects, errors, &published);
            failed.extend(failed_of(slot, objects, errors));
        }
        failed
    }

    fn count_puts(&self, located: &[Located]) {
        let bytes = located.iter().map(|of| u64::from(of.entry.payload_len.get())).sum();
        self.counters.puts.add(located.len() as u64);
        self.counters.put_bytes.add(bytes);
    }

    /// Reports what became of the objects of a slot.
    fn end_slot(
        &self,
        slot: &Slot,
        objects: &[Allocated],
        errors: &[Option<Error>],
        published: &[Published],
    ) {
        let mut shown = published.iter();
        let mut dropped = Vec::with_capacity(published.len());
        let mut outcomes = Vec::with_capacity(objects.len());
        for error in errors {
            outcomes.push(match (error, error.is_none().then(|| shown.next()).flatten()) {
                (None, Some(Published::Shown { replaced })) => {
                    dropped.extend(*replaced);
                    Outcome::Shown
                }
                (None, _) => Outcome::Superseded,
                (Some(_), _) => Outcome::Failed,
            });
        }
        self.published(slot, objects, outcomes, &dropped);
    }
}

/// The objects of a slot that failed.
fn failed_of(slot: &Slot, objects: &[Allocated], errors: &[Option<Error>]) -> Option<Failed> {
    let error = errors.iter().flatten().next()?.clone();
    let failed = objects.iter().zip(errors).filter(|(_, error)| error.is_some());
    Some(Failed::new(slot, failed.map(|(object, _)| object), error))
}
