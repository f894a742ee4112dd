//! The store: formatting, opening, closing, and what its calls share.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use raw_block_core::{Dispatcher, IoBackend, OpKind};

use crate::checkpoint::{self, Committed, Contents};
use crate::checkpoint_thread::CheckpointThread;
use crate::claim::Claim;
use crate::error::Doing;
use crate::eviction::Eviction;
use crate::fault::Fault;
use crate::format::{ObjectEntry, SuperblockState, records_per_block};
use crate::hash::key_hash;
use crate::index::{Index, KeyHash};
use crate::layout::slot_offset;
use crate::recovery::{self, Recovered};
use crate::scratch::ScratchPool;
use crate::shared::Shared;
use crate::signature::{self, Signature};
use crate::space::Space;
use crate::stats::{Counters, StoreStats};
use crate::superblocks::{Found, Superblocks};
use crate::verification::Unverified;
use crate::{Error, FormatOptions, OpenOptions, Verification, zeroes};

/// Keyed objects on one device.
///
/// All calls take `&self` and may come from several threads. Calls on batches are the primitive: a batch
/// that fits the queue of the device (128 transfers) is one submission; [`put`](Store::put) and
/// [`get`](Store::get) are batches of one.
///
/// What was put is durable after [`flush`](Store::flush). A store that is dropped without
/// [`close`](Store::close) is recovered when it is opened again, as after a power cut.
///
/// A process that is forked inherits its parent's stores, but not their threads and devices. Calls there fail with
/// [`ErrorKind::Forked`](raw_block_core::ErrorKind::Forked), and dropping or closing one leaves the parent's as it is.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::MemoryBackend;
/// use raw_block_store::{FormatOptions, Get, Put, Store};
///
/// let device = Arc::new(MemoryBackend::new(64 << 20)?);
/// Store::format(device.clone(), &FormatOptions::for_payloads(256 << 10))?;
/// let store = Store::open(device)?;
///
/// let puts = [Put::new(b"layer 0", &[1; 1000]), Put::new(b"layer 1", &[2; 2000])];
/// for result in store.put_many(&puts) {
///     result?;
/// }
///
/// let (mut first, mut second) = ([0; 1000], [0; 2000]);
/// let found = store.get_many(&mut [
///     Get::new(b"layer 0", &mut first),
///     Get::new(b"layer 2", &mut second),
/// ]);
/// assert_eq!(found[0].as_ref().unwrap().unwrap().payload_len, 1000);
/// assert!(found[1].as_ref().unwrap().is_none(), "a miss");
/// assert_eq!(first, [1; 1000]);
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    /// Ends before anything else does.
    checkpoints: Option<CheckpointThread>,
    pub(crate) shared: Arc<Shared>,
    superblocks: Superblocks,
    pub(crate) verification: Verification,
    pub(crate) unverified: Unverified,
    pub(crate) scratch: ScratchPool,
    _claim: Claim,
}

/// What the store is doing when opening fails.
const OPEN: &str = "open the store";

impl Store {
    /// Makes an empty store on a device, whose contents are lost.
    ///
    /// # Errors
    /// - Unless `options.force` is set, [`Error::AlreadyAStore`] when there is one, also one that cannot be opened,
    ///   and [`Error::Occupied`] when there is a file system or the like, or the device is a regular file with any
    ///   byte that is not zero. Of a regular file the first 4 MiB and the last 2 MiB are read, and samples between.
    /// - [`Error::Unsuitable`] when the device is too small, its blocks are too large, or the options
    ///   are impossible.
    /// - [`Error::Busy`] when a store on this backend is open.
    /// - [`Error::Device`] when the device fails.
    pub fn format(backend: Arc<dyn IoBackend>, options: &FormatOptions) -> Result<(), Error> {
        let _claim = Claim::take(&backend)?;
        let name = backend.device().to_owned();
        let device = Dispatcher::new(backend).doing("format")?;
        device.check_accepted(OpKind::Write).doing("format")?;
        let mut superblock = options.lay_out(device.geometry(), &name)?;
        let found = Superblocks::find(&device)?;
        if !options.force {
            spare(&name, &found, &signature::find(&device)?)?;
        }
        superblock.preamble.uuid = random()?;
        superblock.hash_key = random()?;
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        superblock.created_unix_ns = u64::try_from(age.as_nanos()).unwrap_or(0).into();

        // What could not be opened here is not made.
        let index = Index::new(superblock.slot_count.get())?;

        // Everything was checked. From here on, what was there is lost.
        if let Found::Store(found) = found {
            found.erase(&device)?;
        }
        if options.force {
            signature::erase(&device)?;
        }
        let mut superblocks = Superblocks::new(superblock);
        superblocks.erase(&device)?;
        if device.geometry().regular_file {
            // What a recovery or a checkpoint writes has its space from now on: a file system that runs full ends puts
            // of new objects, and nothing else.
            let regions = superblock.checkpoint_offset[0].get()..superblock.slots_offset.get();
            let len = regions.end - regions.start;
            zeroes::write(&device, regions.start, len, "allocate the regions of the store")?;
        }
        let mut committed = Committed { number: 0, container: 1, last_number: 0 };
        let contents = Contents { index: &index, covered: 0, next_sequence: 1 };
        checkpoint::write(&device, &superblock, &mut committed, contents, &device)?;
        let state = SuperblockState::Clean { checkpoint: committed.number, verified: true };
        superblocks.mark(&device, state)?;
        tracing::info!(device = name, slots = superblock.slot_count.get(), "a store was made");
        Ok(())
    }

