//! Random schedules of threads that submit requests to a front on a simulated device, from seeds.
//! `RAW_BLOCK_SECONDS` says for how long other seeds are tried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice, run_interleaved};
use raw_block_core::{Geometry, sync};
use raw_block_store::{AsyncOptions, AsyncStats, Store};

use crate::common::{payload, small, without_thread};
use crate::model::Key;
use crate::submitter::{KEYS, Submitter};
use crate::support::start;

const SUBMITTERS: u8 = 2;
const ROUNDS: usize = 6;
const LONG: Duration = Duration::from_secs(1000);

/// Counts the threads that have ended.
#[derive(Default)]
struct Ended {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    ended: usize,
    panicked: usize,
}

impl Ended {
    fn add(&self, panicked: bool) {
        let mut counts = sync::lock(&self.counts);
        counts.ended += 1;
        counts.panicked += usize::from(panicked);
        self.changed.notify_all();
    }

    /// Waits until that many have ended. Panics if one of them did.
    fn wait_for(&self, count: usize) {
        let mut counts = sync::lock(&self.counts);
        while counts.ended < count {
            counts = sync::wait(&self.changed, &self.counts, counts);
        }
        assert_eq!(counts.panicked, 0, "a thread panicked");
    }
}

/// Runs a thread under the scheduler.
fn spawn(ended: &Arc<Ended>, act: impl FnOnce() + Send + 'static) {
    let ended = Arc::clone(ended);
    let run = move || {
        let ran = catch_unwind(AssertUnwindSafe(act));
        ended.add(ran.is_err());
    };
    sync::spawn(thread::Builder::new(), run).unwrap();
}

/// Stalls and fails the device, and lets it go on, or cuts its power.
fn disturb(device: &SimulatedDevice, rng: &mut fastrand::Rng, cuts_power: bool) {
    let pause = Mutex::new(());
    for _ in 0..rng.u8(..4) {
        let kind = if rng.bool() { OpKind::Read } else { OpKind::Write };
        let fault = match rng.u8(..4) {
            0 => DeviceFault::fail(kind, libc::EIO).nth(rng.u64(1..4)),
            1 => DeviceFault::delay(kind, 3),
            _ => DeviceFault::hold(kind),
        };
        device.inject(fault);
        (0..rng.u16(..300)).for_each(|_| drop(sync::lock(&pause)));
        device.clear_faults();
    }
    if cuts_power {
        device.power_cut();
    }
}

fn options(rng: &mut fastrand::Rng) -> AsyncOptions {
    let slow_after = if rng.u8(..4) == 0 { Duration::from_micros(300) } else { LONG };
    AsyncOptions::new()
        .load_threads(rng.usize(1..3))
        .store_threads(rng.usize(1..3))
        .max_queued(rng.usize(2..10))
        .max_store_bytes(rng.u64(2000..10_000))
        .store_window(rng.u64(..3000))
        .slow_after(slow_after)
        .failed_after(rng.u32(1..4))
        .probe_interval(Duration::from_micros(50))
}

/// Runs one schedule. `formatted` has an empty store. Returns the counters of the front.
fn run(formatted: &SimulatedDevice, seed: u64) -> AsyncStats {
    let device = formatted.fork(seed);
    let counters = Arc::new(Mutex::new(AsyncStats::default()));
    let cuts_power = (seed % 5) == 4;
    let keys = Arc::new(Mutex::new(Vec::new()));
    let regions = Arc::new(Mutex::new(Vec::new()));
    let main = {
        let (device, keys, regions) = (device.clone(), Arc::clone(&keys), Arc::clone(&regions));
        let counters = Arc::clone(&counters);
        move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let front = start(device.backend(), &options(&mut rng));
            let ended = Arc::new(Ended::default());
            for me in 0..SUBMITTERS {
                let mut submitter = Submitter::new(&front, me, rng.fork());
                let (keys, regions) = (Arc::clone(&keys), Arc::clone(&regions));
                spawn(&ended, move || {
                    (0..ROUNDS).for_each(|_| submitter.round());
                    keys.lock().unwrap().extend(submitter.keys);
                    regions.lock().unwrap().push(submitter.region);
                });
            }
            let mut disturber = rng.fork();
            spawn(&ended, {
                let device = device.clone();
                move || disturb(&device, &mut disturber, cuts_power)
            });
            let closes_early = rng.u8(..4) == 0;
            if closes_early {
                // Submitters are refused from then on.
                let _ = front.close(Duration::from_micros(rng.u64(..500)));
            }
            ended.wait_for(usize::from(SUBMITTERS) + 1);
            if cuts_power {
                let closed = front.close(LONG);
                assert!(closes_early || closed.is_err(), "the device is off");
            } else if closes_early || rng.bool() {
                while !front.close(LONG).is_ok_and(|report| report.is_closed) {}
                let stats = front.stats();
                let answered = stats.executed + stats.turned_away + stats.expired + stats.cancelled;
                assert_eq!((answered, stats.queued + stats.running), (stats.submitted, 0));
            }
            *counters.lock().unwrap() = front.stats();
        }
    };
    run_interleaved(seed, vec![Box::new(main)]);
    for region in regions.lock().unwrap().drain(..) {
        assert!(region.lease(..).is_ok(), "memory was not returned");
    }
    let device = if cuts_power { device.power_on() } else { device };
    let store = Store::open_with(device.backend(), &without_thread()).unwrap();
    let keys: Vec<Key> = keys.lock().unwrap().drain(..).collect();
    assert_eq!(keys.len(), usize::from(SUBMITTERS) * KEYS);
    for key in keys {
        let payload = payload(&store, &key.name);
        if cuts_power {
            key.check_recovered(payload.as_deref());
        } else {
            key.check(payload.as_deref());
        }
    }
    *counters.lock().unwrap()
}

#[test]
fn seeded_schedules_complete_each_request_once() {
    let device = SimulatedDevice::new(Geometry::new(1 << 20, 512).unwrap(), 0).unwrap();
    Store::format(device.backend(), &small()).unwrap();
    let seconds = std::env::var("RAW_BLOCK_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("RAW_BLOCK_SECONDS is a number"));
    let first = if seconds.is_some() { fastrand::u64(..) } else { 0 };
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut count, mut total) = (0, AsyncStats::default());
    while until.map_or(count < 60, |until| Instant::now() < until) {
        let seed = first.wrapping_add(count);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&device, seed)));
        let stats = ran.unwrap_or_else(|_| panic!("seed {seed}"));
        total.submitted += stats.submitted;
        total.executed += stats.executed;
        total.turned_away += stats.turned_away;
        total.expired += stats.expired;
        total.cancelled += stats.cancelled;
        total.overloaded += stats.overloaded;
        count += 1;
    }
    println!("{count} schedules: {total:?}");
    assert!(total.executed > 0 && total.cancelled > 0 && total.overloaded > 0, "{total:?}");
}
