//! The store: making, opening and closing it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use raw_block_core::backend::{IoBackend, OpKind};
use raw_block_core::{Dispatcher, sync};

use super::checkpoint;
use super::format::{CONTAINERS, Layout, MAX_SEQUENCE};
use super::io::segment_header;
use super::io::superblocks::{Probe, Superblocks};
use super::mutant::Mutant;
use super::open::recovery::{self, Recovery, ShutdownState};
use super::open::{make, memory};
use super::options::{FormatOptions, OpenOptions};
use super::reclaim::Worker;
use super::state::index::KeyHash;
use super::state::space::{CheckpointPurpose, Shape, Space};
use super::state::{StateParts, StoreState};
use super::stats::StoreStats;
use crate::Error;
use crate::error::Context;
use crate::open::claim::Claim;
use crate::state::hash::key_hash;

/// The contexts of errors.
const OPEN: &str = "open the store";
const CLOSE: &str = "close the store";

/// Keyed objects of any size on one device.
///
/// All calls take `&self` and may come from several threads. Calls on batches are the primitive:
/// objects of a batch are written next to each other.
///
/// What was put is durable after [`flush`](Store::flush). A store that is dropped without
/// [`close`](Store::close) is recovered when it is opened again, as after a power cut.
///
/// A process that is forked inherits its parent's stores, but not their threads and devices. Calls
/// there fail with [`ErrorKind::Forked`](raw_block_core::ErrorKind::Forked), and dropping or
/// closing one leaves the parent's as it is.
///
/// # Examples
/// ```
/// use std::sync::{Arc, Mutex, PoisonError};
///
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Get, Put, Store};
///
/// let device = Arc::new(MemoryBackend::new(16 << 20)?);
/// Store::format(device.clone(), &FormatOptions::default())?;
/// let store = Store::open(device)?;
/// store.put_many(&[Put::new(b"layer 0", &[1; 3000]), Put::new(b"layer 1", b"2")]).all()?;
/// store.flush()?;
///
/// let mut payload = [0; 4096];
/// let found = store.get_many(&mut [Get::new(b"layer 0", &mut payload)]).all()?;
/// assert_eq!(found[0].map(|info| info.payload_len), Some(3000));
/// assert!(store.delete(b"layer 1")?);
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    pub(crate) state: Arc<StoreState>,
    label: String,
    /// `None` once the store is closed.
    open: Mutex<Option<OpenParts>>,
}

/// The parts of a store that end when it is closed.
struct OpenParts {
    worker: Option<Worker>,
    /// Released after everything else.
    _claim: Claim,
}

impl Store {
    /// Makes an empty store on a device, whose contents are lost.
    ///
    /// # Errors
    /// - Unless `options.force` is set, [`Error::AlreadyAStore`] when there is one, also one that
    ///   cannot be opened, and [`Error::Occupied`] when there is a file system or the like, or the
    ///   device is a regular file with any byte that is not zero. Of a regular file the first 4 MiB
    ///   and the last 2 MiB are read, and samples between.
    /// - [`Error::Unsuitable`] when the device is too small, its blocks are too large, or the
    ///   options are impossible.
    /// - [`Error::Label`] when the label does not fit.
    /// - [`Error::Busy`] when a store on this backend is open.
    /// - [`Error::OutOfMemory`] when there is no memory for its segments.
    /// - [`Error::Device`] when the device fails.
    pub fn format(backend: Arc<dyn IoBackend>, options: &FormatOptions) -> Result<(), Error> {
        let _claim = Claim::take(&backend)?;
        make::make(Dispatcher::new(backend).context("format")?, options)
    }

    /// Opens the store on a device, with default options. See [`open_with`](Self::open_with).
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        Self::open_with(backend, &OpenOptions::default())
    }

    /// Opens the store on a device. A store that was not closed is recovered first, which reads
    /// what was written since the last checkpoint.
    ///
    /// Nothing is written before everything was checked; then the store is durably marked as open.
    ///
    /// # Errors
    /// - [`Error::NotAStore`] when there is none, [`Error::UnusableStore`] when there is one that
    ///   this software or this device cannot handle.
    /// - [`Error::Busy`] when a store on this backend is open already.
    /// - [`Error::CheckpointLost`] when its newest checkpoint is damaged, [`Error::Damaged`] when
    ///   all are, [`Error::NewestLost`] when it was not closed and something cannot be read that
    ///   may be newer than the checkpoint. See [`OpenOptions::accept_older_states`].
    /// - [`Error::OutOfMemory`] when there is no memory for its segments or the index.
    /// - [`Error::Device`] when the device fails.
    pub fn open_with(backend: Arc<dyn IoBackend>, options: &OpenOptions) -> Result<Self, Error> {
        let claim = Claim::take(&backend)?;
        let dispatcher = Dispatcher::new(backend).context(OPEN)?;
        dispatcher.check_accepted(OpKind::Write).context(OPEN)?;
        Self::open_on(claim, dispatcher, options)
    }

    /// Opens the store on a device read-only, also one that was opened by
    /// [`open_backend_read_only`](crate::open_backend_read_only).
    ///
    /// Nothing is written, now or later, and nothing is flushed: the device is left as it is. Gets,
    /// lists and scrubs find what a recovery would find; puts, deletes, checkpoints, flushes and
    /// [`close`](Self::close) are refused. There is no need to close it.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open_read_only(
        backend: Arc<dyn IoBackend>,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let claim = Claim::take(&backend)?;
        let dispatcher = Dispatcher::read_only(backend).context(OPEN)?;
        Self::open_on(claim, dispatcher, options)
    }
}

