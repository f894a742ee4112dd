//! Verifying objects without returning them to a caller.

use std::collections::HashSet;

use raw_block_core::{AlignedBuf, ReadAt};

use super::header::slot_header;
use super::locate::{generation, locate};
use super::read::BatchReader;
use super::read_plan::ReadTarget;
use super::request::Get;
use crate::Error;
use crate::Store;
use crate::error::Context;
use crate::format::{Damage, PayloadHasher};
use crate::mutant;
use crate::state::index::{KeyHash, Located};

const VERIFY: &str = "verify an object";

/// Bytes of payloads that are read at once. A longer one is read in parts.
fn part_len() -> usize {
    mutant::limit(1 << 20, 2 << 10)
}

/// What is wrong with an object, and where.
pub(super) struct VerifyFailure {
    pub(super) key: Option<Vec<u8>>,
    pub(super) offset: u64,
    pub(super) error: Error,
}

impl Store {
    /// Verifies objects that a recovery found. Returns the keys of those that fail, or cannot be
    /// read.
    pub(super) fn find_torn(&self, mut objects: Vec<Located>) -> HashSet<KeyHash> {
        let mut torn = HashSet::new();
        if objects.is_empty() {
            return torn;
        }
        objects.sort_unstable_by_key(|object| object.place);
        let mut rest = &objects[..];
        while !rest.is_empty() {
            let mut len = 0;
            let fits = |object: &&Located| {
                len += payload_len(object);
                len <= part_len()
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let keys: Vec<KeyHash> = now.iter().map(|object| object.entry.key_hash).collect();
            let intact = match now {
                [long] if payload_len(long) > part_len() => self.is_intact(long).map(|of| vec![of]),
                _ => self.are_intact(&keys),
            };
            let intact = intact.unwrap_or_else(|_| vec![false; keys.len()]);
            let failed = keys.into_iter().zip(intact).filter(|(_, is_intact)| !is_intact);
            torn.extend(failed.map(|(key, _)| key));
            rest = later;
        }
        torn
    }

    /// Whether there are intact objects with these keys, all short.
    fn are_intact(&self, keys: &[KeyHash]) -> Result<Vec<bool>, Error> {
        let (located, guards) = locate(&self.state, keys);
        let lens = located.iter().map(|of| of.as_ref().map_or(0, payload_len));
        let lens: Vec<usize> = lens.collect();
        let mut memory = AlignedBuf::zeroed(lens.iter().sum::<usize>().max(1)).context(VERIFY)?;
        let (mut gets, mut rest) = (Vec::with_capacity(keys.len()), &mut memory[..]);
        for &len in &lens {
            let (payload, left) = rest.split_at_mut(len);
            rest = left;
            gets.push(Get::new(&[], payload));
        }
        let target = |located: Located| ReadTarget {
            located,
            generation: generation(&guards, located.place.segment),
        };
        let targets: Vec<_> = located.iter().map(|of| of.map(target)).collect();
        let mut results = Vec::with_capacity(keys.len());
        BatchReader::new(&self.state).read(&mut gets, &targets, &mut results)?;
        Ok(results.iter().map(|result| matches!(result, Ok(Some(_)))).collect())
    }

    /// Whether this object, which is long, is intact. It is read twice if it is not.
    fn is_intact(&self, object: &Located) -> Result<bool, Error> {
        let (located, guards) = locate(&self.state, &[object.entry.key_hash]);
        let Some(located) = located.first().copied().flatten() else { return Ok(false) };
        let generation = generation(&guards, located.place.segment);
        if self.verify(&located, generation)?.is_ok() {
            self.state.index.set_verified(located.place);
            return Ok(true);
        }
        match self.verify(&located, generation)? {
            Ok(()) => {
                self.state.index.set_verified(located.place);
                Ok(true)
            }
            Err(VerifyFailure { error, .. }) => {
                if matches!(error, Error::Damaged { .. }) {
                    self.state.report_damaged(&located, &error);
                }
                Ok(false)
            }
        }
    }

    /// Reads an object in parts, slot header and payload, and verifies it. The caller keeps its
    /// segment.
    ///
    /// # Errors
    /// There is no memory for a part.
    pub(super) fn verify(
        &self,
        located: &Located,
        generation: u64,
    ) -> Result<Result<(), VerifyFailure>, Error> {
        let state = &*self.state;
        let segment = located.place.segment;
        let (layout, entry) = (&state.layout, &located.entry);
        let block_size = layout.block_size as usize;
        let mut buffer = state.scratch.take(part_len().max(block_size))?;
        let number = entry.header_block();
        let offset = layout.block_offset(segment, number);
        let wrong = |key, offset, error| Ok(Err(VerifyFailure { key, offset, error }));
        let block = &mut buffer[..block_size];
        if let Err(error) = self.read_at(offset, block) {
            return wrong(None, offset, error);
        }
        let view = slot_header(state, block, (segment, number), generation);
        let object = view.and_then(|view| self.object_in(&view, located));
        let (key, inline) = match object {
            Ok(object) => (Some(object.key.to_vec()), object.payload),
            Err(error) => return wrong(None, offset, error),
        };
        let offset = layout.block_offset(segment, entry.block.get());
        let place = entry.place(segment, generation);
        let mut hasher = PayloadHasher::new();
        if let Some(payload) = inline {
            hasher.update(payload);
        } else {
            let (mut left, mut at) = (entry.payload_len.get() as usize, offset);
            while left > 0 {
                let len = left.min(buffer.len() / block_size * block_size);
                let part = &mut buffer[..len.next_multiple_of(block_size)];
                if let Err(error) = self.read_at(at, part) {
                    return wrong(key, at, error);
                }
                hasher.update(&part[..len]);
                at += part.len() as u64;
                left -= len;
            }
        }
        let (stored, computed) = (entry.checksum.get(), place.checksum(layout, hasher.finish()));
        if stored == computed {
            return Ok(Ok(()));
        }
        let damage = Damage::Checksum { stored, computed };
        let structure = "the payload of an object";
        wrong(key, offset, Error::Damaged { structure, offset, damage })
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let read = ReadAt::new(offset, bytes);
        self.state.dispatcher.read_buffers(&mut [read]).all().context(VERIFY)
    }
}

/// Bytes of memory for the payload of an object.
fn payload_len(object: &Located) -> usize {
    object.entry.payload_len.get() as usize
}
