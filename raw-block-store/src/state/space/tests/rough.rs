//! What can go wrong at once: power cuts, failed writes and checkpoints, pins, several threads.
//! Nothing gets stuck.

use super::simulation::Simulation;
use super::tasks::Task;
use super::*;

/// A store that is filled, churned while things go wrong, half emptied in peace, and filled again.
fn rough(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut one_of = |choices: &[u32]| choices[rng.usize(..choices.len())];
    let is_small = one_of(&[0, 0, 1, 1, 1]) == 1;
    let segments = one_of(if is_small { &[8, 9, 10] } else { &[8, 10, 12, 16, 16, 32, 64] });
    let blocks = one_of(&[16, 16, 32, 64]);
    let evicts = !is_small && one_of(&[0, 0, 0, 1, 1]) == 1;
    let policy = if evicts {
        [EvictionPolicy::Lru, EvictionPolicy::S3Fifo][one_of(&[0, 1]) as usize]
    } else {
        EvictionPolicy::None
    };
    let many = one_of(&[0, 1]) == 1;
    let sharing = if many { one_of(&[2, 3, 36]) } else { 1 };
    let mut store = Simulation::new(seed, (segments, blocks), policy, sharing);
    store.kept_blocks = one_of(&[0, blocks / 4]);
    let big = one_of(&[1, 2, 2, 4, blocks / 8, blocks / 4, blocks / 3]);
    let is_one_size = one_of(&[0, 1]) == 1;
    let batch = if many { one_of(&[2, 8, 32]) } else { 1 };
    let traits = Traits { big, is_one_size, batch };
    let mut keys = 0;
    for _ in 0..4 * segments * blocks {
        let batch = traits.batch(&mut rng, &mut keys, 100);
        if !store.put(&batch) {
            break;
        }
    }
    churn(&mut store, &mut rng, &traits, &mut keys, is_small);
    peace(&mut store, &mut rng, &traits, &mut keys);
}

struct Traits {
    big: u32,
    is_one_size: bool,
    batch: u32,
}

impl Traits {
    fn size(&self, rng: &mut fastrand::Rng) -> u32 {
        if self.is_one_size { self.big } else { rng.u32(1..=self.big) }
    }

    /// Different keys; `new` percent of them are new.
    fn batch(&self, rng: &mut fastrand::Rng, keys: &mut u64, new: u32) -> Vec<(u64, u32)> {
        let mut batch: Vec<(u64, u32)> = Vec::new();
        for _ in 0..rng.u32(1..=self.batch) {
            let key = if rng.u32(..100) < new {
                *keys += 1;
                *keys
            } else {
                rng.u64(..=*keys)
            };
            if batch.iter().all(|&(other, _)| other != key) {
                batch.push((key, self.size(rng)));
            }
        }
        batch
    }
}

fn churn(
    store: &mut Simulation,
    rng: &mut fastrand::Rng,
    traits: &Traits,
    keys: &mut u64,
    is_small: bool,
) {
    let pick = |rng: &mut fastrand::Rng, choices: &[f64]| choices[rng.usize(..choices.len())];
    let cuts = pick(rng, if is_small { &[0.05, 0.3] } else { &[0.0, 0.01, 0.05, 0.3] });
    let checkpoints = pick(rng, &[0.0, 0.02, 0.1]);
    let bad = pick(rng, &[0.0, 0.0, 0.01, 0.1]);
    let pins = pick(rng, &[0.0, 0.0, 0.03, 0.2]);
    let width = rng.choice([1, 2, 4]).unwrap();
    let chance = pick(rng, &[0.0, 0.4, 0.8, 1.0]);
    let (deletes, new) = (pick(rng, &[0.1, 0.3, 0.5]), rng.choice([10, 60]).unwrap());
    let mut read_segments = Vec::new();
    for _ in 0..rng.choice([200, 400]).unwrap() {
        store.fails = if rng.bool() { bad } else { 0.0 };
        if store.tasks.len() < width && rng.bool() {
            let task = if rng.f64() < deletes {
                Task::delete(rng.u64(..=*keys))
            } else {
                Task::put(store, &traits.batch(rng, keys, new))
            };
            store.tasks.push(task);
        }
        for _ in 0..rng.choice([1, 1, 3, 20]).unwrap() {
            if !store.tasks.is_empty() {
                store.step(rng.usize(..store.tasks.len()));
            }
        }
        if let Some(version) = store.index.get_mut(&rng.u64(..=*keys)) {
            version.used = true;
        }
        if rng.f64() < checkpoints && store.tasks.len() < 8 {
            store.tasks.push(Task::checkpoint());
        }
        let is_busy = store.reclaiming || store.checkpointing;
        if rng.f64() < if is_busy { cuts } else { cuts / 20.0 } {
            store.crash(chance);
        }
        pin_and_unpin(store, rng, pins, *keys);
        read(store, rng, pins, *keys, &mut read_segments);
    }
    read_segments.drain(..).for_each(|read| leave(store, &read));
    store.check();
}

