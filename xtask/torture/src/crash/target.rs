//! The store that is tested, and the few places where its interface is its own.

use std::ops::{ControlFlow, Range};

use anyhow::{Result, ensure};
use raw_block_core::Geometry;
use raw_block_core::simulated::{SimulatedDevice, SimulatedOptions};
use raw_block_store::format::{Layout as Planned, LayoutRequest};
use raw_block_store::{BatchResult, FormatOptions};
pub(super) use raw_block_store::{
    Error, EvictionPolicy, Get, Mutant, OpenOptions, Pin, Put, Store, StoreStats, Verification,
};

pub(super) const POLICIES: [EvictionPolicy; 6] = [
    EvictionPolicy::None,
    EvictionPolicy::None,
    EvictionPolicy::None,
    EvictionPolicy::Lru,
    EvictionPolicy::S3Fifo,
    EvictionPolicy::Fifo,
];

/// Whether a power cut can tear an object that was evicted, so that it is back as damaged.
pub(super) const EVICTED_MAY_BE_TORN: bool = false;

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
    /// Where segments lie, in bytes.
    pub(super) segments: Range<u64>,
    /// Where checkpoints lie, in bytes.
    pub(super) containers: Range<u64>,
    /// Where each container of a checkpoint begins.
    pub(super) container_offset: [u64; 3],
}

/// Configures the store for the suite, for the whole process.
pub(super) fn set_up() {
    raw_block_store::simulate();
}

impl Shape {
    /// A device of `spare` bytes more than this store needs, with the store.
    pub(super) fn format(
        self,
        logical_block: u32,
        spare: u64,
    ) -> Result<(SimulatedDevice, Layout)> {
        let segment_size = u64::from(self.segment_blocks) * u64::from(self.block_size);
        let plan = |capacity| {
            let request = LayoutRequest {
                capacity,
                block_size: self.block_size,
                segment_size: Some(segment_size),
                largest_object: None,
            };
            Planned::plan(&request).ok().filter(|plan| plan.segment_count >= self.segments)
        };
        let mut capacity = segment_size * u64::from(self.segments);
        let plan = loop {
            match plan(capacity) {
                Some(plan) => break plan,
                None => capacity += u64::from(logical_block.max(self.block_size)),
            }
        };
        let mut geometry = Geometry::new(capacity + spare, logical_block)?;
        geometry.discard = true;
        let options = SimulatedOptions::new().torn_blocks(true);
        let device = SimulatedDevice::with_options(geometry, options)?;
        let options =
            FormatOptions::default().segment_size(segment_size).block_size(self.block_size);
        Store::format(device.backend(), &options)?;
        let container_offset = plan.container_offset;
        let containers = container_offset[0];
        let layout = Layout {
            shape: self,
            largest_payload: usize::try_from(plan.largest_payload())?,
            segments: plan.segments_offset
                ..plan.segments_offset + segment_size * u64::from(plan.segment_count),
            containers: containers..containers + 3 * plan.container_len,
            container_offset,
        };
        ensure!(plan.segment_count == self.segments, "a store of {self:?} has other segments");
        Ok((device, layout))
    }
}

