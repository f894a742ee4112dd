//! The store that is tested, and the few places where its interface is its own.

use std::ops::Range;

use anyhow::Result;
use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::format::{SUPERBLOCK_CELL_LEN, Superblock};
pub(super) use raw_block_store::{
    Error, EvictionPolicy, Fault as Mutant, Get, OpenOptions, Pin, Put, Store, StoreStats,
    Verification,
};
use raw_block_store::{FormatOptions, take_checkpoints_in_single_blocks};

pub(super) const POLICIES: [EvictionPolicy; 4] =
    [EvictionPolicy::None, EvictionPolicy::None, EvictionPolicy::Lru, EvictionPolicy::S3Fifo];

/// Whether a power cut can tear an object that was evicted, so that it is back as damaged.
pub(super) const EVICTED_MAY_BE_TORN: bool = true;

/// How many of so many deleted blocks can be put again at least.
pub(super) fn reusable(deleted: u64, layout: &Layout, stats: &StoreStats) -> u64 {
    // Slots count, not blocks.
    let _ = (deleted, layout, stats);
    0
}

/// The shape of a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) block_size: u32,
    pub(super) segment_blocks: u32,
    pub(super) segments: u32,
}

/// What the suite needs to know of a store's layout.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    /// The largest payload that fits, in bytes.
    pub(super) largest_payload: usize,
    /// Where objects lie, in bytes.
    pub(super) segments: Range<u64>,
    /// Where checkpoints lie, in bytes, or objects if bad blocks among checkpoints do harm.
    pub(super) containers: Range<u64>,
    slots: u64,
}

/// Configures the store for the suite, for the whole process.
pub(super) fn set_up() {
    take_checkpoints_in_single_blocks();
}

impl Shape {
    /// The largest payload that the suite puts, in bytes.
    fn largest_payload(self) -> usize {
        let blocks = self.segment_blocks - 3 - self.segment_blocks / 9;
        (blocks * self.block_size) as usize
    }

    fn slots(self) -> u64 {
        u64::from(self.segments) * 2
    }

    /// A device of `spare` bytes more than this store needs, with the store.
    pub(super) fn format(
        self,
        logical_block: u32,
        spare: u64,
    ) -> Result<(SimulatedDevice, Layout)> {
        let largest = self.largest_payload();
        let slot = largest as u64 + 3 * u64::from(self.block_size);
        let capacity = (2 << 20) + self.slots() * slot;
        let device = SimulatedDevice::new(Geometry::new(capacity + spare, logical_block)?, 0)?;
        let options = FormatOptions {
            slot_count: Some(self.slots()),
            block_size: Some(self.block_size),
            ..FormatOptions::for_payloads(largest as u64)
        };
        Store::format(device.backend(), &options)?;
        let superblock = remove_chance(&device)?;
        let first = superblock.slots_offset.get();
        let len = superblock.slot_size.get() * superblock.slot_count.get();
        let objects = first..first + len;
        let layout = Layout {
            shape: self,
            largest_payload: largest,
            segments: objects.clone(),
            containers: objects,
            slots: self.slots(),
        };
        Ok((device, layout))
    }
}

/// Replaces the hash key, which is random and decides which keys collide.
fn remove_chance(device: &SimulatedDevice) -> Result<Superblock> {
    let mut cell = device.peek(0, SUPERBLOCK_CELL_LEN);
    let mut superblock = *Superblock::read(&cell)?;
    superblock.hash_key = [7; 16];
    superblock.encode(&mut cell)?;
    let last = superblock.last_superblock_offset.get();
    for offset in [0, SUPERBLOCK_CELL_LEN as u64, last] {
        device.poke(offset, &cell);
    }
    Ok(superblock)
}

/// How a store is opened in one incarnation.
pub(super) fn open_options(
    eviction: EvictionPolicy,
    verification: Verification,
    random: &mut fastrand::Rng,
) -> OpenOptions {
    let _ = random;
    OpenOptions {
        eviction,
        verification,
        // A background thread would do something else every time.
        checkpoint_thread: false,
        ..OpenOptions::default()
    }
}

/// How much a store may hold when it reports that it is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Objects that may be live, and those that are being put.
    pub(super) objects: usize,
    /// Blocks of payload that these have.
    pub(super) blocks: usize,
    /// Blocks of the largest of them.
    pub(super) largest: usize,
    pub(super) pins: usize,
}

impl Layout {
    /// Whether a store without eviction may be full.
    pub(super) fn may_be_full(&self, load: Load) -> bool {
        load.objects + load.pins + 24 >= usize::try_from(self.slots).unwrap_or(usize::MAX)
    }
}

/// Checks that the counters agree with each other, while nothing is in flight. Returns the number of live
/// objects.
pub(super) fn live_objects(stats: &StoreStats) -> Result<u64> {
    let waiting = stats.waiting_slots + stats.quarantined_slots;
    if stats.live_slots + stats.free_slots + waiting != stats.slots {
        anyhow::bail!("free, live, waiting and quarantined slots are not all: {stats:?}");
    }
    Ok(stats.live_slots)
}

/// Puts those objects of a batch whose keys are absent. Each result says whether the object was put.
pub(super) fn put_absent(store: &Store, puts: &[Put<'_>]) -> Option<Vec<Result<bool, Error>>> {
    let _ = (store, puts);
    None
}

/// Deletes everything; `None` if the store cannot do that.
pub(super) fn clear(store: &Store) -> Option<Result<(), Error>> {
    let _ = store;
    None
}

/// Whether there was no space for a put.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Full { .. })
}

pub(super) fn mutants() -> &'static [Mutant] {
    &Mutant::ALL
}