impl Store {
    fn open_on(claim: Claim, dispatcher: Dispatcher, options: &OpenOptions) -> Result<Self, Error> {
        let writes = dispatcher.check_accepted(OpKind::Write).is_ok();
        if writes && !Mutant::OpenedWithoutFlush.is_on() {
            // A killed process may have left writes in the device's cache, on which what is found
            // here rests.
            dispatcher.flush().context(OPEN)?;
        }
        let superblocks = find_store(&dispatcher, writes)?;
        let layout = Layout::of(superblocks.current());
        memory::check(layout.segment_count)?;
        let shape = Shape::of(&layout);
        let left = ShutdownState {
            clean: superblocks.clean_checkpoint(),
            oldest: superblocks.oldest_checkpoint(),
        };
        let recovered = recovery::recover(&dispatcher, &layout, &shape, left, options)?;
        if writes {
            check_numbers(&dispatcher, &superblocks, &recovered)?;
        }
        let Recovery {
            index,
            mut space,
            containers,
            clean,
            damaged,
            without_header,
            unreadable_containers,
        } = recovered;
        if options.lift_quarantine {
            space.segments.iter_mut().for_each(|segment| segment.bad = false);
        }
        let space = Space::restore(shape, options.eviction, space);
        let options = options.clone();
        let label = superblocks.current().label().to_owned();
        let parts =
            StateParts { dispatcher, layout, options, index, space, superblocks, containers };
        let state = Arc::new(StoreState::new(parts));
        state.counters.failed_checks.add(damaged);
        state.note_bad_segments();
        if writes && !Mutant::NotMarkedOpen.is_on() {
            state.mark_open()?;
        }
        let is_needed = !clean && !Mutant::NoCheckpointAfterRecovery.is_on();
        // With fewer than two containers no change is accepted: this finds out whether there are.
        if writes && (is_needed || CONTAINERS - unreadable_containers < 2) {
            // The checkpoint makes them durable.
            segment_header::write_lost(&state, &without_header);
            checkpoint_after_opening(&state)?;
        }
        tracing::info!(
            device = state.device_name(),
            objects = state.index.len(),
            segments = state.layout.segment_count,
            clean,
            "a store was opened"
        );
        let worker = (writes && state.options.background).then(|| Worker::start(&state)).flatten();
        let open = OpenParts { worker, _claim: claim };
        Ok(Self { state, label, open: Mutex::new(Some(open)) })
    }

    /// Makes durable every put and delete that was acknowledged before this call. Threads that wait
    /// for a flush at the same time share one flush of the device.
    ///
    /// # Errors
    /// [`Error::Device`]; after a failed flush every later change is refused until the store is
    /// opened again, because it is unknown what is durable.
    pub fn flush(&self) -> Result<(), Error> {
        self.state.flush()
    }

    /// Writes a checkpoint now, concurrently with other calls.
    ///
    /// There is no need to call this: checkpoints are taken when space is needed, and when much was
    /// written. A checkpoint makes the next recovery shorter.
    ///
    /// # Errors
    /// [`Error::Device`]; the store goes on with the checkpoint before.
    pub fn checkpoint(&self) -> Result<(), Error> {
        let _call = self.state.begin_call()?;
        checkpoint::take(&self.state, CheckpointPurpose::Period)
    }

    /// Does the most urgent work of the background thread, in the thread of the caller. Returns
    /// whether there may be more.
    ///
    /// For crash tests, which open stores without that thread: there all work is done in
    /// deterministic steps.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::OutOfMemory`]: a later call tries again.
    #[doc(hidden)]
    #[cfg(feature = "faults")]
    pub fn work(&self) -> Result<bool, Error> {
        let _call = self.state.begin_call()?;
        super::reclaim::work(&self.state)
    }

    /// Writes a checkpoint, makes everything durable and marks the store as clean, so that opening
    /// it again needs no recovery.
    ///
    /// Waits for calls in progress on other threads; later calls fail with [`Error::Closed`]. After
    /// that another store may be opened on the same backend; the backend itself is released when
    /// the store and its [pins](crate::Pin) are dropped. Does nothing if the store is closed
    /// already.
    ///
    /// A [list](Self::list) or a [scrub](Self::scrub) in progress fails at its next read; a pin
    /// cannot be read any more. [`stats`](Self::stats) does not access the device, and shows the
    /// store as it was when it was closed.
    ///
    /// # Errors
    /// [`Error::Device`]. Calls fail all the same from then on, and the store is recovered when it
    /// is opened again, unless another call of `close` succeeds. If the device accepts no writes,
    /// or the store was opened read-only, nothing changes, and gets go on.
    pub fn close(&self) -> Result<(), Error> {
        let state = &*self.state;
        state.check_process()?;
        let mut open = sync::lock(&self.open);
        let Some(parts) = open.as_mut() else { return Ok(()) };
        state.dispatcher.check_accepted(OpKind::Write).context(CLOSE)?;
        state.calls.close();
        parts.worker = None;
        checkpoint::take(state, CheckpointPurpose::Whole)?;
        state.mark_clean()?;
        state.is_closed.store(true, Ordering::Relaxed);
        *open = None;
        tracing::info!(device = state.device_name(), "a store was closed");
        Ok(())
    }

