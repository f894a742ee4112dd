//! Reading and verifying objects whose places are known.

use std::slice;

use raw_block_core::ReadAt;

use super::read_plan::{ReadPart, ReadPlan, ReadTarget, Reading};
use super::request::{Get, GetInfo};
use crate::error::Context;
use crate::format::{Damage, SlotHeader, SlotView};
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::Located;
use crate::{Error, Verification};

const GET: &str = "get an object";

/// Reads a batch.
pub(super) struct BatchReader<'a> {
    state: &'a StoreState,
}

impl<'a> BatchReader<'a> {
    pub(super) fn new(state: &'a StoreState) -> Self {
        Self { state }
    }

    /// Reads and verifies a batch, and counts it; appends a result for each.
    ///
    /// # Errors
    /// There is no memory; no result was appended.
    pub(super) fn run(
        &self,
        gets: &mut [Get<'_>],
        targets: &[Option<ReadTarget>],
        results: &mut Vec<Result<Option<GetInfo>, Error>>,
    ) -> Result<(), Error> {
        let first = results.len();
        self.read(gets, targets, results)?;
        results[first..].iter().for_each(|result| self.count(result));
        Ok(())
    }

    /// Reads and verifies a batch; appends a result for each.
    ///
    /// # Errors
    /// There is no memory; no result was appended.
    pub(super) fn read(
        &self,
        gets: &mut [Get<'_>],
        targets: &[Option<ReadTarget>],
        results: &mut Vec<Result<Option<GetInfo>, Error>>,
    ) -> Result<(), Error> {
        let first = results.len();
        let found = |target: &ReadTarget| GetInfo::of(&target.located);
        results.extend(targets.iter().map(|target| Ok(target.as_ref().map(found))));
        let headers = self.state.options.verification == Verification::Header;
        let again = self
            .attempt(gets, targets, headers, &mut results[first..])
            .inspect_err(|_| results.truncate(first))?;
        for at in again {
            if let (Some(Some(target)), Some(get)) = (targets.get(at), gets.get_mut(at)) {
                results[first + at] = self.read_again(get, target);
            }
        }
        Ok(())
    }

    /// Reads and verifies objects, with the headers of their slots where these are needed, or with
    /// all `headers`. Replaces the results of those that fail. Returns the positions of those that
    /// failed a check.
    ///
    /// # Errors
    /// There is no memory.
    fn attempt(
        &self,
        gets: &mut [Get<'_>],
        targets: &[Option<ReadTarget>],
        headers: bool,
        results: &mut [Result<Option<GetInfo>, Error>],
    ) -> Result<Vec<usize>, Error> {
        let block_size = self.state.layout.block_size as usize;
        let mut again = Vec::new();
        let mut plan = ReadPlan::new(gets.len());
        for (at, (get, target)) in gets.iter_mut().zip(targets).enumerate() {
            let Some(target) = target else { continue };
            let checked = self.check(get, target).map(|()| {
                let header =
                    headers || target.located.entry.is_inline() || !get.metadata.is_empty();
                self.add(at, get, *target, header, &mut plan)
            });
            match checked {
                Ok(true) => {}
                Ok(false) => again.push(at),
                Err(error) => results[at] = Err(error),
            }
        }
        let mut scratch = self.state.scratch.take(plan.sort_by_slot() * block_size)?;
        plan.add_headers(&self.state.layout, &mut scratch);
        let ReadPlan { mut readings, with_header, mut reads, parts } = plan;
        let mut fail = |get: usize, error: Error| {
            if matches!(error, Error::Damaged { .. }) {
                again.push(get);
            }
            results[get] = Err(error);
        };
        self.state.dispatcher.read_buffers_with(&mut reads, |index, read| {
            let read = read.context(GET).map(|[bytes]| bytes);
            match &parts[index] {
                ReadPart::Payload(reading) => {
                    let Reading { get, target, verify, .. } = &readings[*reading];
                    let verified = read.and_then(|payload| self.verify(*verify, target, payload));
                    verified.unwrap_or_else(|error| fail(*get, error));
                }
                ReadPart::Header(range) => {
                    let of_slot = &with_header[range.clone()];
                    let view =
                        read.and_then(|block| self.view(block, &readings[of_slot[0]].target));
                    for &reading in of_slot {
                        let reading = &mut readings[reading];
                        let completed = view
                            .as_ref()
                            .map_err(Error::clone)
                            .and_then(|view| self.complete(reading, view));
                        completed.unwrap_or_else(|error| fail(reading.get, error));
                    }
                }
            }
        });
        again.sort_unstable();
        again.dedup();
        Ok(again)
    }

    /// Checks that the object can be read, and fits the caller's buffers.
    fn check(&self, get: &Get<'_>, target: &ReadTarget) -> Result<(), Error> {
        let Located { place, entry } = &target.located;
        if self.state.index.is_damaged(*place) {
            return Err(self.damaged(target, Damage::Inconsistent("it failed its checks before")));
        }
        let needed = entry.payload_len.get() as usize;
        if get.payload.len() < needed {
            return Err(Error::BufferTooSmall {
                what: "payload",
                needed,
                given: get.payload.len(),
            });
        }
        let needed = usize::from(entry.metadata_len.get());
        if !get.metadata.is_empty() && get.metadata.len() < needed {
            let given = get.metadata.len();
            return Err(Error::BufferTooSmall { what: "metadata", needed, given });
        }
        Ok(())
    }

    /// Adds an object, and the transfer of its payload, to a plan. Returns whether it passed its
    /// checks so far: an empty payload is not read.
    fn add<'g>(
        &self,
        at: usize,
        get: &'g mut Get<'_>,
        target: ReadTarget,
        header: bool,
        plan: &mut ReadPlan<'g>,
    ) -> bool {
        let layout = &self.state.layout;
        let Located { place, entry } = target.located;
        let verify = self.verifies(&target);
        let payload = &mut get.payload[..entry.payload_len.get() as usize];
        let blocks = entry.payload_blocks(layout.block_size);
        let mut inline = &mut [][..];
        if blocks > 0 {
            let offset = layout.block_offset(place.segment, entry.block.get());
            let len = u64::from(blocks) * u64::from(layout.block_size);
            plan.add_payload(ReadAt::new(offset, payload).padded_to(len));
        } else if header {
            inline = payload;
        } else if self.verify(verify, &target, payload).is_err() {
            return false;
        }
        let metadata = &mut *get.metadata;
        plan.add(Reading { get: at, target, inline, metadata, verify }, header);
        true
    }

    fn verifies(&self, target: &ReadTarget) -> bool {
        self.state.options.verification == Verification::Full
            || self.state.index.is_unverified(target.located.place)
    }

    /// The header of the slot of an object, if it was written in the generation of its segment.
    fn view<'b>(&self, block: &'b [u8], target: &ReadTarget) -> Result<SlotView<'b>, Error> {
        let (segment, number) = target.slot();
        SlotHeader::read(block, &self.state.layout, segment, number)
            .and_then(|view| view.of_generation(target.generation))
            .map_err(|damage| self.damaged(target, damage))
    }

