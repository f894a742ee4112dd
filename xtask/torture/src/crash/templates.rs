//! Device templates with stores, from which scenarios begin.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail, ensure};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};

use super::focus::{Fill, Focus};
use super::objects::{self, Lengths, Sizes};
use super::target::{self, EvictionPolicy, Layout, Put, Shape, Store, Verification};

/// Shapes of the stores, and logical blocks of their devices. Small ones fill up soon; the last one
/// has several blocks in each structure.
const SHAPES: [(u32, u32, u32, u32); 7] = [
    // block, segment's blocks, segments, logical block
    (512, 16, 8, 512),
    (512, 16, 12, 512),
    (512, 32, 8, 512),
    (512, 64, 9, 512),
    (4096, 16, 8, 512),
    (4096, 16, 10, 4096),
    (512, 16, 20, 512),
];

/// The shapes with the smallest segments.
const SMALL: [usize; 3] = [0, 1, 6];

/// A closed store, and its objects.
pub(super) struct Template {
    device: SimulatedDevice,
    pub(super) layout: Layout,
    /// The object under each key.
    pub(super) objects: Vec<Option<Lengths>>,
}

/// One template of each kind.
pub(super) struct Templates {
    all: Vec<Template>,
    /// Whether a killed process leaves writes in flight while the next one uses the device, as
    /// without a lock that is held until they have completed.
    pub(super) leave_writes: AtomicBool,
}

impl Templates {
    pub(super) fn new() -> Result<Self> {
        let mut templates = Vec::new();
        for (block_size, segment_blocks, segments, logical_block) in SHAPES {
            let shape = Shape { block_size, segment_blocks, segments };
            // The last superblock need not end at the end of the device.
            let spare = u64::from(segments % 4 * logical_block);
            let (device, layout) = shape.format(logical_block, spare)?;
            // The counters begin at zero.
            let empty = Template { device: device.power_on(), layout, objects: Vec::new() };
            let seed = u64::from(block_size + segment_blocks + segments);
            let half = empty.filled(seed, false)?;
            let full = empty.filled(seed, true)?;
            let quarantined = full.quarantined(seed)?;
            templates.extend([half, full, empty, quarantined]);
        }
        Ok(Self { all: templates, leave_writes: AtomicBool::new(false) })
    }

    /// Draws a template, and makes its device for one scenario.
    pub(super) fn draw(
        &self,
        focus: Focus,
        random: &mut fastrand::Rng,
    ) -> (&Template, SimulatedDevice) {
        let shapes = match focus {
            Focus::Filling | Focus::Refilling => &SMALL[..2],
            Focus::Tables | Focus::Readers | Focus::BitRot | Focus::Moves => &SMALL[..],
            Focus::Retries | Focus::Slow if random.bool() => &[2, 3],
            _ => &[0, 1, 2, 3, 4, 5, 6],
        };
        let shape = shapes[random.usize(..shapes.len())];
        let kind = match focus.fill(random) {
            Fill::Half => 0,
            Fill::Full => 1,
            Fill::Empty => 2,
            Fill::Quarantined => 3,
        };
        let template = &self.all[4 * shape + kind];
        (template, template.device.fork(random.u64(..)))
    }
}

impl Template {
    /// Returns a copy with objects: until the store is full or half full, with some of them
    /// replaced and deleted.
    fn filled(&self, seed: u64, full: bool) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let device = self.device.fork(seed);
        let options = target::open_options(EvictionPolicy::None, Verification::Full, &mut random);
        let store = Store::open_with(device.backend(), &options)?;
        let shape = self.layout.shape;
        let sizes = Sizes::all(shape.block_size, self.layout.largest_payload);
        let mut objects = Vec::new();
        while let Some(lengths) = put(&store, objects.len(), sizes.lengths(&mut random))? {
            objects.push(Some(lengths));
        }
        let count = objects.len();
        for _ in 0..count / 2 {
            let key = random.usize(..count);
            store.delete_many(&[&objects::name(key)]).into_iter().collect::<Result<Vec<_>, _>>()?;
            objects[key] = None;
            if full || random.bool() {
                let lengths = sizes.lengths(&mut random);
                objects[key] = put(&store, key, lengths)?;
            }
        }
        store.close()?;
        Ok(Self { device: device.power_on(), layout: self.layout.clone(), objects })
    }
}

impl Template {
    /// Returns a copy in which quarantined segments take the reserve: writes of tombstones may
    /// still land, until no segment is free.
    fn quarantined(&self, seed: u64) -> Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let device = self.device.fork(seed);
        let options = target::open_options(EvictionPolicy::None, Verification::Full, &mut random);
        let store = Store::open_with(device.backend(), &options)?;
        let absent = objects::name(self.objects.len());
        while store.stats().free_segments > 0 {
            let bad = store.stats().bad_segments;
            let late = DeviceFault::late_write(u64::MAX).within(self.layout.segments.clone());
            device.inject(late);
            drop(store.delete_many(&[&absent]));
            device.clear_faults();
            store.checkpoint()?;
            ensure!(store.stats().bad_segments > bad, "no segment is quarantined");
        }
        store.close()?;
        let (layout, objects) = (self.layout.clone(), self.objects.clone());
        Ok(Self { device: device.power_on(), layout, objects })
    }
}

/// Puts an object of a template, whose number is its key. Returns `None` if the store is full.
fn put(store: &Store, key: usize, lengths: Lengths) -> Result<Option<Lengths>> {
    let name = objects::name(key);
    let payload = objects::payload(key as u64, lengths.payload);
    let metadata = objects::metadata(key as u64, lengths.metadata);
    let object = Put::new(&name, &payload).with_metadata(&metadata);
    match store.put_many(&[object]).into_iter().next() {
        Some(Ok(())) => Ok(Some(lengths)),
        Some(Err(error)) if target::is_full(&error) => Ok(None),
        other => bail!("a put into a new store: {other:?}"),
    }
}
