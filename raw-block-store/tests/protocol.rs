//! Rules of `docs/protocol.md` that show in what is written where and when, on a device that is
//! watched.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, mpsc};

use common::faulty::{Fate, Faulty};
use common::{newest, payload, small, versions, without_thread};
use raw_block_core::Geometry;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::format::{CheckpointHeader, Layout, SUPERBLOCK_CELL_LEN};
use raw_block_store::{Error, Store};

const LEN: usize = 1 << 20;
const BLOCK: u64 = 512;

/// Without a background thread, the calls alone decide what is written when.
fn open(device: &Faulty) -> Store {
    Store::open_with(device.backend(), &without_thread()).unwrap()
}

fn new_store() -> (Faulty, Store, Layout) {
    let device = Faulty::new(LEN);
    Store::format(device.backend(), &small()).unwrap();
    let layout = common::layout(&device.backend());
    (device.clone(), open(&device), layout)
}

/// The offsets of the writes from now on, `None` for a flush, in their order. Those that `fails`
/// names fail.
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

/// The segment of an offset, if it lies in one.
fn segment_of(layout: &Layout, offset: u64) -> Option<u32> {
    let within = offset.checked_sub(layout.segments_offset)?;
    u32::try_from(within / layout.segment_size()).ok().filter(|of| *of < layout.segment_count)
}

#[test]
fn a_deletion_writes_one_block_after_what_was_written_before() {
    let (device, store, layout) = new_store();
    for key in 0..4 {
        store.put(&[key], &[key; 5000]).unwrap();
    }
    let end = newest(&device.backend(), &[3]).slot_end;
    let seen = watch(&device, |_| false);
    let before = store.dispatcher().stats().written_bytes;
    for key in 0..4 {
        assert!(store.delete(&[key]).unwrap());
    }
    let expected: Vec<_> = (0..4).map(|block| Some(end + block * BLOCK)).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(store.dispatcher().stats().written_bytes - before, 4 * BLOCK);
    assert_eq!(layout.segment_offset(0) + BLOCK, versions(&device.backend())[0].slot);
}

#[test]
fn a_segment_is_written_once_between_two_releases() {
    let (device, store, layout) = new_store();
    let seen = watch(&device, |_| false);
    for round in 0..400_u32 {
        store.put(&[(round % 7).to_le_bytes()[0]], &[1; 5000]).unwrap();
    }
    // Where the next write of each segment may begin, and how many checkpoints were committed when
    // it was opened.
    let mut segments: Vec<Option<(u64, u32)>> = vec![None; layout.segment_count as usize];
    let (mut reopened, mut checkpoints, mut header) = (0, 0, false);
    for write in seen.lock().unwrap().iter() {
        let Some(offset) = *write else {
            // The flush after the header commits a checkpoint.
            checkpoints += u32::from(std::mem::take(&mut header));
            continue;
        };
        header |= layout.container_offset.contains(&offset);
        let Some(number) = segment_of(&layout, offset) else { continue };
        let segment = &mut segments[number as usize];
        if offset == layout.segment_offset(number) {
            reopened += u32::from(segment.is_some());
            assert!(segment.is_none_or(|(_, opened)| opened < checkpoints), "segment {number}");
            *segment = Some((offset, checkpoints));
        }
        // The table of a segment, which a checkpoint writes, comes last.
        let (next, _) = segment.as_mut().expect("the header of a segment is written first");
        assert!(offset >= *next, "segment {number} is written at {offset}, before {next}");
        *next = offset + BLOCK;
    }
    assert!(reopened > 10 && checkpoints > 1, "{reopened} opened again, {checkpoints} checkpoints");
}

#[test]
fn an_overwrite_goes_elsewhere_and_leaves_the_object() {
    let (device, store, layout) = new_store();
    store.put(b"key", &[255; 5000]).unwrap();
    store.checkpoint().unwrap();
    let seen = watch(&device, |_| false);
    for round in 0..200 {
        let live = newest(&device.backend(), b"key");
        store.put(b"key", &[round; 5000]).unwrap();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let overlaps = |offset: &u64| (live.slot..live.slot_end).contains(offset);
        assert!(!seen.iter().flatten().any(overlaps), "{seen:?}");
        assert!(seen.iter().flatten().any(|offset| segment_of(&layout, *offset).is_some()));
    }
}

