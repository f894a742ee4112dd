//! A store on a device that can read something else than was written.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ops::Range;

use raw_block_core::Geometry;
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_store::format::{CheckpointHeader, Layout};
use raw_block_store::{Error, OpenOptions, Put, Store};

use crate::common::{bytes, payload, small, without_thread};

pub(crate) const LEN: usize = 704 << 10;
pub(crate) const PAYLOAD: usize = 9000;
pub(crate) const EIO: i32 = 5;
/// The object whose payload is in its slot header.
pub(crate) const INLINE: u8 = 1;
/// The object that has metadata.
pub(crate) const DESCRIBED: u8 = 3;
pub(crate) const DELETED: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

pub(crate) fn key(number: u8) -> [u8; 1] {
    [number]
}

pub(crate) fn value(number: u8) -> Vec<u8> {
    bytes(u64::from(number), if number == INLINE { 200 } else { PAYLOAD })
}

/// A store with eight objects in as many slots, of which the checkpoint names the first four. Four
/// other objects were deleted since the checkpoint. Every block was written before by something
/// that is deleted.
pub(crate) fn filled(block_size: u32) -> (SimulatedDevice, Store) {
    let device = SimulatedDevice::new(Geometry::new(LEN as u64, 512).unwrap(), 1).unwrap();
    let segment_size = Some(64 << 10);
    let format = small().segment_size(segment_size).block_size(block_size);
    Store::format(device.backend(), &format).unwrap();
    let store = open(&device, &without_thread()).unwrap();
    let is_filler = |number: &u32| store.put(&number.to_le_bytes(), &[7; 2 * PAYLOAD]).is_ok();
    let fillers = (0..).take_while(is_filler).count();
    for (_, filler) in (0..fillers).zip(0_u32..) {
        assert!(store.delete(&filler.to_le_bytes()).unwrap());
    }
    let put = |number: u8| {
        let (key, value) = (key(number), value(number));
        let metadata = if number == DESCRIBED { &b"metadata"[..] } else { b"" };
        let put = Put::new(&key, &value).with_metadata(metadata);
        store.put_many(&[put]).remove(0).unwrap();
    };
    DELETED.iter().for_each(|key| store.put(key, &[7; PAYLOAD]).unwrap());
    (0..4).for_each(put);
    store.checkpoint().unwrap();
    (4..8).for_each(put);
    DELETED.iter().for_each(|key| assert!(store.delete(key).unwrap()));
    (device, store)
}

pub(crate) fn closed(block_size: u32) -> SimulatedDevice {
    let (device, store) = filled(block_size);
    store.close().unwrap();
    device
}

/// A device whose store has to be recovered.
pub(crate) fn not_closed() -> SimulatedDevice {
    let (device, store) = filled(512);
    store.flush().unwrap();
    device
}

pub(crate) fn open(device: &SimulatedDevice, options: &OpenOptions) -> Result<Store, Error> {
    Store::open_with(device.backend(), options)
}

pub(crate) fn open_whatever_is_left(device: &SimulatedDevice) -> Store {
    open(device, &without_thread().accept_older_states(true)).unwrap()
}

pub(crate) fn image(device: &SimulatedDevice) -> Vec<u8> {
    device.peek(0, LEN)
}

/// Everything that a device may read in place of what was written to a range.
pub(crate) fn faults(range: &Range<u64>, elsewhere: u64) -> Vec<(&'static str, DeviceFault)> {
    let faults = [
        ("an error", DeviceFault::fail(OpKind::Read, EIO)),
        // In the part of a header block that is always used.
        ("a flipped bit", DeviceFault::flip_bit(Some(500))),
        ("zeroes", DeviceFault::zeroed()),
        ("what was there before", DeviceFault::old_version()),
        ("what is elsewhere", DeviceFault::other_block(elsewhere)),
    ];
    faults.map(|(what, fault)| (what, fault.within(range.clone()))).into()
}

/// All objects but this one are as they were put, and what was deleted is not there.
pub(crate) fn others_are_intact(store: &Store, victim: u8, what: &str) {
    for number in (0..8).filter(|&number| number != victim) {
        assert!(payload(store, &key(number)).unwrap() == value(number), "{what}: {number}");
    }
    assert!(DELETED.iter().all(|key| !store.contains(key).unwrap()), "{what}");
}

pub(crate) fn payload_is(store: &Store, number: u8) -> bool {
    payload(store, &key(number)).unwrap() == value(number)
}

/// The container of the newest checkpoint.
pub(crate) fn newest_container(image: &[u8], layout: &Layout) -> u64 {
    let number = |offset: u64| {
        let start = usize::try_from(offset).unwrap();
        let block = &image[start..start + layout.block_size as usize];
        CheckpointHeader::read(block, layout).map_or(0, |header| header.number.get())
    };
    layout.container_offset.into_iter().max_by_key(|&offset| number(offset)).unwrap()
}
