//! What the calls of a store and its checkpoint thread share.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use raw_block_core::{Dispatcher, ErrorKind, OpKind, waiting};

use crate::Error;
use crate::checkpoint::{self, Committed};
use crate::error::Doing;
use crate::eviction::{Eviction, Fate};
use crate::fault::Fault;
use crate::format::Superblock;
use crate::index::Index;
use crate::pace::{Beside, Pace};
use crate::space::{Because, LogPlace, Place, Remedy, Space};
use crate::stats::Counters;

/// How many parts of the slots, or of the delete log, are to be free; with fewer a checkpoint begins
/// before anyone has to wait. A checkpoint also takes this part of the slots as changes, or it is not worth
/// its writes.
const SPARE_PARTS: u64 = 8;

/// What the calls of a store and its checkpoint thread share.
///
/// Locks are taken in this order: `committed`, the policy of `eviction`, `space`, those of the index.
pub(crate) struct Shared {
    pub(crate) device: Dispatcher,
    /// Where everything lies. Its state and generation are those of when the store was opened.
    pub(crate) layout: Superblock,
    pub(crate) index: Index,
    pub(crate) eviction: Eviction,
    pub(crate) counters: Counters,
    space: Mutex<Waited>,
    /// Signalled when a change or a get is over, if somebody waits for one.
    over: Condvar,
    /// Held while a checkpoint is taken.
    committed: Mutex<Committed>,
    /// The error of the first put whose outcome is unknown.
    unknown: OnceLock<raw_block_core::Error>,
    pub(crate) pace: Pace,
    /// The process that opened the store: a forked child has neither its threads nor its device.
    process: u32,
}

struct Waited {
    space: Space,
    /// How many wait for `over`.
    waiting: usize,
}

impl Shared {
    pub(crate) fn new(
        device: Dispatcher,
        layout: Superblock,
        index: Index,
        eviction: Eviction,
        space: Space,
        committed: Committed,
    ) -> Self {
        Self {
            device,
            layout,
            index,
            eviction,
            counters: Counters::default(),
            space: Mutex::new(Waited { space, waiting: 0 }),
            over: Condvar::new(),
            committed: Mutex::new(committed),
            unknown: OnceLock::new(),
            pace: Pace::default(),
            process: std::process::id(),
        }
    }

    /// Whether this is a forked child of the process that opened the store.
    pub(crate) fn is_inherited(&self) -> bool {
        std::process::id() != self.process
    }

    /// Refuses calls in a forked child, before they take a lock that a thread of the parent held when it forked.
    ///
    /// # Errors
    /// [`Error::Device`] of kind [`ErrorKind::Forked`].
    pub(crate) fn check_process(&self) -> Result<(), Error> {
        if !self.is_inherited() {
            return Ok(());
        }
        let rule =
            "this process is a forked child of the one that opened the store: open it here again";
        let error = raw_block_core::Error::new(ErrorKind::Forked, "use a store", rule);
        Err(error.on(self.device.backend().device())).doing("use the store")
    }

