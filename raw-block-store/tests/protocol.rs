//! Rules of `docs/protocol.md` that show in what is written where and when, on a device that is watched.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, mpsc};

use common::faulty::{Fate, Faulty};
use common::payload;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{Geometry, OpKind};
use raw_block_store::format::{CheckpointHeader, SUPERBLOCK_CELL_LEN, Superblock};
use raw_block_store::{Error, FormatOptions, OpenOptions, Store};

const LEN: usize = 1 << 20;

fn options(slots: u64) -> FormatOptions {
    FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(8192) }
}

/// Without a thread for checkpoints it is known when they are taken.
fn open(device: &Faulty) -> Store {
    let options = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    Store::open_with(device.backend(), &options).unwrap()
}

fn new_store(slots: u64) -> (Faulty, Store, Superblock) {
    let device = Faulty::new(LEN);
    Store::format(device.backend(), &options(slots)).unwrap();
    let superblock = *Superblock::read(&device.bytes()[..SUPERBLOCK_CELL_LEN]).unwrap();
    (device.clone(), open(&device), superblock)
}

/// The offsets of the writes from now on, `None` for a flush, in their order. Those that `fails` names fail.
fn watch(
    device: &Faulty,
    mut fails: impl FnMut(u64) -> bool + Send + 'static,
) -> Arc<Mutex<Vec<Option<u64>>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    device.rule(move |op| {
        match op.kind() {
            OpKind::Write => notes.lock().unwrap().push(Some(op.offset())),
            OpKind::Flush => notes.lock().unwrap().push(None),
            _ => return Fate::Done,
        }
        let failed = op.kind() == OpKind::Write && fails(op.offset());
        if failed { Fate::Failed } else { Fate::Done }
    });
    seen
}

#[test]
fn a_deletion_writes_a_block_of_the_log_that_is_not_in_use_and_nothing_else() {
    let (device, store, superblock) = new_store(16);
    for key in 0..8 {
        store.put(&[key], &[key; 5000]).unwrap();
    }
    let seen = watch(&device, |_| false);
    for key in 0..8 {
        assert!(store.delete_many(&[&[key]]).remove(0).unwrap());
    }
    let log = superblock.delete_log_offset.get();
    let log = log..log + superblock.delete_log_len.get();
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|write| write.unwrap()).collect();
    assert!(seen.iter().all(|offset| log.contains(offset)), "{seen:?}");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 8, "each block once: {seen:?}");
}

#[test]
fn an_overwrite_goes_to_another_slot_than_the_object() {
    let (device, store, superblock) = new_store(4);
    store.put(b"key", &[1; 5000]).unwrap();
    store.checkpoint().unwrap();
    let seen = watch(&device, |_| false);
    let mut live = superblock.slot_offset(0).unwrap();
    for round in 0..20 {
        store.put(b"key", &[round; 5000]).unwrap();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        // Before it there may be a checkpoint.
        let written = seen.last().copied().flatten().unwrap();
        assert!(written >= superblock.slots_offset.get() && written != live, "{seen:?}");
        live = written;
    }
}

#[test]
fn the_slot_of_a_failed_put_is_written_again_only_behind_a_checkpoint_that_speaks_for_it() {
    for fate in [Fate::Failed, Fate::FailedButDone] {
        let (device, store, superblock) = new_store(4);
        let slot = |slot| superblock.slot_offset(slot).unwrap();
        store.put(b"first", &[0; 5000]).unwrap();
        let at = slot(1);
        device.rule(move |op| {
            if op.kind() == OpKind::Write && op.offset() == at { fate } else { Fate::Done }
        });
        assert!(store.put(b"failed", &[1; 5000]).is_err());
        let seen = watch(&device, |_| false);
        for key in [&b"second"[..], b"third", b"fourth"] {
            store.put(key, &[2; 5000]).unwrap();
        }
        let seen = seen.lock().unwrap().clone();
        let position = |what| seen.iter().position(|&seen| seen == what);
        let header = Some(superblock.checkpoint_offset[1].get());
        let header = position(header).expect("a checkpoint was taken");
        let again = position(Some(at)).expect("the slot was needed");
        assert!(position(Some(slot(2))) < Some(header), "{seen:?}");
        assert!(header < again && seen[header + 1..again].contains(&None), "{seen:?}");
    }
}

#[test]
fn what_changes_while_a_checkpoint_is_written_speaks_for_itself() {
    let (device, store, _) = new_store(16);
    for key in 0..4 {
        store.put(&[key], &[key; 5000]).unwrap();
    }
    std::thread::scope(|scope| {
        // The first flush of the checkpoint, when the index has been copied, ends only after the changes.
        let (flushing, is_flushing) = mpsc::channel();
        let (changed, is_changed) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(Some((flushing, is_changed))));
        device.hold_flush(move || {
            let held = held.lock().unwrap().take();
            if let Some((flushing, is_changed)) = held {
                flushing.send(()).unwrap();
                is_changed.recv().unwrap();
            }
        });
        let checkpoint = scope.spawn(|| store.checkpoint().unwrap());
        is_flushing.recv().unwrap();
        store.put(&[0], &[10; 5000]).unwrap();
        store.put(&[9], &[9; 5000]).unwrap();
        assert!(store.delete_many(&[&[1]]).remove(0).unwrap());
        changed.send(()).unwrap();
        checkpoint.join().unwrap();
    });
    drop(store);
    let store = open(&device);
    assert_eq!(payload(&store, &[0]).unwrap(), [10; 5000]);
    assert_eq!(payload(&store, &[1]), None);
    assert_eq!(payload(&store, &[2]).unwrap(), [2; 5000]);
    assert_eq!(payload(&store, &[9]).unwrap(), [9; 5000]);
}