    /// Opens the store on a device, with default options. See [`open_with`](Self::open_with).
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        Self::open_with(backend, &OpenOptions::default())
    }

    /// Opens the store on a device. One that was not closed in order is recovered first, which reads
    /// the header of every slot; [`OpenOptions::recovery_progress`] is told how far it is.
    ///
    /// Nothing is written before everything was checked; then the store is durably marked as open.
    ///
    /// # Errors
    /// - [`Error::NotAStore`] when there is none, [`Error::UnusableStore`] when there is one that this software or
    ///   this device cannot handle.
    /// - [`Error::Busy`] when a store on this backend is open already.
    /// - [`Error::CheckpointLost`] when its newest checkpoint cannot be believed, [`Error::Damaged`] when
    ///   both cannot, [`Error::NewestLost`] when it was not closed in order and something cannot be read that
    ///   may be newer than the checkpoint. See [`OpenOptions::accept_older_states`].
    /// - [`Error::OutOfMemory`] when there is no memory for the index.
    /// - [`Error::Device`] when the device fails.
    pub fn open_with(backend: Arc<dyn IoBackend>, options: &OpenOptions) -> Result<Self, Error> {
        let claim = Claim::take(&backend)?;
        let device = Dispatcher::new(backend).doing(OPEN)?;
        device.check_accepted(OpKind::Write).doing(OPEN)?;
        Self::open_on(claim, device, options)
    }

    /// Opens the store on a device read-only, also one that was opened by
    /// [`open_device_read_only`](crate::open_device_read_only).
    ///
    /// Nothing is written, now or later, and nothing is flushed: the device is left as it is. Gets, lists
    /// and scrubs find what a recovery would find; puts, deletes, checkpoints, flushes and
    /// [`close`](Self::close) are refused. There is no need to close it.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub fn open_read_only(
        backend: Arc<dyn IoBackend>,
        options: &OpenOptions,
    ) -> Result<Self, Error> {
        let claim = Claim::take(&backend)?;
        let device = Dispatcher::read_only(backend).doing(OPEN)?;
        Self::open_on(claim, device, options)
    }

    fn open_on(claim: Claim, device: Dispatcher, options: &OpenOptions) -> Result<Self, Error> {
        let writes = device.check_accepted(OpKind::Write).is_ok();
        let name = device.backend().device().to_owned();
        let mut superblocks = match Superblocks::find(&device)? {
            Found::Store(found) => *found,
            Found::Unusable(reason) => return Err(Error::UnusableStore { device: name, reason }),
            Found::Nothing => {
                let reason = "there is no superblock; format the device to make a store".into();
                return Err(Error::NotAStore { device: name, reason });
            }
        };
        let layout = *superblocks.current();
        let unknown = layout.unknown_read_only_features();
        if writes && unknown != 0 {
            let reason =
                format!("it uses features {unknown:#x}, with which this software can only read it");
            return Err(Error::UnusableStore { device: name, reason });
        }
        let clean = superblocks.clean_checkpoint();
        let verified = clean.is_some_and(|(_, verified)| verified);
        let clean = clean.map(|(checkpoint, _)| checkpoint);
        let found = recovery::recover(&device, &layout, clean, options)?;
        let Recovered { index, mut committed, next_sequence, clean, damaged } = found;
        let slots = layout.slot_count.get();
        let eviction = Eviction::new(options.eviction, &index)?;
        let unverified = if clean && verified || Fault::RecoveredUnverified.is_on() {
            Unverified::default()
        } else {
            Unverified::all(slots)?
        };

        // A process that was killed may have left writes in the device's cache, on which what was found
        // rests: this makes them durable before anything else is written.
        if writes && !Fault::OpenNotMarked.is_on() {
            superblocks.mark(&device, SuperblockState::Open)?;
        }
        if writes && !clean && !Fault::RecoveryNotCheckpointed.is_on() {
            // Now this checkpoint speaks for everything that was found, and slots whose headers could
            // bring an old state back can be written again.
            let contents = Contents { index: &index, covered: next_sequence - 1, next_sequence };
            checkpoint::write(&device, &layout, &mut committed, contents, &device)?;
        }
        let log_blocks = layout.delete_log_len.get() / u64::from(layout.block_size.get());
        let live = index.live().map(|live| live.slot);
        let space = Space::new(slots, live, log_blocks, committed.number, next_sequence);
        let shared = Shared::new(device, layout, index, eviction, space, committed);
        shared.counters.failed_checks.add(damaged);
        let shared = Arc::new(shared);
        tracing::info!(
            device = shared.device.backend().device(),
            objects = shared.index.len(),
            slots,
            clean,
            "a store was opened"
        );
        let wants_thread = writes && options.checkpoint_thread;
        Ok(Self {
            checkpoints: wants_thread.then(|| CheckpointThread::start(&shared)).flatten(),
            shared,
            superblocks,
            verification: options.verification,
            unverified,
            scratch: ScratchPool::default(),
            _claim: claim,
        })
    }

    /// Makes durable every put and delete that was acknowledged before this call. Threads that wait for a
    /// flush at the same time share one flush of the device.
    ///
    /// # Errors
    /// [`Error::Device`]; after a failed flush every later change is refused until the store is opened
    /// again, because it is unknown what is durable.
    pub fn flush(&self) -> Result<(), Error> {
        self.shared.flush()
    }

    /// Writes a checkpoint now, beside whatever else is under way: it pauses for others as long as there are any, unless
    /// one of them waits for room.
    ///
    /// There is no need to call this: a thread takes checkpoints when slots run short. It does not make
    /// recovery faster either; it frees slots that wait for a checkpoint.
    ///
    /// # Errors
    /// [`Error::Device`]; the store goes on with the checkpoint before.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.shared.checkpoint()
    }

    /// Writes a checkpoint, makes everything durable and marks the store as clean, so that opening it
    /// again needs no recovery.
    ///
    /// # Errors
    /// [`Error::Device`]; the store is then recovered when it is opened again. Always, if it was opened for
    /// reading alone.
    pub fn close(mut self) -> Result<(), Error> {
        self.shared.check_process()?;
        self.checkpoints = None;
        self.shared.checkpoint()?;
        let unverified = self.unverified.is_left(|slot| self.shared.index.holds(slot));
        let verified = !unverified || Fault::UnverifiedForgotten.is_on();
        let state = SuperblockState::Clean { checkpoint: self.shared.committed(), verified };
        self.superblocks.mark(&self.shared.device, state)?;
        tracing::info!(device = self.shared.device.backend().device(), "a store was closed");
        Ok(())
    }

    /// Whether there is an object with this key, as far as the index knows: the object itself is not
    /// read.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.shared.index.find(&self.hash(key)).is_some()
    }

    /// The counters as they are now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        let Counters { puts, hits, misses, failed_checks, deletes, evictions, .. } = counters;
        let live_slots = self.shared.index.len();
        let checkpoint_latency = counters.checkpoint_latency.get();
        self.shared.space(|space| StoreStats {
            slots: self.shared.layout.slot_count.get(),
            live_slots,
            free_slots: space.free_slots(),
            waiting_slots: space.waiting_slots(),
            quarantined_slots: space.quarantined_slots(),
            pinned_slots: space.pinned_slots(),
            uncovered_changes: space.uncovered_sequences(),
            puts: puts.get(),
            hits: hits.get(),
            misses: misses.get(),
            failed_checks: failed_checks.get(),
            deletes: deletes.get(),
            evictions: evictions.get(),
            put_latency: counters.put_latency.get(),
            get_latency: counters.get_latency.get(),
            checkpoints: checkpoint_latency.count(),
            checkpoint_latency,
        })
    }

    /// The device below.
    #[must_use]
    pub fn device(&self) -> &Dispatcher {
        &self.shared.device
    }

    /// The largest payload that fits, in bytes, whatever the key.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        crate::format::max_payload(
            self.shared.layout.slot_size.get(),
            self.shared.layout.block_size.get(),
        )
    }

    /// Sees to it that the next change finds room.
    pub(crate) fn spare_the_next(&self) {
        if let Some(checkpoints) = &self.checkpoints
            && !self.shared.is_inherited()
            && self.shared.wants_checkpoint()
        {
            checkpoints.wake();
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        key_hash(&self.shared.layout.hash_key, key)
    }

    pub(crate) fn block_size(&self) -> usize {
        self.shared.layout.block_size.get() as usize
    }

    /// Where a slot begins, in bytes.
    pub(crate) fn slot_offset(&self, slot: u64) -> u64 {
        slot_offset(&self.shared.layout, slot)
    }

    /// Whether the payload of this object lies in the header block.
    pub(crate) fn is_inline(&self, entry: &ObjectEntry) -> bool {
        entry.is_inline(self.shared.layout.block_size.get())
    }

    pub(crate) fn records_per_log_block(&self) -> usize {
        records_per_block(self.shared.layout.block_size.get())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("device", &self.shared.device)
            .field("label", &self.shared.layout.label())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Refuses to overwrite what is on a device.
fn spare(device: &str, found: &Found, occupied: &[Signature]) -> Result<(), Error> {
    let device = device.to_owned();
    let which = match found {
        Found::Nothing => {
            return occupied.first().map_or(Ok(()), |&Signature { what, offset }| {
                Err(Error::Occupied { device, what, offset })
            });
        }
        Found::Unusable(reason) => {
            format!("which cannot be opened, because {reason}")
        }
        Found::Store(found) => format!("labelled {:?}", found.current().label()),
    };
    Err(Error::AlreadyAStore { device, which })
}

fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| {
            raw_block_core::Error::os("draw random bytes", std::io::Error::other(error))
        })
        .doing("format")?;
    Ok(bytes)
}
