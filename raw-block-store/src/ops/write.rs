//! Writing what was allocated for puts, and publishing it.

use std::ops::Range;

use raw_block_core::backend::Transfer;
use raw_block_core::{BatchResult, ErrorClass, WriteAt};

use super::attempts::{Failed, GaveUp, header_error};
use super::stage::{PutBatch, Stage, Target};
use crate::Error;
use crate::format::Entry;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::{Located, Place, Published};
use crate::state::space::{Allocated, Allocation, Outcome, Slot};
use crate::state::unwind::OnPanic;

const PUT: &str = "put an object";

/// What became of the writes of an allocation.
#[derive(Default)]
struct Written {
    /// For each object its entry.
    entries: Vec<Entry>,
    errors: Errors,
}

/// The errors of the payloads of objects or of their slots' headers. Without any it takes no memory.
#[derive(Default)]
struct Errors(Vec<Option<Error>>);

impl Errors {
    /// Notes the error of these objects out of `count`, instead of the one before.
    fn set(&mut self, objects: Range<usize>, count: usize, error: &Error) {
        self.0.resize(count, None);
        self.0[objects].fill(Some(error.clone()));
    }

    fn of(&self, object: usize) -> Option<&Error> {
        self.0.get(object)?.as_ref()
    }
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
                let mut written = Written::default();
                let objects = allocation.objects.len();
                written.errors.set(0..objects, objects, &error);
                written
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
        let mut written = Written::default();
        written.entries.resize(stage.allocation.objects.len(), Entry::EMPTY);
        let (early, late) = stage.memory();
        let mut memory = self.scratch.take(early)?;
        stage.encode_early(&mut memory, &mut written.entries)?;
        let writes = stage.early_writes(&memory);
        if late == 0 {
            let results = self.dispatcher.write_buffers(&writes);
            self.note_written(stage, &writes, stage.early_targets(), results, &mut written.errors);
            return Ok(written);
        }
        let mut headers = self.scratch.take(late)?;
        // The checksums of large payloads are computed while the device writes them.
        let work = || stage.encode_late(&mut headers, &mut written.entries);
        let (results, encoded) = self.dispatcher.write_buffers_while(&writes, work);
        self.note_written(stage, &writes, stage.early_targets(), results, &mut written.errors);
        if let Err(error) = encoded {
            let objects = written.entries.len();
            written.errors.set(0..objects, objects, &error);
            return Ok(written);
        }
        let writes = stage.late_writes(&headers);
        let results = self.dispatcher.write_buffers(&writes);
        self.note_written(stage, &writes, stage.late_targets(), results, &mut written.errors);
        Ok(written)
    }

    /// Notes how transfers ended.
    fn note_written(
        &self,
        stage: &Stage<'_>,
        writes: &[WriteAt<'_>],
        targets: impl Iterator<Item = Target>,
        results: BatchResult,
        errors: &mut Errors,
    ) {
        self.counters.written_bytes.add(writes.iter().map(WriteAt::total_len).sum());
        for (target, result) in targets.zip(results) {
            let slot = stage.slot(target);
            if let (Target::SegmentHeader(_), Some(opened)) = (target, &slot.opened) {
                self.header_written(opened, result.is_ok());
            }
            let Err(error) = result else { continue };
            if error.class() == ErrorClass::Unknown {
                self.quarantine(slot.segment, slot.generation, &error);
            }
            let error = Error::Device { context: PUT, error };
            let objects = match target {
                Target::Payload { object, .. } => object..object + 1,
                Target::SegmentHeader(_) | Target::SlotHeader(_) => slot.objects.clone(),
            };
            errors.set(objects, stage.allocation.objects.len(), &error);
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
                let error = header_error(slot, PUT, self.device_name());
                let unwritten = slot.objects.clone().filter(|&of| errors.of(of).is_none());
                for object in unwritten.collect::<Vec<_>>() {
                    errors.set(object..object + 1, objects, &error);
                }
            }
            located.clear();
            published.clear();
            for object in slot.objects.clone().filter(|&of| errors.of(of).is_none()) {
                let number = allocation.objects[object].number;
                let place = Place { segment: slot.segment, number };
                located.push(Located { place, entry: entries[object] });
            }
            let early = (located.len() == slot.objects.len())
                .then(|| self.end_before_published(slot))
                .flatten();
            self.index.publish_many(&located, &mut published);
            self.count_puts(&located);
            if !located.is_empty() {
                self.write_succeeded();
            }
            let slot = early.as_ref().unwrap_or(slot);
            self.end_slot(slot, allocation.objects_of(slot), &errors, &published);
            failed.extend(failed_of(slot, allocation, &errors));
        }
        failed
    }

    /// Ends a slot whose objects are not published: a mutation. Returns what is left to end.
    fn end_before_published(&self, slot: &Slot) -> Option<Slot> {
        if !Mutant::CompletedCountsAsPublished.is_on() {
            return None;
        }
        let mut early = slot.clone();
        let count = u32::try_from(slot.objects.len()).unwrap_or(u32::MAX);
        self.with_space(|space| space.end_early(&mut early, count));
        // Other threads of a simulation may go first here.
        self.with_space(|_| ());
        Some(early)
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
        errors: &Errors,
        published: &[Published],
    ) {
        let dropped: Vec<Located> = published.iter().filter_map(Published::replaced).collect();
        let mut published = published.iter();
        let outcomes = slot.objects.clone().map(|object| match errors.of(object) {
            Some(_) => Outcome::Failed,
            None => match published.next() {
                Some(Published::Shown { .. }) => Outcome::Shown,
                Some(Published::Superseded) | None => Outcome::Superseded,
            },
        });
        self.published(slot, objects, outcomes, &dropped);
    }
}

/// The objects of a slot that failed.
fn failed_of(slot: &Slot, allocation: &Allocation, errors: &Errors) -> Option<Failed> {
    let mut failed = slot.objects.clone().filter(|&object| errors.of(object).is_some()).peekable();
    let error = errors.of(*failed.peek()?)?.clone();
    Some(Failed::new(slot, failed.map(|object| &allocation.objects[object]), error))
}