    /// Makes durable what is complete.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        if Fault::FlushDoesNothing.is_on() {
            return Ok(());
        }
        self.check_process()?;
        self.flush_device().doing("flush the store")
    }

    pub(crate) fn flush_device(&self) -> Result<(), raw_block_core::Error> {
        let began = self.lock().space.begin_flush();
        self.device.flush()?;
        self.lock().space.end_flush(began);
        Ok(())
    }

    /// Writes a checkpoint, beside changes and gets under way. Frees the slots and log blocks that waited
    /// for one, as far as it speaks for them.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        self.check_process()?;
        self.checkpoint_if(|_| true)
    }

    /// Writes a checkpoint if slots or log blocks run short.
    pub(crate) fn checkpoint_in_time(&self) -> Result<(), Error> {
        self.checkpoint_if(|space| self.runs_short(space))
    }

    /// Writes a checkpoint if it is wanted when no other is under way any more.
    fn checkpoint_if(&self, wanted: impl FnOnce(&Space) -> bool) -> Result<(), Error> {
        let mut committed = waiting::lock(&self.committed);
        // The sequence that is covered is chosen before the index is copied: what is published meanwhile
        // speaks for itself.
        let (covered, next_sequence, free_log_blocks) = {
            let guard = self.lock();
            if !wanted(&guard.space) {
                return Ok(());
            }
            let next_sequence = guard.space.next_sequence();
            let covered = if Fault::CoveredTooHigh.is_on() {
                next_sequence - 1
            } else {
                guard.space.coverable()
            };
            (covered, next_sequence, guard.space.free_log_blocks())
        };
        let started = Instant::now();
        let contents = checkpoint::Contents { index: &self.index, covered, next_sequence };
        let beside = Beside { shared: self, next_sequence, free_log_blocks };
        checkpoint::write(&self.device, &self.layout, &mut committed, contents, &beside)?;
        {
            let mut guard = self.lock();
            guard.space.commit(committed.number, covered);
            self.wake(&guard);
        }
        self.counters.checkpoint_latency.add_since(started);
        tracing::debug!(
            device = self.device.backend().device(),
            number = committed.number,
            covered,
            elapsed = ?started.elapsed(),
            "a checkpoint was committed"
        );
        Ok(())
    }

    /// Reads the committed checkpoint, and checks it.
    ///
    /// # Errors
    /// [`Error::CheckpointLost`] when it is damaged, [`Error::Device`] when it cannot be read.
    pub(crate) fn verify_checkpoint(&self) -> Result<(), Error> {
        let committed = {
            let _hurry = self.pace.hurry();
            waiting::lock(&self.committed)
        };
        let found = checkpoint::find(&self.device, &self.layout)?;
        let ours = found.iter().find(|found| found.committed.number == committed.number);
        match ours {
            Some(ours) => ours.entries(&self.device, &self.layout, |_, _| Ok(())),
            None => Err(Error::CheckpointLost {
                device: self.device.backend().device().to_owned(),
                number: committed.number,
                reason: "its header is damaged".to_owned(),
            }),
        }
    }

    /// The number of the committed checkpoint.
    pub(crate) fn committed(&self) -> u64 {
        self.lock().space.checkpoint()
    }

    /// Whether slots or log blocks run short, and a checkpoint would help.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.space(|space| self.runs_short(space))
    }

    fn runs_short(&self, space: &Space) -> bool {
        let spare = self.spare_slots();
        let few_slots = space.free_slots() < spare && space.uncovered_sequences() >= spare;
        few_slots || space.free_log_blocks() < self.spare_log_blocks()
    }

    pub(crate) fn spare_slots(&self) -> u64 {
        (self.layout.slot_count.get() / SPARE_PARTS).max(1)
    }

    pub(crate) fn spare_log_blocks(&self) -> u64 {
        let log_blocks = self.layout.delete_log_len.get() / u64::from(self.layout.block_size);
        log_blocks.div_ceil(SPARE_PARTS)
    }

    /// Takes slots for up to `count` objects. Waits for a checkpoint or a flush if none is free, and
    /// evicts what the policy gives up.
    ///
    /// # Errors
    /// [`Error::Full`] when there are none to be had, [`Error::Device`] when the device fails or takes no
    /// writes.
    pub(crate) fn begin_put(&self, count: usize) -> Result<Putting<'_>, Error> {
        self.check_process()?;
        self.device.check_accepted(OpKind::Write).doing("put an object")?;
        let mut places = Vec::with_capacity(count);
        loop {
            let (remedy, checkpoint) = {
                let mut guard = self.lock();
                let first_sequence = guard.space.next_sequence();
                guard.space.begin_put(count, &mut places);
                if !places.is_empty() {
                    let checkpoint = guard.space.checkpoint();
                    let retired = Vec::with_capacity(count);
                    return Ok(Putting {
                        shared: self,
                        first_sequence,
                        checkpoint,
                        places,
                        retired,
                    });
                }
                (guard.space.remedy(), guard.space.checkpoint())
            };
            if remedy != Remedy::None && self.evict(count as u64) {
                continue;
            }
            match remedy {
                Remedy::None => {}
                Remedy::Flush => self.flush_device().doing("free slots")?,
                Remedy::Checkpoint => {
                    let _hurry = self.pace.hurry();
                    self.checkpoint_if(|space| {
                        space.checkpoint() == checkpoint && space.remedy() == Remedy::Checkpoint
                    })?;
                }
                Remedy::Wait => self.wait_until(|space| space.remedy() != Remedy::Wait),
                Remedy::Hopeless => {
                    let guard = self.lock();
                    if guard.space.remedy() == Remedy::Hopeless {
                        return Err(Error::Full {
                            slots: self.layout.slot_count.get(),
                            live: self.index.len(),
                            pinned: guard.space.pinned_slots(),
                            quarantined: guard.space.quarantined_slots(),
                        });
                    }
                }
            }
        }
    }

    /// Evicts objects, so that about `count` slots become free, unless enough evicted ones wait for a
    /// checkpoint. Returns whether slots are free now.
    fn evict(&self, count: u64) -> bool {
        if self.lock().space.evicted_slots() < count {
            let mut evicted = 0;
            self.eviction.run(count, &self.index, |slot| {
                let mut guard = self.lock();
                if guard.space.is_pinned(slot) && !Fault::PinnedEvicted.is_on() {
                    return Fate::Pinned;
                }
                let oldest = guard.space.oldest_under_way();
                let Some(place) = self.index.evict(slot, oldest) else { return Fate::Empty };
                guard.space.retire([place], Because::Evicted);
                evicted += 1;
                Fate::Evicted
            });
            self.counters.evictions.add(evicted);
        }
        self.lock().space.free_slots() > 0
    }

    /// Quarantines a slot that was taken for a put which failed with this error: the device may still carry
    /// the write out.
    pub(crate) fn quarantine(&self, error: &raw_block_core::Error) {
        self.lock().space.quarantine();
        if self.unknown.set(error.clone()).is_ok() {
            tracing::warn!(%error, "a put may still take effect: its slot is quarantined");
        }
    }

    /// Takes sequences and log blocks for up to `records` deletions. Waits for a checkpoint if no block is
    /// free.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails or takes no writes.
    pub(crate) fn begin_delete(&self, records: u64, per_block: u64) -> Result<Deleting<'_>, Error> {
        self.check_process()?;
        self.device.check_accepted(OpKind::Write).doing("delete an object")?;
        loop {
            let (remedy, checkpoint) = {
                let mut guard = self.lock();
                let checkpoint = guard.space.checkpoint();
                if let Some(place) = guard.space.begin_delete(records, per_block) {
                    return Ok(Deleting { shared: self, place, checkpoint, retired: Vec::new() });
                }
                (guard.space.log_remedy(), checkpoint)
            };
            match remedy {
                Remedy::Checkpoint => {
                    let _hurry = self.pace.hurry();
                    self.checkpoint_if(|space| {
                        space.checkpoint() == checkpoint && space.log_remedy() == Remedy::Checkpoint
                    })?;
                }
                Remedy::Wait => self.wait_until(|space| space.log_remedy() != Remedy::Wait),
                Remedy::None | Remedy::Flush | Remedy::Hopeless => {}
            }
        }
    }

    /// Keeps every slot as it is that the index names from now on.
    pub(crate) fn begin_get(&self) -> Getting<'_> {
        Getting { shared: self, began: self.lock().space.begin_get() }
    }

    /// Pins a slot that a get under way found in the index.
    pub(crate) fn pin(&self, slot: u64) {
        self.lock().space.pin(slot);
    }

    pub(crate) fn unpin(&self, slot: u64) {
        let mut guard = self.lock();
        guard.space.unpin(slot);
        self.wake(&guard);
    }

    /// Reads the state of the space.
    pub(crate) fn space<T>(&self, read: impl FnOnce(&Space) -> T) -> T {
        read(&self.lock().space)
    }

    /// Waits until the changes that are under way now are over.
    pub(crate) fn wait_for_changes(&self) {
        let next = self.space(Space::next_sequence);
        self.wait_until(|space| space.oldest_under_way() >= next);
    }

    /// Waits, for changes and gets to be over, until `done`.
    fn wait_until(&self, done: impl Fn(&Space) -> bool) {
        let mut guard = self.lock();
        while !done(&guard.space) {
            guard.waiting += 1;
            guard = waiting::wait(&self.over, &self.space, guard);
            guard.waiting -= 1;
        }
    }

    fn wake(&self, guard: &MutexGuard<'_, Waited>) {
        if guard.waiting > 0 {
            self.over.notify_all();
        }
    }

    fn end_change(&self, first_sequence: u64, retired: impl IntoIterator<Item = Place>) {
        let mut guard = self.lock();
        guard.space.retire(retired, Because::Replaced);
        guard.space.end_change(first_sequence);
        self.wake(&guard);
    }

    fn lock(&self) -> MutexGuard<'_, Waited> {
        waiting::lock(&self.space)
    }
}

