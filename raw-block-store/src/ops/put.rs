//! Putting objects.

use std::sync::atomic::Ordering;
use std::time::Instant;

use raw_block_core::WriteAt;

use super::attempts::ATTEMPTS;
use super::request::Put;
use super::selection::{Duplicates, Selection};
use super::stage::PutBatch;
use crate::BatchResult;
use crate::Error;
use crate::Store;
use crate::mutant;
use crate::reclaim;
use crate::state::index::{KeyHash, Located};
use crate::state::space::{Allocation, Batch, Shortage};
use crate::state::{NoSpace, StoreState};

/// The context of errors.
const PUT: &str = "put an object";

/// Objects that are allocated at once. A longer batch goes in parts.
const MAX_SUBMISSION: usize = 1024;

/// Objects that are longer than this part of a segment waste space.
const LARGE_PART: u64 = 8;

/// The number of consecutive reclaims that free nothing after which a put fails as in a full store.
/// A store stops compacting earlier, and evicts if it has a policy. So only a store that moves
/// pinned objects without freeing space reaches this limit.
const MAX_RECLAIMS_WITHOUT_GAIN: usize = 64;

impl Store {
    /// Puts one object. See [`put_many`](Self::put_many).
    ///
    /// # Errors
    /// Those of [`put_many`](Self::put_many).
    pub fn put(&self, key: &[u8], payload: &[u8]) -> Result<(), Error> {
        self.put_many(&[Put::new(key, payload)]).all().map(drop)
    }