    /// The state of the store and its counters as they are now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let state = &self.state;
        let (usage, committed) = state.with_space(|space| (space.usage(), space.committed()));
        let counters = &state.counters;
        let checkpoint_latency = counters.checkpoint_latency.get();
        StoreStats {
            health: state.health.get(),
            objects: state.index.len(),
            payload_bytes: usage.payload_bytes,
            full_payload_bytes: usage.full_payload_bytes,
            bytes_left: usage.bytes_left,
            segments: usage.segments,
            free_segments: usage.free,
            open_segments: usage.open,
            full_segments: usage.full,
            draining_segments: usage.draining,
            bad_segments: usage.bad,
            pinned_versions: usage.pinned_versions,
            index_memory: state.index.memory() as u64,
            checkpoint: committed.number,
            puts: counters.puts.get(),
            put_bytes: counters.put_bytes.get(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            failed_checks: counters.failed_checks.get(),
            deletes: counters.deletes.get(),
            evictions: counters.evictions.get(),
            moves: counters.moves.get(),
            moved_bytes: counters.moved_bytes.get(),
            written_bytes: counters.written_bytes.get(),
            repeated_writes: counters.repeated_writes.get(),
            checkpoints: checkpoint_latency.count(),
            failed_checkpoints: counters.failed_checkpoints.get(),
            reclaims: counters.reclaims.get(),
            waits_for_space: counters.waits_for_space.get(),
            put_latency: counters.put_latency.get(),
            get_latency: counters.get_latency.get(),
            checkpoint_latency,
        }
    }

    /// The dispatcher that all I/O of the store goes through: the geometry of the device, and I/O
    /// statistics.
    #[must_use]
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.state.dispatcher
    }

    /// The largest payload that fits, in bytes, whatever the key.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        self.state.layout.largest_payload().into()
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        key_hash(&self.state.layout.hash_key, key)
    }
}

impl Drop for Store {
    /// Ends the background thread before anything that it uses. Pins may outlive the store, and
    /// another one may be opened on its backend: they are read no more.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = open {
            parts.worker = None;
        }
        if !self.state.is_inherited() {
            self.state.calls.close();
            self.state.stop_writes_after_unknown();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("dispatcher", &self.state.dispatcher)
            .field("label", &self.label)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The superblocks of the store on a device.
fn find_store(dispatcher: &Dispatcher, writes: bool) -> Result<Superblocks, Error> {
    let device = dispatcher.backend().name().to_owned();
    let superblocks = match Superblocks::find(dispatcher)? {
        Probe::Store(found) => *found,
        Probe::Unusable(reason) => return Err(Error::UnusableStore { device, reason }),
        Probe::Nothing => {
            let reason = "there is no superblock; format the device to make a store".into();
            return Err(Error::NotAStore { device, reason });
        }
    };
    let unknown = superblocks.current().unknown_read_only_features();
    if writes && unknown != 0 {
        let reason =
            format!("it uses features {unknown:#x}, with which this software can only read it");
        return Err(Error::UnusableStore { device, reason });
    }
    Ok(superblocks)
}

/// Checks that the numbers of a store last for another life.
fn check_numbers(
    dispatcher: &Dispatcher,
    superblocks: &Superblocks,
    recovered: &Recovery,
) -> Result<(), Error> {
    let used = [
        recovered.space.next_sequence,
        recovered.containers.last_number(),
        superblocks.current().generation.get(),
    ];
    if used.iter().all(|&number| number <= MAX_SEQUENCE / 2) {
        return Ok(());
    }
    let reason = "its sequences are used up, so it can only be opened read-only".to_owned();
    Err(Error::UnusableStore { device: dispatcher.backend().name().to_owned(), reason })
}

/// Writes a checkpoint that covers everything that a recovery found: before the first change,
/// because a change may overwrite what an older checkpoint does not cover.
///
/// If no container but the committed one can be written, changes are refused until a checkpoint
/// succeeds.
fn checkpoint_after_opening(state: &StoreState) -> Result<(), Error> {
    let mut refused = None;
    for _ in 0..CONTAINERS {
        match checkpoint::take(state, CheckpointPurpose::Whole) {
            Ok(()) => return Ok(()),
            Err(Error::Device { error, .. }) => {
                // After a failed flush, or a write with an unknown outcome, nothing may be written.
                state.dispatcher.check_accepted(OpKind::Write).context(OPEN)?;
                refused = Some(error);
            }
            Err(other) => return Err(other),
        }
    }
    if let Some(error) = refused {
        state.writes_refused(&error);
    }
    Ok(())
}
