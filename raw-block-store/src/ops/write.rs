//! Writing what was allocated for puts, and publishing it.

use std::ops::Range;

use raw_block_core::backend::Transfer;
use raw_block_core::{BatchResult, ErrorClass, WriteAt};

use super::attempts::{FailedSlot, GiveUpReason, header_error};
use super::stage::{PutBatch, Stage, WriteTarget};
use crate::Error;
use crate::format::Entry;
use crate::mutant::Mutant;
use crate::state::index::{Located, Place, Published};
use crate::state::space::{AllocatedObject, Allocation, Outcome, Slot};
use crate::state::unwind::OnPanic;
use crate::state::{Scratch, StoreState};

const PUT: &str = "put an object";

/// What became of the writes of an allocation.
struct WriteOutcome {
    /// For each object its entry.
    entries: Vec<Entry>,
    errors: Errors,
}

impl WriteOutcome {
    fn of(allocation: &Allocation) -> Self {
        let entries = vec![Entry::EMPTY; allocation.objects.len()];
        Self { entries, errors: Errors::default() }
    }

    fn fail_all(&mut self, error: &Error) {
        let objects = self.entries.len();
        self.errors.set(0..objects, objects, error);
    }
}

/// The errors of the payloads of objects or of their slots' headers. Without any it takes no
/// memory.
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
    /// Stages, submits and publishes an allocation: all payloads, and the headers of the slots,
    /// those of large ones while their payloads are in flight. Returns what failed.
    pub(super) fn write_allocation(
        &self,
        batch: &PutBatch<'_>,
        allocation: &Allocation,
    ) -> Vec<FailedSlot> {
        let abandon = OnPanic(|| {
            for slot in &allocation.slots {
                self.abandon(slot, allocation.objects_of(slot));
            }
        });
        let stage = Stage::new(self, batch, allocation);
        let mut written = WriteOutcome::of(allocation);
        let (headers, late_headers) = match self.stage_headers(&stage, &mut written.entries) {
            Ok(headers) => headers,
            Err(error) => {
                self.headers_not_written(allocation);
                written.fail_all(&error);
                drop(abandon);
                return self.publish(allocation, written);
            }
        };
        let writes = stage.early_writes(&headers);
        let targets = stage.early_targets();
        if let Some(mut headers) = late_headers {
            // The device writes large payloads while their checksums are computed, and while the
            // headers with the checksums are submitted.
            let write_late = || {
                stage.encode_late(&mut headers, &mut written.entries)?;
                Ok(self.dispatcher.write_buffers(&stage.late_writes(&headers)))
            };
            let (results, late) = self.dispatcher.write_buffers_while(&writes, write_late);
            self.note_written(&stage, &writes, targets, results, &mut written.errors);
            match late {
                Ok(results) => {
                    let (writes, targets) = (stage.late_writes(&headers), stage.late_targets());
                    // No second queue could be opened. The first one is free now.
                    let refused = |result: &Result<(), raw_block_core::Error>| {
                        let error = result.as_ref().err();
                        error.is_some_and(|error| error.class() == ErrorClass::NotStarted)
                    };
                    let results = if results.iter().all(refused) {
                        self.dispatcher.write_buffers(&writes)
                    } else {
                        results
                    };
                    self.note_written(&stage, &writes, targets, results, &mut written.errors);
                }
                Err(error) => written.fail_all(&error),
            }
        } else {
            let results = self.dispatcher.write_buffers(&writes);
            self.note_written(&stage, &writes, targets, results, &mut written.errors);
        }
        drop(abandon);
        self.publish(allocation, written)
    }

    /// Writes objects of a batch elsewhere whose writes failed. Adds to `unplaced` the positions of
    /// those for which there is no space elsewhere.
    pub(super) fn write_elsewhere(
        &self,
        batch: &PutBatch<'_>,
        failed: Vec<FailedSlot>,
        results: &mut [Result<bool, Error>],
        unplaced: &mut Vec<usize>,
    ) {
        let attempt = |allocation: &Allocation| self.write_allocation(batch, allocation);
        self.retry(failed, attempt, |index, why, error| {
            let at = batch.position(index);
            results[at] = Err(error.clone());
            if why == GiveUpReason::NoSpace {
                unplaced.push(at);
            }
        });
    }

    /// Fills the headers that are submitted with their payloads, and takes memory for those that
    /// are submitted later, if there are any.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory, [`Error::Encode`].
    fn stage_headers(
        &self,
        stage: &Stage<'_>,
        entries: &mut [Entry],
    ) -> Result<(Scratch<'_>, Option<Scratch<'_>>), Error> {
        let (early, late) = stage.memory();
        let mut headers = self.scratch.take(early)?;
        stage.encode_early(&mut headers, entries)?;
        let late_headers = (late > 0).then(|| self.scratch.take(late)).transpose()?;
        Ok((headers, late_headers))
    }

    /// Reports that the headers of the segments that were opened are not written.
    fn headers_not_written(&self, allocation: &Allocation) {
        for opened in allocation.slots.iter().filter_map(|slot| slot.opened.as_ref()) {
            self.header_written(opened, false);
        }
    }

    /// Notes how transfers ended.
    fn note_written(
        &self,
        stage: &Stage<'_>,
        writes: &[WriteAt<'_>],
        targets: impl Iterator<Item = WriteTarget>,
        results: BatchResult,
        errors: &mut Errors,
    ) {
        self.counters.written_bytes.add(writes.iter().map(WriteAt::total_len).sum());
        for (target, result) in targets.zip(results) {
            let slot = stage.slot(target);
            if let (WriteTarget::SegmentHeader(_), Some(opened)) = (target, &slot.opened) {
                self.header_written(opened, result.is_ok());
            }
            let Err(error) = result else { continue };
            if error.class() == ErrorClass::Unknown {
                self.quarantine(slot.segment, slot.generation, &error);
            }
            let error = Error::Device { context: PUT, error };
            let objects = match target {
                WriteTarget::Payload { object, .. } => object..object + 1,
                WriteTarget::SegmentHeader(_) | WriteTarget::SlotHeader(_) => slot.objects.clone(),
            };
            errors.set(objects, stage.allocation.objects.len(), &error);
        }
    }

    /// Publishes what was written. Returns what failed.
    fn publish(&self, allocation: &Allocation, written: WriteOutcome) -> Vec<FailedSlot> {
        let WriteOutcome { entries, mut errors } = written;
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
        objects: &[AllocatedObject],
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
fn failed_of(slot: &Slot, allocation: &Allocation, errors: &Errors) -> Option<FailedSlot> {
    let mut failed = slot.objects.clone().filter(|&object| errors.of(object).is_some()).peekable();
    let error = errors.of(*failed.peek()?)?.clone();
    Some(FailedSlot::new(slot, failed.map(|object| &allocation.objects[object]), error))
}