    /// Puts a batch of objects, which are written next to each other.
    ///
    /// Each object has its own result, in the order of the batch. One that succeeded replaces the
    /// object that had its key, for every get that begins afterwards; it is durable after the next
    /// [`flush`](Self::flush). One that failed leaves the older object in place; a recovery after a
    /// crash may find the whole new object. If a key appears twice in the batch, the later one
    /// wins, and both have its result.
    ///
    /// An object whose write fails is written elsewhere, up to three times.
    ///
    /// The errors of results are [`Error::Key`], [`Error::PayloadTooLarge`] and
    /// [`Error::TooManySlices`] when the object does not fit, [`Error::OutOfSpace`] when the store
    /// is full, [`Error::OutOfMemory`] when there is no memory for the index, [`Error::Device`]
    /// when the device fails, and [`Error::Closed`].
    pub fn put_many(&self, puts: &[Put<'_>]) -> BatchResult<()> {
        let put = self.put_all(puts, Duplicates::LastWins);
        put.into_iter().map(|result| result.map(drop)).collect()
    }

    /// Puts those objects of a batch whose keys are absent. Each result says whether its object was
    /// put; a key that is present counts as used, and its object is not compared. If a key appears
    /// twice in the batch, the first one counts.
    ///
    /// A damaged object counts as absent. One that a recovery found, and that was never read since,
    /// is verified first, because the power cut may have torn it.
    ///
    /// For keys that are derived from the content. See [`put_many`](Self::put_many) for the rest.
    pub fn put_many_if_absent(&self, puts: &[Put<'_>]) -> BatchResult<bool> {
        self.put_all(puts, Duplicates::FirstWins).into()
    }

    /// Puts a batch. Each result says whether the object was put.
    fn put_all(&self, puts: &[Put<'_>], duplicates: Duplicates) -> Vec<Result<bool, Error>> {
        let began = Instant::now();
        let mut results: Vec<_> =
            puts.iter().map(|put| self.check_put(put).map(|()| true)).collect();
        let hashes: Vec<KeyHash> = puts.iter().map(|put| self.hash(put.key)).collect();
        let Selection { mut positions, copies } =
            Selection::of(&hashes, |at| results[at].is_ok(), duplicates);
        if duplicates == Duplicates::FirstWins {
            self.leave_out_present(&hashes, &mut positions, &mut results);
        }
        for positions in positions.chunks(mutant::limit(MAX_SUBMISSION, 8)) {
            match self.state.begin_change(PUT) {
                Ok(_call) => {
                    let batch = PutBatch { puts, positions, hashes: &hashes };
                    let unplaced = put_batch(&self.state, &batch, &mut results);
                    put_again(&self.state, &batch, unplaced, &mut results);
                }
                Err(error) => fail(&mut results, positions.iter().copied(), &error),
            }
        }
        for (copy, written) in copies {
            let was_put = |put: bool| put && duplicates == Duplicates::LastWins;
            results[copy] = results[written].clone().map(was_put);
        }
        self.state.counters.put_latency.add_since(began);
        results
    }

    /// Leaves out the objects whose keys are present, and counts those as used.
    fn leave_out_present(
        &self,
        hashes: &[KeyHash],
        positions: &mut Vec<usize>,
        results: &mut [Result<bool, Error>],
    ) {
        if self.state.begin_call().is_err() {
            return;
        }
        let index = &self.state.index;
        let keys: Vec<KeyHash> = positions.iter().map(|&at| hashes[at]).collect();
        let mut located = Vec::with_capacity(keys.len());
        index.find_many(&keys, &mut located);
        let is_unverified = |of: &&Located| index.is_unverified(of.place);
        let unverified: Vec<Located> =
            located.iter().flatten().filter(is_unverified).copied().collect();
        let torn = self.find_torn(unverified);
        let now = self.state.policy.now();
        let mut located = located.into_iter();
        positions.retain(|&at| {
            let Some(found) = located.next().flatten() else { return true };
            if index.is_damaged(found.place) || torn.contains(&found.entry.key_hash) {
                return true;
            }
            index.note_use(found.place, now);
            results[at] = Ok(false);
            false
        });
    }

    fn check_put(&self, put: &Put<'_>) -> Result<(), Error> {
        let shape = &self.state.shape;
        let (key_len, metadata_len) = (put.key.len(), put.metadata.len());
        let limit = (shape.header_capacity as usize)
            .saturating_sub(crate::format::ENTRY_LEN)
            .min(u16::MAX.into());
        if key_len == 0 || key_len.saturating_add(metadata_len) > limit {
            return Err(Error::Key { key_len, metadata_len, limit });
        }
        let (len, limit) = (put.payload.len(), self.max_payload());
        if len as u64 > limit {
            return Err(Error::PayloadTooLarge { len, limit });
        }
        let (slices, limit) = (put.payload.slices(), WriteAt::MAX_SEGMENTS);
        if slices > limit {
            return Err(Error::TooManySlices { slices, limit });
        }
        self.warn_of_waste(len);
        Ok(())
    }

    /// Logs once that long payloads leave the ends of segments unused.
    fn warn_of_waste(&self, len: usize) {
        let segment =
            u64::from(self.state.layout.segment_blocks) * u64::from(self.state.layout.block_size);
        if len as u64 > segment / LARGE_PART
            && !self.state.warned_of_waste.swap(true, Ordering::Relaxed)
        {
            let device = self.state.device_name();
            tracing::warn!(
                device,
                len,
                segment,
                "an object is longer than an eighth of a segment: space is wasted where no other fits"
            );
        }
    }
}

/// Repeats the puts of objects whose writes failed and that found no space elsewhere. None of them
/// is in flight, so a reclaim can make space for them.
fn put_again(
    state: &StoreState,
    batch: &PutBatch<'_>,
    mut unplaced: Vec<usize>,
    results: &mut [Result<bool, Error>],
) {
    for _ in 1..ATTEMPTS {
        if unplaced.is_empty() || state.refuses_writes() {
            return;
        }
        let errors: Vec<_> = unplaced.iter().map(|&at| results[at].clone()).collect();
        unplaced.iter().for_each(|&at| results[at] = Ok(true));
        let again = PutBatch { positions: &unplaced, ..*batch };
        let still_unplaced = put_batch(state, &again, results);
        for (&at, error) in unplaced.iter().zip(errors) {
            // The error of the write says more than that the store is full.
            if matches!(results[at], Err(Error::OutOfSpace { .. })) {
                results[at] = error;
            }
        }
        unplaced = still_unplaced;
    }
}

/// Puts a batch. Returns the positions of those objects whose writes failed and for which there is
/// no space elsewhere.
fn put_batch(
    state: &StoreState,
    batch: &PutBatch<'_>,
    results: &mut [Result<bool, Error>],
) -> Vec<usize> {
    let mut unplaced = Vec::new();
    let mut left = Batch::default();
    left.fill(&state.shape, batch.positions.iter().map(|&at| batch.puts[at].demand()));
    let objects = Vec::with_capacity(batch.positions.len());
    let mut allocation = Allocation { objects, ..Allocation::default() };
    let mut reclaims_without_gain = 0;
    loop {
        allocation.clear();
        let ended = allocate(state, &mut left, &mut allocation);
        if !allocation.slots.is_empty() {
            reclaims_without_gain = 0;
            // Write before waiting for space: a checkpoint covers no change from the first one in
            // flight on.
            let failed = state.write_allocation(batch, &allocation);
            state.write_elsewhere(batch, failed, results, &mut unplaced);
        }
        let error = match ended {
            Ok(()) => break,
            Err(NoSpace::Space(_)) if state.refuses_writes() => match state.check_writes(PUT) {
                // A checkpoint succeeded in the meantime.
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(NoSpace::Space(Shortage::Wait)) => continue,
            Err(NoSpace::Space(Shortage::Reclaim))
                if reclaims_without_gain < MAX_RECLAIMS_WITHOUT_GAIN =>
            {
                match reclaim::make_space(state) {
                    Ok(gained) => {
                        reclaims_without_gain = if gained { 0 } else { reclaims_without_gain + 1 };
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Err(NoSpace::Space(Shortage::Reclaim | Shortage::Full)) => state.out_of_space(),
            Err(NoSpace::Memory(error)) => {
                // What was allocated without memory for it is lost.
                let lost = allocation.objects.iter().map(|of| batch.position(of.index));
                fail(results, lost, &error);
                error
            }
        };
        fail(results, left.rest().map(|index| batch.position(index)), &error);
        break;
    }
    if state.with_space(|space| space.needs_reclaim()) {
        state.worker.wake();
    }
    reclaim::checkpoint_if_due(state);
    unplaced
}

/// Allocates as much of a batch as there is space for. Waits while nothing at all can be allocated,
/// and that will change by itself.
fn allocate(
    state: &StoreState,
    left: &mut Batch,
    allocation: &mut Allocation,
) -> Result<(), NoSpace> {
    match state.allocate(left, allocation) {
        Err(NoSpace::Space(Shortage::Wait)) if allocation.slots.is_empty() => {}
        ended => return ended,
    }
    state.wait_for_space(|space| match space.allocate(left, allocation) {
        Err(Shortage::Wait) if allocation.slots.is_empty() => None,
        ended => {
            let extended = state.extend_index(space, 0, allocation);
            Some(extended.and_then(|()| ended.map_err(NoSpace::from)))
        }
    })
}

impl StoreState {
    pub(super) fn out_of_space(&self) -> Error {
        let usage = self.with_space(|space| space.usage());
        Error::OutOfSpace {
            segments: usage.segments,
            objects: self.index.len(),
            pinned: usage.pinned_versions,
            bad: usage.bad,
        }
    }
}

/// Gives these objects the same error.
pub(super) fn fail(
    results: &mut [Result<bool, Error>],
    objects: impl Iterator<Item = usize>,
    error: &Error,
) {
    for at in objects {
        results[at] = Err(error.clone());
    }
}

#[cfg(test)]
mod tests;
