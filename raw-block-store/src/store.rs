//! The store: formatting, opening, closing, and what its calls share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use raw_block_core::{Dispatcher, IoBackend};

use crate::checkpoint::{self, Committed};
use crate::claim::Claim;
use crate::error::Doing;
use crate::format::{ObjectEntry, Superblock, SuperblockState, records_per_block};
use crate::hash::key_hash;
use crate::index::{Index, KeyHash};
use crate::layout::slot_offset;
use crate::recovery::{self, Recovered};
use crate::scratch::ScratchPool;
use crate::space::Space;
use crate::stats::{Counters, StoreStats};
use crate::superblocks::{Found, Superblocks};
use crate::{Error, FormatOptions};

/// Keyed objects on one device.
///
/// All calls take `&self` and may come from several threads. Calls on batches are the primitive: a batch
/// that fits the queue of the device (128 transfers) is one submission; [`put`](Store::put) and
/// [`get`](Store::get) are batches of one.
///
/// What was put is durable after [`flush`](Store::flush). A store that is dropped without
/// [`close`](Store::close) is recovered when it is opened again, as after a power cut.
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
    pub(crate) device: Dispatcher,
    /// Where everything lies. Its state and generation are those of when the store was opened.
    pub(crate) layout: Superblock,
    superblocks: Mutex<Superblocks>,
    pub(crate) index: RwLock<Index>,
    space: Mutex<Space>,
    /// The committed checkpoint. Held shared by puts and deletes, alone while a checkpoint is taken, so
    /// that it speaks for every sequence given out.
    committed: RwLock<Committed>,
    /// Held shared by gets, alone while slots become free.
    reading: RwLock<()>,
    pub(crate) scratch: ScratchPool,
    pub(crate) counters: Counters,
    _claim: Claim,
}

impl Store {
    /// Makes an empty store on a device, whose contents are lost.
    ///
    /// # Errors
    /// - [`Error::AlreadyAStore`] when there is one, also one that cannot be opened, unless
    ///   `options.force` is set.
    /// - [`Error::Unsuitable`] when the device is too small, its blocks are too large, or the options
    ///   are impossible.
    /// - [`Error::Busy`] when a store on this backend is open.
    /// - [`Error::Device`] when the device fails.
    pub fn format(backend: Arc<dyn IoBackend>, options: &FormatOptions) -> Result<(), Error> {
        let _claim = Claim::take(&backend)?;
        let name = backend.device().to_owned();
        let device = Dispatcher::new(backend).doing("format")?;
        let mut superblock = options.lay_out(device.geometry(), &name)?;
        let which = match Superblocks::find(&device)? {
            Found::Nothing => None,
            Found::Unusable(reason) => Some(format!("which cannot be opened, because {reason}")),
            Found::Store(found) if options.force => {
                found.erase(&device)?;
                None
            }
            Found::Store(found) => Some(format!("labelled {:?}", found.current().label())),
        };
        if let Some(which) = which.filter(|_| !options.force) {
            return Err(Error::AlreadyAStore { device: name, which });
        }
        superblock.preamble.uuid = random()?;
        superblock.hash_key = random()?;
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        superblock.created_unix_ns = u64::try_from(age.as_nanos()).unwrap_or(0).into();

        let mut superblocks = Superblocks::new(superblock);
        superblocks.erase(&device)?;
        let mut committed = Committed { number: 0, container: 1, last_number: 0 };
        let index = Index::new(superblock.slot_count.get())?;
        checkpoint::write(&device, &superblock, &mut committed, index.entries(), 1)?;
        superblocks.mark(&device, SuperblockState::Clean { checkpoint: committed.number })
    }

    /// Opens the store on a device. One that was not closed in order is recovered first, which reads
    /// the header of every slot.
    ///
    /// Nothing is written before everything was checked; then the store is durably marked as open.
    ///
    /// # Errors
    /// - [`Error::NotAStore`] when there is none, or none that this software and this device can
    ///   handle.
    /// - [`Error::Busy`] when a store on this backend is open already.
    /// - [`Error::Damaged`] when its newest checkpoint cannot be believed.
    /// - [`Error::OutOfMemory`] when there is no memory for the index.
    /// - [`Error::Device`] when the device fails.
    pub fn open(backend: Arc<dyn IoBackend>) -> Result<Self, Error> {
        let claim = Claim::take(&backend)?;
        let name = backend.device().to_owned();
        let device = Dispatcher::new(backend).doing("open the store")?;
        // A process that was killed may have left writes in the device's cache: trust only what is
        // durable.
        device.flush().doing("open the store")?;
        let mut superblocks = match Superblocks::find(&device)? {
            Found::Store(found) => found,
            Found::Unusable(reason) => return Err(Error::NotAStore { device: name, reason }),
            Found::Nothing => {
                let reason = "there is no superblock; format the device to make a store".into();
                return Err(Error::NotAStore { device: name, reason });
            }
        };
        let layout = *superblocks.current();
        let clean = superblocks.clean_checkpoint();
        let recovered = match clean {
            Some(checkpoint) => recovery::load(&device, &layout, checkpoint)?,
            None => recovery::recover(&device, &layout)?,
        };
        let Recovered { index, mut committed, next_sequence } = recovered;

        superblocks.mark(&device, SuperblockState::Open)?;
        if clean.is_none() {
            // Now this checkpoint speaks for everything that was found, and slots whose headers could
            // bring an old state back can be written again.
            checkpoint::write(&device, &layout, &mut committed, index.entries(), next_sequence)?;
        }
        let live = (0..).zip(index.entries()).filter(|(_, entry)| entry.is_live());
        let space = Space::new(
            layout.slot_count.get(),
            live.map(|(slot, _)| slot),
            next_sequence,
            layout.delete_log_len.get() / u64::from(layout.block_size.get()),
        );
        Ok(Self {
            device,
            layout,
            superblocks: Mutex::new(*superblocks),
            index: RwLock::new(index),
            space: Mutex::new(space),
            committed: RwLock::new(committed),
            reading: RwLock::new(()),
            scratch: ScratchPool::default(),
            counters: Counters::default(),
            _claim: claim,
        })
    }