/// Begins and ends gets, and does not wait for those that take long.
fn read(
    store: &mut Simulation,
    rng: &mut fastrand::Rng,
    often: f64,
    keys: u64,
    read_segments: &mut Vec<(Arc<Readers>, u32)>,
) {
    if rng.f64() >= often {
        return;
    }
    let readers = Arc::clone(store.space.readers());
    if let Some(version) = store.index.get(&rng.u64(..=keys)) {
        let segment = version.object.place.segment;
        if readers.enter(segment, readers.begin()).is_ok() {
            read_segments.push((readers, segment));
        }
    }
    if rng.bool() {
        store.space.stop_waiting_for_gets();
    }
    if rng.bool() && !read_segments.is_empty() {
        leave(store, &read_segments.swap_remove(rng.usize(..read_segments.len())));
    }
}

/// Ends a get, which may have begun before a power cut.
fn leave(store: &mut Simulation, (readers, segment): &(Arc<Readers>, u32)) {
    if readers.leave(*segment) {
        free(&mut store.space);
    }
}

fn pin_and_unpin(store: &mut Simulation, rng: &mut fastrand::Rng, pins: f64, keys: u64) {
    if rng.f64() < pins
        && store.pins.len() < 2 * store.space.segments.len()
        && let Some(version) = store.index.get(&rng.u64(..=keys))
    {
        let pin = store.space.pin(&version.object);
        store.pins.push(pin);
    }
    if rng.f64() < pins / 8.0 && !store.pins.is_empty() {
        let pin = store.pins.swap_remove(rng.usize(..store.pins.len()));
        store.space.unpin(pin);
        free(&mut store.space);
    }
}

/// Everything comes to its end, and then what is deleted can be put again.
fn peace(store: &mut Simulation, rng: &mut fastrand::Rng, traits: &Traits, keys: &mut u64) {
    store.fails = 0.0;
    store.run();
    store.check();
    let mut live: Vec<u64> = store.index.keys().copied().collect();
    rng.shuffle(&mut live);
    let together = |store: &Simulation| {
        let mut all = Live::default();
        store.space.segments.iter().for_each(|segment| all.add(&segment.live));
        all.blocks_together(&store.space.shape)
    };
    let before = together(store);
    for key in &live[..live.len().div_ceil(2)] {
        store.delete(*key);
    }
    for pin in std::mem::take(&mut store.pins) {
        store.space.unpin(pin);
    }
    free(&mut store.space);
    let freed = before - together(store);
    let all = u64::from(store.space.shape.segments * store.space.shape.segment_blocks);
    let was = store.put_blocks;
    loop {
        let batch = traits.batch(rng, keys, 100);
        if store.put_blocks - was >= all || !store.put(&batch) {
            break;
        }
    }
    let put = store.put_blocks - was;
    assert!(put >= freed.min(all / 4) / 2, "of {freed} deleted blocks {put} can be put again");
    store.check();
    for key in store.index.keys().copied().collect::<Vec<_>>() {
        store.delete(key);
    }
    for n in 0..50 {
        let batch = [(u64::MAX - n % 3, traits.big)];
        assert!(store.put(&batch), "full although nearly nothing is in it");
    }
    store.check();
}

#[test]
fn nothing_gets_stuck_when_everything_goes_wrong() {
    for seed in 0..24 {
        rough(seed);
    }
}
