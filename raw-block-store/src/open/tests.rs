//! Making, opening and closing a store, without objects.

use std::sync::Arc;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Geometry, MemoryBackend};

use crate::Error;
use crate::format::{Layout, SUPERBLOCK_CELL_LEN, Superblock, SuperblockState};
use crate::stats::health::HealthState;
use crate::{FormatOptions, OpenOptions, Store};

const CAPACITY: u64 = 1 << 20;

fn options() -> FormatOptions {
    FormatOptions::default().segment_size(64 << 10).block_size(512)
}

fn open_options() -> OpenOptions {
    OpenOptions::default().background(false)
}

/// A device with an empty store.
fn made() -> SimulatedDevice {
    let device = SimulatedDevice::new(Geometry::new(CAPACITY, 512).unwrap(), 0).unwrap();
    Store::format(device.backend(), &options()).unwrap();
    device
}

fn open(device: &SimulatedDevice) -> Result<Store, Error> {
    Store::open_with(device.backend(), &open_options())
}

fn superblock(device: &SimulatedDevice) -> Superblock {
    *Superblock::read(&device.peek(0, SUPERBLOCK_CELL_LEN)).unwrap()
}

/// Makes containers of checkpoints refuse writes.
fn break_containers(device: &SimulatedDevice, containers: &[usize]) {
    let layout = Layout::of(&superblock(device));
    for &container in containers {
        let start = layout.container_offset[container];
        let range = start..start + layout.container_len;
        device.inject(DeviceFault::bad_medium(OpKind::Write).within(range).permanent());
    }
}

#[test]
fn a_mark_that_failed_uses_up_its_generation() {
    let device = made();
    let store = open(&device).unwrap();
    let second = SUPERBLOCK_CELL_LEN as u64;
    // One copy is written, the others are not.
    let last = Layout::of(&superblock(&device)).last_superblock_offset;
    for copy in [second, last] {
        let range = copy..copy + second;
        device.inject(DeviceFault::fail(OpKind::Write, 5).within(range));
    }
    assert!(store.close().is_err());
    let written = superblock(&device);
    assert_eq!(written.state(), SuperblockState::Clean { checkpoint: 2 });
    device.clear_faults();
    device.inject(DeviceFault::fail(OpKind::Write, 5).within(0..second));
    store.close().unwrap();
    let copy = device.peek(second, SUPERBLOCK_CELL_LEN);
    let newer = Superblock::read(&copy).unwrap();
    assert!(newer.generation.get() > written.generation.get());
    assert_eq!(newer.state(), SuperblockState::Clean { checkpoint: 3 });
}

#[test]
fn a_new_store_is_clean_and_empty() {
    let device = made();
    assert_eq!(superblock(&device).state(), SuperblockState::Clean { checkpoint: 1 });
    let store = open(&device).unwrap();
    assert_eq!(superblock(&device).state(), SuperblockState::Open { oldest: 1 });
    let stats = store.stats();
    assert_eq!((stats.objects, stats.checkpoint), (0, 1));
    assert_eq!(stats.free_segments, stats.segments);
    store.close().unwrap();
    assert_eq!(superblock(&device).state(), SuperblockState::Clean { checkpoint: 2 });
}

#[test]
fn a_store_that_was_dropped_gets_a_checkpoint_when_it_is_opened() {
    let device = made();
    drop(open(&device).unwrap());
    let store = open(&device).unwrap();
    assert_eq!(store.stats().checkpoint, 2);
}

#[test]
fn opening_read_only_writes_nothing() {
    let device = made();
    drop(open(&device).unwrap());
    let before = device.ops_so_far();
    let store = Store::open_read_only(device.backend(), &open_options()).unwrap();
    assert!(!store.contains(b"a key").unwrap());
    assert!(store.flush().is_err());
    assert!(store.checkpoint().is_err());
    assert!(store.close().is_err());
    assert_eq!(device.ops_so_far(), before);
}

#[test]
fn a_power_cut_at_any_write_of_a_life_leaves_a_store() {
    let device = made();
    let first = device.ops_so_far();
    let life = |device: &SimulatedDevice| -> Result<(), Error> {
        open(device)?.checkpoint()?;
        let store = open(device)?;
        store.checkpoint()?;
        store.close()
    };
    let whole = device.fork(1);
    life(&whole).unwrap();
    for cut in first..whole.ops_so_far() {
        for seed in 0..4 {
            let device = device.fork(seed);
            device.cut_after(cut);
            let _ = life(&device);
            open(&device.power_on()).unwrap_or_else(|error| panic!("cut {cut}.{seed}: {error}"));
        }
    }
}