    /// Makes durable every put and delete that was acknowledged before this call.
    ///
    /// # Errors
    /// [`Error::Device`]; after a failed flush every later change is refused until the store is opened
    /// again, because it is unknown what is durable.
    pub fn flush(&self) -> Result<(), Error> {
        self.device.flush().doing("flush the store")
    }

    /// Writes a checkpoint, makes everything durable and marks the store as clean, so that opening it
    /// again needs no recovery.
    ///
    /// # Errors
    /// [`Error::Device`]; the store is then recovered when it is opened again.
    pub fn close(self) -> Result<(), Error> {
        self.checkpoint_unless(|_| Ok(false))?;
        let number = self.committed.into_inner().unwrap_or_else(PoisonError::into_inner).number;
        let mut superblocks = self.superblocks.into_inner().unwrap_or_else(PoisonError::into_inner);
        superblocks.mark(&self.device, SuperblockState::Clean { checkpoint: number })
    }

    /// Whether there is an object with this key, as far as the index knows: the object itself is not
    /// read.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.index().get(&self.hash(key)).is_some()
    }

    /// The counters as they are now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let live_slots = self.index().len() as u64;
        let space = self.space();
        StoreStats {
            slots: self.layout.slot_count.get(),
            live_slots,
            free_slots: space.free_slots(),
            waiting_slots: space.waiting_slots(),
            puts: self.counters.puts.get(),
            hits: self.counters.hits.get(),
            misses: self.counters.misses.get(),
            failed_checks: self.counters.failed_checks.get(),
            deletes: self.counters.deletes.get(),
            checkpoints: self.counters.checkpoints.get(),
        }
    }

    /// The device below.
    #[must_use]
    pub fn device(&self) -> &Dispatcher {
        &self.device
    }

    /// The largest payload that fits, in bytes, whatever the key.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        crate::format::max_payload(self.layout.slot_size.get(), self.layout.block_size.get())
    }

    /// Writes a checkpoint, which frees the slots and log blocks that wait for one, unless `enough` finds
    /// that none is needed. Waits for the puts and deletes under way, and lets none begin.
    pub(crate) fn checkpoint_unless(
        &self,
        enough: impl FnOnce(&Space) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut committed = self.committed.write().unwrap_or_else(PoisonError::into_inner);
        let next_sequence = {
            let space = self.space();
            if enough(&space)? {
                return Ok(());
            }
            space.next_sequence()
        };
        {
            let index = self.index();
            let entries = index.entries();
            checkpoint::write(&self.device, &self.layout, &mut committed, entries, next_sequence)?;
        }
        self.index_mut().forget_deletions();
        // Gets that began before may still read slots that are to become free.
        let _no_gets = self.reading.write().unwrap_or_else(PoisonError::into_inner);
        self.space().release();
        self.counters.checkpoints.add(1);
        Ok(())
    }

    /// Keeps checkpoints from being taken: held while slots or the log are written, until the index shows
    /// it.
    pub(crate) fn changing(&self) -> RwLockReadGuard<'_, Committed> {
        self.committed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps slots from becoming free: held from when the index was asked until the slots were read.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        key_hash(&self.layout.hash_key, key)
    }

    pub(crate) fn block_size(&self) -> usize {
        self.layout.block_size.get() as usize
    }

    /// Where a slot begins, in bytes.
    pub(crate) fn slot_offset(&self, slot: u64) -> u64 {
        slot_offset(&self.layout, slot)
    }

    /// Whether the payload of this object lies in the header block.
    pub(crate) fn is_inline(&self, entry: &ObjectEntry) -> bool {
        entry.is_inline(self.layout.block_size.get())
    }

    pub(crate) fn records_per_log_block(&self) -> usize {
        records_per_block(self.layout.block_size.get())
    }

    pub(crate) fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("device", &self.device)
            .field("label", &self.layout.label())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
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
