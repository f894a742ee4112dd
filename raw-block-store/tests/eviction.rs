//! A store that is full, with and without a policy that evicts.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::faulty::carry_out;
use common::{check_segments, fake, memory, payload, put_all, small, without_thread};
use raw_block_core::Geometry;
use raw_block_core::backend::{Completion, IoBackend, Op, OpKind};
use raw_block_store::{Error, EvictionPolicy, Pin, Put, Store};

const POLICIES: [EvictionPolicy; 3] =
    [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Fifo];

/// Bytes of an object. Six or seven of them fill a segment, and 160 to 190 the store.
const LEN: usize = 4096;

/// More objects than the store holds, and not many more.
const MANY: u32 = 240;

fn store(eviction: EvictionPolicy) -> (Arc<dyn IoBackend>, Store) {
    let device = memory(1 << 20);
    Store::format(device.clone(), &small()).unwrap();
    let store = open(&device, eviction);
    (device, store)
}

fn open(device: &Arc<dyn IoBackend>, eviction: EvictionPolicy) -> Store {
    Store::open_with(device.clone(), &without_thread().eviction(eviction)).unwrap()
}

fn name(key: u32) -> [u8; 4] {
    key.to_le_bytes()
}

fn try_put(store: &Store, key: u32) -> Result<(), Error> {
    store.put(&name(key), &[name(key)[0]; LEN])
}

fn put(store: &Store, keys: Range<u32>) {
    keys.for_each(|key| try_put(store, key).unwrap());
}

fn holds(store: &Store, key: u32) -> bool {
    let found = payload(store, &name(key));
    assert!(found.as_ref().is_none_or(|found| *found == [name(key)[0]; LEN]));
    found.is_some()
}

/// Puts objects until the store is full, and returns how many, with the error of the next one.
fn fill(store: &Store) -> (u32, Error) {
    let mut errors = (0..).filter_map(|key| Some((key, try_put(store, key).err()?)));
    errors.next().unwrap()
}

#[test]
fn without_a_policy_a_full_store_says_what_fills_it() {
    let (_, store) = store(EvictionPolicy::None);
    put(&store, 0..1);
    let _pin = store.pin(&name(0)).unwrap().unwrap();
    let (count, refused) = fill(&store);
    assert!((140..MANY).contains(&count), "{count} objects");
    assert!(
        matches!(refused, Error::OutOfSpace { segments: 30, objects, pinned: 1, bad: 0, .. }
            if objects == u64::from(count)),
        "{refused}"
    );
    assert_eq!(store.stats().evictions, 0);
    assert!((0..count).all(|key| holds(&store, key)));
}

#[test]
fn with_a_policy_a_store_never_fills() {
    for policy in POLICIES {
        let (_, store) = store(policy);
        put(&store, 0..1000);
        assert!(holds(&store, 999));
        let stats = store.stats();
        assert_eq!(stats.evictions + stats.objects, 1000);
        assert!(stats.objects > 120, "{policy:?}: {stats:?}");
        check_segments(&store);
    }
}

#[test]
fn a_batch_larger_than_the_store_leaves_its_last_objects() {
    for policy in POLICIES {
        let (_, store) = store(policy);
        let objects: Vec<_> = (0..500).map(|key| (name(key), [name(key)[0]; LEN])).collect();
        let puts: Vec<_> = objects.iter().map(|(key, value)| Put::new(key, value)).collect();
        put_all(&store, &puts);
        assert!(holds(&store, 499) && !holds(&store, 0), "{policy:?}");
    }
}

#[test]
fn what_was_got_lately_stays() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        let (_, store) = store(policy);
        put(&store, 0..MANY / 2);
        for key in MANY / 2..1000 {
            // Twice: S3-FIFO does not count the first use.
            assert!(holds(&store, 3) && holds(&store, 3), "{policy:?} at {key}");
            put(&store, key..key + 1);
        }
    }
}

#[test]
fn what_was_read_by_a_pin_or_put_if_absent_counts_as_used() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        let (_, store) = store(policy);
        put(&store, 0..MANY / 2);
        let mut buffer = [0; LEN];
        for key in MANY / 2..1000 {
            for _ in 0..2 {
                // It is pinned only while it is read.
                let pin = store.pin(&name(3)).unwrap().unwrap();
                pin.read(&mut buffer, &mut []).unwrap();
                let again = store.put_many_if_absent(&[Put::new(&name(5), b"another")]).remove(0);
                assert!(!again.unwrap(), "{policy:?} at {key}");
            }
            put(&store, key..key + 1);
        }
        assert!(holds(&store, 5));
    }
}