#[test]
fn a_device_with_one_bad_container_is_used() {
    let device = made();
    break_containers(&device, &[1]);
    drop(open(&device).unwrap());
    let store = open(&device).unwrap();
    assert_eq!(store.stats().health.state, HealthState::Degraded);
    store.checkpoint().unwrap();
    store.close().unwrap();
}

#[test]
fn with_one_usable_container_a_store_opens_read_only() {
    let device = made();
    break_containers(&device, &[1, 2]);
    drop(open(&device).unwrap());
    let store = open(&device).unwrap();
    let health = store.stats().health;
    assert_eq!(health.state, HealthState::ReadOnly, "{health:?}");
    assert!(store.state.check_writes("put an object").is_err());
    assert!(store.close().is_err());
    device.clear_faults();
    open(&device).unwrap();
}

#[test]
fn what_a_device_holds_is_not_overwritten_without_force() {
    let device = made();
    let error = Store::format(device.backend(), &options()).unwrap_err();
    assert!(matches!(error, Error::AlreadyAStore { .. }), "{error}");
    let before = superblock(&device).preamble.uuid;
    let forced = options().force(true).label("new");
    Store::format(device.backend(), &forced).unwrap();
    let superblock = superblock(&device);
    assert_ne!(superblock.preamble.uuid, before);
    assert_eq!(superblock.label(), "new");
}

#[test]
fn a_device_without_a_store_is_refused() {
    let backend = Arc::new(MemoryBackend::new(CAPACITY).unwrap());
    assert!(matches!(Store::open(backend.clone()), Err(Error::NotAStore { .. })));
    Store::format(backend.clone(), &options()).unwrap();
    let _open = Store::open(backend.clone()).unwrap();
    assert!(matches!(Store::open(backend.clone()), Err(Error::Busy { .. })));
    assert!(matches!(Store::format(backend, &options()), Err(Error::Busy { .. })));
}

#[test]
fn impossible_labels_are_refused() {
    let backend = Arc::new(MemoryBackend::new(CAPACITY).unwrap());
    let refused = |label: String| {
        let error = Store::format(backend.clone(), &options().label(label)).unwrap_err();
        assert!(matches!(error, Error::Label { .. }), "{error:?}");
        error.to_string()
    };
    let long = "the label of the store has 65 bytes, at most 64 fit: shorten it";
    assert_eq!(refused("x".repeat(65)), long);
    let nul = "the label of the store contains a NUL character: remove it";
    assert_eq!(refused("a\0b".to_owned()), nul);
}

#[test]
fn a_refused_format_says_which_store_is_there() {
    let backend = Arc::new(MemoryBackend::new(CAPACITY).unwrap());
    for (label, which) in [("", "without a label"), ("a cache", "labelled \"a cache\"")] {
        Store::format(backend.clone(), &options().force(true).label(label)).unwrap();
        let error = Store::format(backend.clone(), &options()).unwrap_err().to_string();
        let rule = "set `force` to overwrite it";
        assert_eq!(error, format!("memory holds a store already, {which}: {rule}"));
    }
}

#[test]
fn a_damaged_copy_of_the_superblock_is_written_again() {
    let device = made();
    device.poke(100, &[0xEE]);
    let store = Store::open_with(device.backend(), &open_options()).unwrap();
    assert_eq!(superblock(&device).state(), SuperblockState::Open { oldest: 1 });
    assert_eq!(store.stats().checkpoint, 2, "its clean mark does not count");
}

#[test]
fn an_opening_that_cannot_flush_writes_nothing() {
    let device = made();
    device.inject(DeviceFault::fail(OpKind::Flush, 5));
    assert!(open(&device).is_err());
    let untouched = superblock(&device);
    assert_eq!(untouched.state(), SuperblockState::Clean { checkpoint: 1 });
    device.clear_faults();
    let store = open(&device.process_kill()).unwrap();
    assert_eq!(store.stats().objects, 0);
}
