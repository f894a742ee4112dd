//! The store under test, and the few places that depend on its interface.

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

/// Whether a power cut can tear an evicted object, so that it reappears as damaged.
pub(super) const EVICTED_MAY_BE_TORN: bool = false;

/// The shape of a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) block_size: u32,
    pub(super) segment_blocks: u32,
    pub(super) segments: u32,
}

/// The layout of a store, as far as the suite needs it.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    /// The largest payload that fits, in bytes.
    pub(super) largest_payload: usize,
    /// Byte range of the segments.
    pub(super) segments: Range<u64>,
    /// Byte range of the checkpoints.
    pub(super) containers: Range<u64>,
    /// Byte offset of each checkpoint container.
    pub(super) container_offset: [u64; 3],
}

/// Configures the store for the suite, for the whole process.
pub(super) fn set_up() {
    raw_block_store::simulate();
}

impl Shape {
    /// Formats a store on a device that has `spare` bytes more than the store needs.
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
        ensure!(
            plan.segment_count == self.segments,
            "a store of {self:?} has another number of segments"
        );
        Ok((device, layout))
    }
}

/// Draws how a store is opened in one incarnation.
pub(super) fn open_options(
    eviction: EvictionPolicy,
    verification: Verification,
    random: &mut fastrand::Rng,
) -> OpenOptions {
    OpenOptions::default()
        .eviction(eviction)
        .kept_percent([50, 0, 25, OpenOptions::MAX_KEPT_PERCENT][random.usize(..4)])
        .verification(verification)
        // A background thread would not be deterministic.
        .background(false)
        .discard(random.u8(..4) == 0)
}

/// The load of a store that reports that it is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Objects that may be live, and puts in flight.
    pub(super) objects: usize,
    /// Blocks of payload that these have.
    pub(super) blocks: usize,
    /// Blocks of the largest of them.
    pub(super) largest: usize,
    pub(super) pins: usize,
}

impl Layout {
    /// Byte range of some blocks of a segment.
    pub(super) fn blocks_of_segment(&self, segment: u32, blocks: Range<u32>) -> Range<u64> {
        let Shape { block_size, segment_blocks, .. } = self.shape;
        let at = |block: u32| {
            let block = u64::from(segment) * u64::from(segment_blocks) + u64::from(block);
            self.segments.start + block * u64::from(block_size)
        };
        at(blocks.start)..at(blocks.end)
    }

    /// Byte range of the header or the body of a checkpoint.
    pub(super) fn blocks_of_container(&self, container: usize, header: bool) -> Range<u64> {
        let start = self.container_offset[container];
        let body = start + u64::from(self.shape.block_size);
        if header {
            return start..body;
        }
        body..self.container_offset.get(container + 1).copied().unwrap_or(self.containers.end)
    }

    /// Whether a store without eviction may be full: whether the live objects may take more than
    /// the segments hold that are not reserved, open for other streams or pinned. In each segment
    /// as much as the largest object may be unused, and a 16th is not worth a move.
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

/// How many of `deleted` blocks can be put again, at least.
pub(super) fn reusable(deleted: u64, layout: &Layout, stats: &StoreStats) -> u64 {
    let blocks = u64::from(layout.shape.segments * layout.shape.segment_blocks);
    // Some of the space may be where no object fits.
    if stats.bad_segments > 0 || deleted < blocks / 8 { 0 } else { deleted.min(blocks / 4) / 2 }
}

/// Checks that the counters agree with each other, while nothing is in flight. Returns the number
/// of live objects.
pub(super) fn live_objects(stats: &StoreStats) -> Result<u64> {
    let by_state =
        stats.free_segments + stats.open_segments + stats.full_segments + stats.draining_segments;
    ensure!(
        (by_state..=by_state + stats.bad_segments).contains(&stats.segments),
        "free, open, full, draining and bad segments do not add up: {stats:?}"
    );
    Ok(stats.objects)
}

/// Puts the objects of a batch whose keys are absent. Each result is whether the object was put.
pub(super) fn put_absent(store: &Store, puts: &[Put<'_>]) -> Option<BatchResult<bool>> {
    Some(store.put_many_if_absent(puts))
}

/// Executes one step of the background thread.
pub(super) fn work(store: &Store) -> Result<bool, Error> {
    store.work()
}

/// Deletes all objects. Returns `None` if the store cannot do that.
pub(super) fn clear(store: &Store) -> Option<Result<(), Error>> {
    Some(store.clear())
}

/// Returns the keys of all objects, or `None` if the store cannot list them.
pub(super) fn list(store: &Store) -> Option<Result<Vec<Vec<u8>>, Error>> {
    let mut keys = Vec::new();
    let listed = store.list(|object| {
        keys.push(object.key.to_vec());
        ControlFlow::Continue(())
    });
    Some(listed.map(|()| keys))
}

/// Verifies all objects. Returns the findings as text, or `None` if the store cannot do that.
pub(super) fn scrub(store: &Store) -> Option<Result<Vec<String>, Error>> {
    let scrubbed = store.scrub(|_| ControlFlow::Continue(()));
    Some(scrubbed.map(|report| report.findings.iter().map(ToString::to_string).collect()))
}

/// Whether an opening failed because a checkpoint is lost.
pub(super) fn is_loss(error: &Error) -> bool {
    matches!(error, Error::CheckpointLost { .. } | Error::Damaged { .. })
}

/// Whether the checkpoint of a delete without a tombstone failed, or the superblock that names it.
/// The objects are gone all the same.
pub(super) fn is_of_checkpoint(error: &Error) -> bool {
    matches!(error, Error::Device { context: "write a checkpoint", .. }) || is_of_superblock(error)
}

/// Whether the superblock was not written. The objects of a clear are gone all the same.
pub(super) fn is_of_superblock(error: &Error) -> bool {
    matches!(error, Error::Device { context: "write the superblock", .. })
}

/// Whether there was no space for a put.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::OutOfSpace { .. })
}

pub(super) fn mutants() -> &'static [Mutant] {
    Mutant::ALL
}