#[test]
fn what_was_put_first_leaves_a_fifo_although_it_was_used() {
    let (_, store) = store(EvictionPolicy::Fifo);
    put(&store, 0..MANY / 2);
    for key in MANY / 2..500 {
        holds(&store, 3);
        put(&store, key..key + 1);
    }
    assert!(!holds(&store, 3));
}

#[test]
fn a_pinned_object_is_not_evicted() {
    for policy in POLICIES {
        let (_, store) = store(policy);
        put(&store, 0..MANY / 2);
        let pin = store.pin(&name(7)).unwrap().unwrap();
        put(&store, MANY / 2..1000);
        assert!(holds(&store, 7));
        drop(pin);
        put(&store, 1000..1600);
        // With S3-FIFO it has reached the main queue, where it stays for long.
        assert!(policy == EvictionPolicy::S3Fifo || !holds(&store, 7), "{policy:?}");
    }
}

#[test]
fn a_store_of_pinned_objects_is_full() {
    for policy in POLICIES {
        let (_, store) = store(policy);
        let mut pins: Vec<Pin> = Vec::new();
        let refused = (0..MANY).find_map(|key| {
            let refused = try_put(&store, key).err();
            pins.extend(store.pin(&name(key)).unwrap());
            refused
        });
        let refused = refused.expect("more is pinned than the store holds");
        assert!(
            matches!(refused, Error::OutOfSpace { pinned, .. } if pinned == pins.len() as u64),
            "{refused}"
        );
        let mut buffer = [0; LEN];
        for (key, pin) in (0..).zip(&pins) {
            pin.read(&mut buffer, &mut []).unwrap();
            assert_eq!(buffer, [name(key)[0]; LEN]);
        }
        drop(pins);
        put(&store, 1000..1300);
    }
}

#[test]
fn a_pinned_object_outlives_its_replacement_and_its_deletion() {
    let (_, store) = store(EvictionPolicy::None);
    store.put(b"key", &[1; LEN]).unwrap();
    let pin = store.pin(b"key").unwrap().unwrap();
    let mut found = [0; LEN];
    for round in 0..300 {
        store.put(b"key", &[2; LEN]).unwrap();
        assert!(store.delete(b"key").unwrap());
        store.flush().unwrap();
        assert_eq!(pin.read(&mut found, &mut []).unwrap().payload_len, LEN);
        assert_eq!(found, [1; LEN], "round {round}");
    }
    assert!(store.pin(b"key").unwrap().is_none());
    assert_eq!(store.stats().pinned_versions, 1);
    drop(pin);
    // Nothing keeps its space: a new store takes as many objects.
    let (count, _) = fill(&store);
    assert_eq!(store.stats().pinned_versions, 0);
    assert!(count >= fill(&self::store(EvictionPolicy::None).1).0 - 6, "{count} objects");
    check_segments(&store);
}

#[test]
fn the_order_of_use_before_a_restart_is_that_of_the_puts() {
    let (device, store) = store(EvictionPolicy::Lru);
    // In batches, whose objects share headers: nothing is gained by moving them together.
    let put_batches = |store: &Store, batches: Range<u32>| {
        for batch in batches {
            let objects: Vec<_> =
                (7 * batch..7 * batch + 7).map(|key| (name(key), [name(key)[0]; LEN])).collect();
            let puts: Vec<_> = objects.iter().map(|(key, value)| Put::new(key, value)).collect();
            put_all(store, &puts);
        }
    };
    put_batches(&store, 0..20);
    put_batches(&store, 0..1);
    store.close().unwrap();
    let store = open(&device, EvictionPolicy::Lru);
    put_batches(&store, 20..30);
    assert!((0..7).all(|key| holds(&store, key)), "they were put again, last");
    assert!(!holds(&store, 7));
}