#[test]
fn the_place_of_a_failed_put_is_kept_until_its_release() {
    for fate in [Fate::Failed, Fate::FailedButDone] {
        let (device, store, layout) = new_store();
        store.put(b"first", &[0; 5000]).unwrap();
        let at = newest(&device.backend(), b"first").slot_end;
        // Also when the transfers of a merged write are repeated one by one.
        device.rule(move |op| {
            let touches = (op.offset()..op.offset() + op.len()).contains(&at);
            if op.kind() == OpKind::Write && touches { fate } else { Fate::Done }
        });
        store.put(b"failed", &[1; 5000]).unwrap();
        assert_eq!(store.stats().repeated_writes, 1);
        let seen = watch(&device, |_| false);
        assert!(store.delete(b"first").unwrap());
        for _ in 0..500 {
            store.put(b"other", &[2; 5000]).unwrap();
        }
        let seen = seen.lock().unwrap().clone();
        let position = |what| seen.iter().position(|&seen| seen == what);
        let again = position(Some(at)).expect("its segment was needed");
        let header = layout.container_offset.map(|offset| position(Some(offset)));
        let header = header.into_iter().flatten().min().expect("a checkpoint was taken");
        assert!(header < again && seen[header + 1..again].contains(&None), "{seen:?}");
        assert_eq!(payload(&store, b"failed").unwrap(), [1; 5000]);
    }
}

#[test]
fn what_changes_while_a_checkpoint_is_written_is_recovered() {
    let (device, store, _) = new_store();
    for key in 0..4 {
        store.put(&[key], &[key; 5000]).unwrap();
    }
    std::thread::scope(|scope| {
        // The first flush of the checkpoint, when the index has been copied, ends only after the
        // changes.
        let (flushing, is_flushing) = mpsc::channel();
        let (changed, is_changed) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(Some((flushing, is_changed))));
        device.during_flush(move || {
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
        assert!(store.delete(&[1]).unwrap());
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
fn each_attempt_at_a_checkpoint_has_its_own_number() {
    let (device, store, layout) = new_store();
    let bodies = layout.container_offset.map(|offset| offset + BLOCK..offset + 2 * BLOCK);
    device.fail_within(OpKind::Write, &bodies);
    assert!(store.checkpoint().is_err());
    assert!(store.checkpoint().is_err());
    device.rule(|_| Fate::Done);
    store.checkpoint().unwrap();
    // Number 1 is that of the empty store.
    assert_eq!(store.stats().checkpoint, 4);
    let bytes = device.bytes();
    let numbers = layout.container_offset.map(|offset| {
        let at = usize::try_from(offset).unwrap();
        let header = CheckpointHeader::read(&bytes[at..at + 512], &layout);
        header.ok().map(|header| header.number.get())
    });
    assert!(numbers.contains(&Some(4)) && numbers.contains(&Some(1)), "{numbers:?}");
}

/// What is on the device if the power goes at any moment, and everything that was written since the
/// last flush is torn.
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
fn opening_and_closing_survive_whatever_is_torn() {
    let (device, store, layout) = new_store();
    let copies = [0, SUPERBLOCK_CELL_LEN as u64, layout.last_superblock_offset];
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
fn a_format_that_is_cut_short_leaves_one_store_or_none() {
    let device = SimulatedDevice::new(Geometry::new(160 << 10, 512).unwrap(), 1).unwrap();
    let options = small().segment_size(4096).force(true);
    // Larger segments, so that little lies where it lay.
    let other = options.clone().segment_size(8192);
    let segments = |options| {
        let store = common::store_on(&device.fork(0).backend(), options);
        store.stats().segments
    };
    let (before, after) = (segments(&options), segments(&other));
    Store::format(device.backend(), &options).unwrap();
    let store = Store::open(device.backend()).unwrap();
    store.put(b"key", &[1; 2000]).unwrap();
    store.flush().unwrap();
    drop(store);
    let (mut ended, mut kinds) = (false, HashSet::new());
    for cut in 1.. {
        for seed in 0..2 {
            let device = device.fork(seed);
            device.cut_after(cut);
            ended = Store::format(device.backend(), &other).is_ok();
            device.power_cut();
            let device = device.power_on();
            kinds.insert(match Store::open(device.backend()) {
                Ok(store) if store.stats().segments == before => {
                    assert_eq!(payload(&store, b"key").unwrap(), [1; 2000]);
                    "before"
                }
                Ok(store) => {
                    assert_eq!((store.stats().segments, store.stats().objects), (after, 0));
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