/// How a store is opened in one incarnation.
pub(super) fn open_options(
    eviction: EvictionPolicy,
    verification: Verification,
    random: &mut fastrand::Rng,
) -> OpenOptions {
    OpenOptions::default()
        .eviction(eviction)
        .kept_percent([50, 0, 25, OpenOptions::MAX_KEPT_PERCENT][random.usize(..4)])
        .verification(verification)
        // A background thread would do something else every time.
        .background(false)
        .discard(random.u8(..4) == 0)
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
    /// Where some blocks of a segment lie, in bytes.
    pub(super) fn blocks_of_segment(&self, segment: u32, blocks: Range<u32>) -> Range<u64> {
        let Shape { block_size, segment_blocks, .. } = self.shape;
        let at = |block: u32| {
            let block = u64::from(segment) * u64::from(segment_blocks) + u64::from(block);
            self.segments.start + block * u64::from(block_size)
        };
        at(blocks.start)..at(blocks.end)
    }

    /// Where the header of a checkpoint lies, or its body, in bytes.
    pub(super) fn blocks_of_container(&self, container: usize, header: bool) -> Range<u64> {
        let start = self.container_offset[container];
        let body = start + u64::from(self.shape.block_size);
        if header {
            return start..body;
        }
        body..self.container_offset.get(container + 1).copied().unwrap_or(self.containers.end)
    }

    /// Whether a store without eviction may be full: if what is live may take more than the segments hold that are not
    /// reserved, open for other streams or pinned. Of each segment as much as the largest object may be unused, and a
    /// 16th not worth a move.
    pub(super) fn may_be_full(&self, load: Load) -> bool {
        let Shape { segment_blocks, segments, .. } = self.shape;
        let [segment_blocks, segments] = [segment_blocks, segments].map(|count| count as usize);
        let usable = segments.saturating_sub(6 + load.pins);
        let table = segment_blocks / 9 + 1;
        let filled = segment_blocks.saturating_sub(1 + table + load.largest + 1);
        let needed = load.blocks + 2 * load.objects;
        needed >= usable * filled * 15 / 16
    }
}

/// How many of so many deleted blocks can be put again at least.
pub(super) fn reusable(deleted: u64, layout: &Layout, stats: &StoreStats) -> u64 {
    let blocks = u64::from(layout.shape.segments * layout.shape.segment_blocks);
    // A little may lie where nothing fits.
    if stats.bad_segments > 0 || deleted < blocks / 8 { 0 } else { deleted.min(blocks / 4) / 2 }
}

/// Checks that the counters agree with each other, while nothing is in flight. Returns the number of live
/// objects.
pub(super) fn live_objects(stats: &StoreStats) -> Result<u64> {
    let by_state =
        stats.free_segments + stats.open_segments + stats.full_segments + stats.draining_segments;
    ensure!(
        (by_state..=by_state + stats.bad_segments).contains(&stats.segments),
        "free, open, full, draining and bad segments are not all: {stats:?}"
    );
    Ok(stats.objects)
}

/// Puts those objects of a batch whose keys are absent. Each result says whether the object was put.
pub(super) fn put_absent(store: &Store, puts: &[Put<'_>]) -> Option<BatchResult<bool>> {
    Some(store.put_many_if_absent(puts))
}

/// Does a step of what the background thread does.
pub(super) fn work(store: &Store) -> Result<bool, Error> {
    store.work()
}

/// Deletes everything; `None` if the store cannot do that.
pub(super) fn clear(store: &Store) -> Option<Result<(), Error>> {
    Some(store.clear())
}

/// The keys of all objects; `None` if the store cannot list them.
pub(super) fn list(store: &Store) -> Option<Result<Vec<Vec<u8>>, Error>> {
    let mut keys = Vec::new();
    let listed = store.list(|object| {
        keys.push(object.key.to_vec());
        ControlFlow::Continue(())
    });
    Some(listed.map(|()| keys))
}

/// Verifies everything. Returns what is damaged or cannot be read, as text; `None` if the store cannot do that.
pub(super) fn scrub(store: &Store) -> Option<Result<Vec<String>, Error>> {
    let scrubbed = store.scrub(|_| ControlFlow::Continue(()));
    Some(scrubbed.map(|report| report.findings.iter().map(ToString::to_string).collect()))
}

/// Whether an opening was refused because a checkpoint is lost.
pub(super) fn is_loss(error: &Error) -> bool {
    matches!(error, Error::CheckpointLost { .. } | Error::Damaged { .. })
}

/// Whether there was no space for a put.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::OutOfSpace { .. })
}

pub(super) fn mutants() -> &'static [Mutant] {
    Mutant::ALL
}