#[test]
fn an_evicted_object_may_come_back_unless_it_was_deleted() {
    for policy in POLICIES {
        let (device, store) = store(policy);
        put(&store, 0..300);
        let evicted: Vec<_> = (0..300).filter(|&key| !holds(&store, key)).collect();
        assert!(evicted.len() >= 100);
        assert!(!store.delete(&name(evicted[0])).unwrap(), "it was not there");
        let kept: HashSet<_> = (0..300).filter(|&key| holds(&store, key)).collect();
        drop(store);
        let store = open(&device, policy);
        assert_eq!(payload(&store, &name(evicted[0])), None);
        assert!(kept.iter().all(|&key| holds(&store, key)));
        assert!((0..300).filter(|&key| holds(&store, key)).count() >= kept.len());
    }
}

/// A device in memory that can hold one read.
struct Gated {
    geometry: Geometry,
    bytes: Mutex<Vec<u8>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// What becomes of the next read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Open,
    /// It is held.
    Closed,
    /// One is held. Others are not.
    Holds,
}

impl Gated {
    fn set(&self, gate: Gate) {
        *self.gate.lock().unwrap() = gate;
        self.changed.notify_all();
    }

    fn wait_while(&self, gate: Gate) {
        let state = self.gate.lock().unwrap();
        drop(self.changed.wait_while(state, |state| *state == gate).unwrap());
    }
}

impl fake::Device for Gated {
    const NAME: &'static str = "a device with a gate";

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn execute(&self, mut op: Op) -> Completion {
        if op.kind() == OpKind::Read && *self.gate.lock().unwrap() == Gate::Closed {
            self.set(Gate::Holds);
            self.wait_while(Gate::Holds);
        }
        carry_out(&mut self.bytes.lock().unwrap(), &mut op);
        op.complete()
    }
}

/// A device with a gate, and a store on it that evicts.
fn gated() -> (Arc<Gated>, Store) {
    let gated = Arc::new(Gated {
        geometry: Geometry::new(1 << 20, 512).unwrap(),
        bytes: Mutex::new(vec![0; 1 << 20]),
        gate: Mutex::default(),
        changed: Condvar::new(),
    });
    let device = fake::backend(Arc::clone(&gated));
    Store::format(device.clone(), &small()).unwrap();
    let store = open(&device, EvictionPolicy::Fifo);
    (gated, store)
}

#[test]
fn a_get_that_takes_long_costs_no_more_than_its_segment() {
    let (gated, store) = gated();
    put(&store, 0..500);
    let oldest = (0..500).find(|&key| store.contains(&name(key)).unwrap()).unwrap();
    let before = store.stats().evictions;
    gated.set(Gate::Closed);
    thread::scope(|scope| {
        let get = scope.spawn(|| assert!(holds(&store, oldest)));
        gated.wait_while(Gate::Closed);
        let puts = scope.spawn(|| put(&store, 500..564));
        while store.contains(&name(oldest)).unwrap() && !puts.is_finished() {
            thread::yield_now();
        }
        // The puts may wait for the get, and need no other segment until then.
        thread::sleep(Duration::from_millis(20));
        let stats = store.stats();
        gated.set(Gate::Open);
        puts.join().unwrap();
        get.join().unwrap();
        let evicted = stats.evictions - before;
        assert!(evicted <= 64 + 3 * 6, "{evicted} for 64 puts, six in a segment: {stats:?}");
    });
    assert!(!store.contains(&name(oldest)).unwrap());
    check_segments(&store);
}

#[test]
fn puts_do_not_wait_for_a_get_that_hangs() {
    let (gated, store) = gated();
    put(&store, 0..500);
    let oldest = (0..500).find(|&key| store.contains(&name(key)).unwrap()).unwrap();
    let before = store.stats().evictions;
    gated.set(Gate::Closed);
    thread::scope(|scope| {
        let get = scope.spawn(|| assert!(holds(&store, oldest)));
        gated.wait_while(Gate::Closed);
        let puts = scope.spawn(|| put(&store, 500..1500));
        let began = Instant::now();
        while !puts.is_finished() && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        let finished = puts.is_finished();
        let evicted = store.stats().evictions - before;
        gated.set(Gate::Open);
        puts.join().unwrap();
        get.join().unwrap();
        assert!(finished, "they wait for the get");
        assert!(evicted <= 1000 + 4 * 6, "{evicted} for 1000 puts, six in a segment");
    });
    check_segments(&store);
}