impl Drop for Shared {
    /// A store that is opened next on the same backend does not know the quarantined slots.
    fn drop(&mut self) {
        if let Some(error) = self.unknown.get()
            && !self.is_inherited()
        {
            self.device.backend().flush_state().stop_writes(error);
        }
    }
}

/// Slots that objects are put to, until this is dropped.
pub(crate) struct Putting<'a> {
    shared: &'a Shared,
    first_sequence: u64,
    /// The number of the committed checkpoint when the slots were taken.
    pub(crate) checkpoint: u64,
    /// Where to write. Given up, all of them, if the end is not [told](Self::end).
    pub(crate) places: Vec<Place>,
    retired: Vec<Place>,
}

impl Putting<'_> {
    /// The slots of objects that were replaced, and of those that failed to be written, are given up.
    pub(crate) fn end(mut self, retired: impl IntoIterator<Item = Place>) {
        self.places.clear();
        self.retired.extend(retired);
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        self.shared
            .end_change(self.first_sequence, self.places.drain(..).chain(self.retired.drain(..)));
    }
}

/// Blocks of the delete log that deletions are written to, until this is dropped.
pub(crate) struct Deleting<'a> {
    shared: &'a Shared,
    pub(crate) place: LogPlace,
    /// The number of the committed checkpoint when the blocks were taken.
    pub(crate) checkpoint: u64,
    /// The slots of deleted objects.
    pub(crate) retired: Vec<Place>,
}

impl Drop for Deleting<'_> {
    fn drop(&mut self) {
        self.shared.end_change(self.place.first_sequence, self.retired.drain(..));
    }
}

/// A get under way: no slot that the index named becomes free.
pub(crate) struct Getting<'a> {
    shared: &'a Shared,
    began: u64,
}

impl Drop for Getting<'_> {
    fn drop(&mut self) {
        let mut guard = self.shared.lock();
        if guard.space.end_get(self.began) {
            self.shared.wake(&guard);
        }
    }
}