    /// Checks what a slot header says of an object, and fills the caller's buffers from it.
    fn complete(&self, reading: &mut Reading<'_>, view: &SlotView<'_>) -> Result<(), Error> {
        let Reading { target, inline, metadata, verify, .. } = reading;
        let Located { place, entry } = &target.located;
        let Some(object) = view.object(place.number).filter(|object| object.entry == entry) else {
            let rule = Damage::Inconsistent("it names another object than the index");
            return Err(self.damaged(target, rule));
        };
        if let Some(metadata) = metadata.get_mut(..object.metadata.len()) {
            metadata.copy_from_slice(object.metadata);
        }
        if let Some(payload) = object.payload {
            inline.copy_from_slice(payload);
            self.verify(*verify, target, inline)?;
        }
        Ok(())
    }

    fn verify(&self, wanted: bool, target: &ReadTarget, payload: &[u8]) -> Result<(), Error> {
        if !wanted || Mutant::PayloadUnchecked.is_on() {
            return Ok(());
        }
        let Located { place, entry } = &target.located;
        entry
            .verify_payload(&self.state.layout, place.segment, target.generation, payload)
            .map_err(|damage| self.damaged(target, damage))?;
        if self.state.index.is_unverified(*place) {
            self.state.index.set_verified(*place);
        }
        Ok(())
    }

    /// Reads an object that failed its checks once more. If it fails again, it is damaged.
    fn read_again(&self, get: &mut Get<'_>, target: &ReadTarget) -> Result<Option<GetInfo>, Error> {
        if self.state.index.is_damaged(target.located.place) {
            return self.report_damage(target, Damage::Inconsistent("it failed its checks before"));
        }
        let mut results = [Ok(Some(GetInfo::of(&target.located)))];
        self.attempt(slice::from_mut(get), &[Some(*target)], true, &mut results)?;
        let [result] = results;
        match result {
            Err(Error::Damaged { damage, .. }) => self.report_damage(target, damage),
            result => result,
        }
    }

    /// An object failed its checks twice.
    fn report_damage(&self, target: &ReadTarget, damage: Damage) -> Result<Option<GetInfo>, Error> {
        let error = self.damaged(target, damage);
        if self.state.report_damaged(&target.located, &error) { Ok(None) } else { Err(error) }
    }

    fn damaged(&self, target: &ReadTarget, damage: Damage) -> Error {
        let Located { place, entry } = &target.located;
        let offset = self.state.layout.block_offset(place.segment, entry.block.get());
        Error::Damaged { structure: "an object", offset, damage }
    }

    fn count(&self, result: &Result<Option<GetInfo>, Error>) {
        match result {
            Ok(Some(_)) => self.state.counters.hits.add(1),
            Ok(None) => self.state.counters.misses.add(1),
            Err(_) => {}
        }
    }
}