#[test]
fn each_attempt_at_a_checkpoint_has_a_number_of_its_own() {
    let (device, store, superblock) = new_store(4);
    let container = superblock.checkpoint_offset[1].get();
    let block_size = u64::from(superblock.block_size.get());
    device.fail_at(OpKind::Write, container + block_size);
    assert!(store.checkpoint().is_err());
    assert!(store.checkpoint().is_err());
    device.rule(|_| Fate::Done);
    store.checkpoint().unwrap();
    let at = usize::try_from(container).unwrap();
    let bytes = device.bytes();
    let header =
        CheckpointHeader::read(&bytes[at..at + superblock.block_size.get() as usize], &superblock);
    // Number 1 is that of the empty store.
    assert_eq!(header.unwrap().number, 4);
}

/// Opens stores on what is left if the power goes at any moment, and everything that was written since the last flush is
/// torn.
struct Tearing {
    durable: Vec<u8>,
    since: Vec<Range<usize>>,
    images: Vec<Vec<u8>>,
}

impl Tearing {
    fn watch(device: &Faulty) -> Arc<Mutex<Self>> {
        let tearing =
            Self { durable: device.bytes(), since: Vec::new(), images: vec![device.bytes()] };
        let tearing = Arc::new(Mutex::new(tearing));
        let (watched, state) = (device.clone(), Arc::clone(&tearing));
        device.rule(move |op| {
            let mut state = state.lock().unwrap();
            match op.kind() {
                OpKind::Write => {
                    let at = usize::try_from(op.offset()).unwrap();
                    let range = at..at + usize::try_from(op.len()).unwrap();
                    state.since.push(range);
                    let mut image = state.durable.clone();
                    for range in state.since.clone() {
                        image[range].fill(0xA5);
                    }
                    state.images.push(image);
                }
                OpKind::Flush => {
                    state.durable = watched.bytes();
                    state.since.clear();
                }
                _ => {}
            }
            Fate::Done
        });
        tearing
    }
}

#[test]
fn opening_and_closing_leave_a_valid_superblock_and_everything_else_whatever_is_torn() {
    let (device, store, superblock) = new_store(8);
    let copies = [0, SUPERBLOCK_CELL_LEN as u64, superblock.last_superblock_offset.get()];
    store.put(b"key", &[1; 5000]).unwrap();
    store.flush().unwrap();
    let crashed = device.bytes();
    store.close().unwrap();
    let closed = device.bytes();
    for image in [crashed, closed] {
        // With all copies, and with only one that is valid.
        for left in [None, Some(0), Some(1), Some(2)] {
            let mut image = image.clone();
            for (copy, at) in copies.iter().enumerate() {
                if left.is_some_and(|left| left != copy) {
                    let at = usize::try_from(*at).unwrap();
                    image[at..at + SUPERBLOCK_CELL_LEN].fill(0x5A);
                }
            }
            let device = Faulty::holding(image);
            let tearing = Tearing::watch(&device);
            open(&device).close().unwrap();
            let images = std::mem::take(&mut tearing.lock().unwrap().images);
            assert!(images.len() > 8, "{} moments", images.len());
            for (moment, image) in images.into_iter().enumerate() {
                let opened = Store::open(Faulty::holding(image).backend());
                let store = opened.unwrap_or_else(|error| panic!("{left:?}, {moment}: {error}"));
                assert_eq!(payload(&store, b"key").unwrap(), [1; 5000], "{left:?}, {moment}");
            }
        }
    }
}

#[test]
fn a_format_that_is_cut_short_leaves_the_store_before_or_none_or_the_new_one() {
    let device = SimulatedDevice::new(Geometry::new(LEN as u64, 512).unwrap(), 1).unwrap();
    Store::format(device.backend(), &options(8)).unwrap();
    let store = Store::open(device.backend()).unwrap();
    store.put(b"key", &[1; 5000]).unwrap();
    store.flush().unwrap();
    drop(store);
    // Other slots, so that nothing lies where it lay.
    let other = FormatOptions { force: true, block_size: Some(512), ..options(20) };
    let (mut ended, mut kinds) = (false, HashSet::new());
    for cut in 1.. {
        for seed in 0..20 {
            let device = device.fork(seed);
            device.cut_after(cut);
            ended = Store::format(device.backend(), &other).is_ok();
            device.power_cut();
            let device = device.power_on();
            kinds.insert(match Store::open(device.backend()) {
                Ok(store) if store.stats().slots == 8 => {
                    assert_eq!(payload(&store, b"key").unwrap(), [1; 5000]);
                    "before"
                }
                Ok(store) => {
                    assert_eq!((store.stats().slots, store.stats().live_slots), (20, 0));
                    "new"
                }
                Err(Error::NotAStore { .. }) => "none",
                Err(error) => panic!("cut {cut}, seed {seed}: {error}"),
            });
            Store::format(device.backend(), &other).unwrap();
            Store::open(device.backend()).unwrap().put(b"key", b"value").unwrap();
        }
        if ended {
            break;
        }
    }
    assert!(ended);
    assert_eq!(kinds.len(), 3, "{kinds:?}");
}
