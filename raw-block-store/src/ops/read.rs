//! Reading and verifying objects whose places are known.

use raw_block_core::ReadAt;

use super::request::{Get, GetInfo};
use crate::error::Context;
use crate::format::Damage;
use crate::format::SlotHeader;
use crate::mutant::Mutant;
use crate::state::StoreState;
use crate::state::index::Located;
use crate::{Error, Verification};

const GET: &str = "get an object";

/// An object to read, in a segment that is not opened again in the meantime.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadTarget {
    pub(super) located: Located,
    pub(super) generation: u64,
}

/// Reads a batch.
pub(super) struct BatchReader<'a> {
    state: &'a StoreState,
}

/// What a transfer reads of an object.
struct ReadPart<'a> {
    /// Its index in the batch.
    get: usize,
    target: ReadTarget,
    /// Whether the header block is the first segment of the transfer.
    header: bool,
    /// Whether the payload is the second one.
    payload: bool,
    /// Gets an inline payload.
    inline: &'a mut [u8],
    /// Gets the metadata, unless it is empty.
    metadata: &'a mut [u8],
    verify: bool,
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
        let block_size = self.state.layout.block_size as usize;
        let verifies_headers = self.state.options.verification == Verification::Header;
        let with_header = |get: &Get<'_>, target: &ReadTarget| {
            verifies_headers || target.located.entry.is_inline() || !get.metadata.is_empty()
        };
        let headers = gets
            .iter()
            .zip(targets)
            .filter(|(get, target)| target.is_some_and(|target| with_header(get, &target)))
            .count();
        let mut scratch = self.state.scratch.take(headers * block_size)?;
        let mut scratch = scratch.chunks_exact_mut(block_size);
        let mut reads: Vec<ReadAt<'_, 2>> = Vec::with_capacity(gets.len() + headers);
        let mut parts: Vec<ReadPart<'_>> = Vec::with_capacity(gets.len() + headers);
        let mut again = Vec::new();
        for (at, (get, target)) in gets.iter_mut().zip(targets).enumerate() {
            results.push(Ok(None));
            let Some(target) = target else { continue };
            if let Err(error) = self.check(get, target) {
                results[first + at] = Err(error);
                continue;
            }
            results[first + at] = Ok(Some(GetInfo::of(&target.located)));
            if target.located.entry.payload_len.get() == 0
                && self.verify(self.verifies(target), target, &[]).is_err()
            {
                again.push(at);
                continue;
            }
            let header = if with_header(get, target) { scratch.next() } else { None };
            self.plan(at, get, *target, header, &mut reads, &mut parts);
        }
        self.state.dispatcher.read_buffers_with(&mut reads, |index, read| {
            let part = &mut parts[index];
            let read = read
                .context(GET)
                .and_then(|[header, payload]| self.complete(part, header, payload));
            if let Err(error) = read {
                if matches!(error, Error::Damaged { .. }) {
                    again.push(part.get);
                }
                results[first + part.get] = Err(error);
            }
        });
        drop(reads);
        drop(parts);
        again.sort_unstable();
        again.dedup();
        for at in again {
            if let (Some(Some(target)), Some(get)) = (targets.get(at), gets.get_mut(at)) {
                results[first + at] = self.read_again(get, target);
            }
        }
        Ok(())
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

    /// Adds the transfers of an object: payload and header in one if they are neighbours.
    fn plan<'g>(
        &self,
        at: usize,
        get: &'g mut Get<'_>,
        target: ReadTarget,
        header: Option<&'g mut [u8]>,
        reads: &mut Vec<ReadAt<'g, 2>>,
        parts: &mut Vec<ReadPart<'g>>,
    ) {
        let layout = &self.state.layout;
        let Located { place, entry } = target.located;
        let offset = |block| layout.block_offset(place.segment, block);
        let (payload, inline) = {
            let payload = &mut get.payload[..entry.payload_len.get() as usize];
            if entry.blocks_back.get() > 0 {
                (payload, &mut [][..])
            } else {
                (&mut [][..], payload)
            }
        };
        let verify = self.verifies(&target);
        let part = |header, payload, inline, metadata| ReadPart {
            get: at,
            target,
            header,
            payload,
            inline,
            metadata,
            verify,
        };
        let len = u64::from(entry.payload_blocks(layout.block_size)) * u64::from(layout.block_size);
        let metadata = &mut *get.metadata;
        match header {
            None if len == 0 => {}
            None => {
                let read = ReadAt::scatter(offset(entry.block.get()), [&mut [], payload]);
                reads.push(read.padded_to(len));
                parts.push(part(false, true, inline, &mut []));
            }
            Some(header) if len == 0 || entry.blocks_back.get() == 1 => {
                let total = header.len() as u64 + len;
                let has_payload = len > 0;
                let read = ReadAt::scatter(offset(entry.header_block()), [header, payload]);
                reads.push(read.padded_to(total));
                parts.push(part(true, has_payload, inline, metadata));
            }
            Some(header) => {
                let total = header.len() as u64;
                let read = ReadAt::scatter(offset(entry.header_block()), [header, &mut []]);
                reads.push(read.padded_to(total));
                parts.push(part(true, false, inline, metadata));
                let read = ReadAt::scatter(offset(entry.block.get()), [&mut [], payload]);
                reads.push(read.padded_to(len));
                parts.push(part(false, true, &mut [], &mut []));
            }
        }
    }

    fn verifies(&self, target: &ReadTarget) -> bool {
        self.state.options.verification == Verification::Full
            || self.state.index.is_unverified(target.located.place)
    }

    /// Checks a part of an object that was read, and completes the caller's buffers.
    fn complete(
        &self,
        part: &mut ReadPart<'_>,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), Error> {
        let target = part.target;
        let Located { place, entry } = &target.located;
        if part.header {
            let layout = &self.state.layout;
            let view = SlotHeader::read(header, layout, place.segment, entry.header_block())
                .and_then(|view| view.of_generation(target.generation))
                .map_err(|damage| self.damaged(&target, damage))?;
            let object = view.object(place.number).filter(|object| object.entry == entry);
            let Some(object) = object else {
                let rule = Damage::Inconsistent("it names another object than the index");
                return Err(self.damaged(&target, rule));
            };
            if let Some(metadata) = part.metadata.get_mut(..object.metadata.len()) {
                metadata.copy_from_slice(object.metadata);
            }
            if let Some(payload) = object.payload {
                part.inline.copy_from_slice(payload);
                self.verify(part.verify, &target, part.inline)?;
            }
        }
        if part.payload {
            self.verify(part.verify, &target, payload)?;
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
        let block_size = self.state.layout.block_size as usize;
        let mut header = self.state.scratch.take(block_size)?;
        let (mut reads, mut parts) = (Vec::new(), Vec::new());
        self.plan(0, get, *target, Some(&mut header), &mut reads, &mut parts);
        let mut result = Ok(Some(GetInfo::of(&target.located)));
        self.state.dispatcher.read_buffers_with(&mut reads, |index, read| {
            let part = &mut parts[index];
            let read = read
                .context(GET)
                .and_then(|[header, payload]| self.complete(part, header, payload));
            if let Err(error) = read {
                result = Err(error);
            }
        });
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
