//! Helpers that the tests of the store share.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may")]

pub(crate) mod child;
pub(crate) mod fake;
pub(crate) mod faulty;
pub(crate) mod slots;

use std::sync::Arc;

use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, Dispatcher, MemoryBackend, ReadAt, WriteAt};
use raw_block_store::format::{Layout, Superblock};
use raw_block_store::{Error, FormatOptions, Get, OpenOptions, Put, Store};
use slots::{FoundObject, FoundSlot};

/// Bytes of a block in the stores of [`store`] and [`small`].
pub(crate) const BLOCK: usize = 512;

/// A device in memory. It keeps its bytes until the last reference is dropped.
pub(crate) fn memory(len: u64) -> Arc<dyn IoBackend> {
    Arc::new(MemoryBackend::new(len).unwrap())
}

/// A freshly formatted store.
pub(crate) fn store_on(device: &Arc<dyn IoBackend>, options: &FormatOptions) -> Store {
    Store::format(device.clone(), options).unwrap();
    Store::open(device.clone()).unwrap()
}

/// A store in memory, with blocks of 512 bytes and about 32 segments: of 32 KiB on a device of 1
/// MiB.
pub(crate) fn store(device_len: u64) -> (Arc<dyn IoBackend>, Store) {
    let device = memory(device_len);
    let options = FormatOptions::default().block_size(512);
    let store = store_on(&device, &options);
    (device, store)
}

/// Options for segments of 64 blocks of 512 bytes: a device of 1 MiB has about 30 of them.
pub(crate) fn small() -> FormatOptions {
    FormatOptions::default().segment_size(64 * BLOCK as u64).block_size(512)
}

/// Without a background thread, the calls of a test alone decide what happens when.
pub(crate) fn without_thread() -> OpenOptions {
    OpenOptions::default().background(false)
}

/// Bytes that differ with every seed and every place.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn put_all(store: &Store, puts: &[Put<'_>]) {
    for result in store.put_many(puts) {
        result.unwrap();
    }
}

/// The payload under a key, or `None` for a miss.
pub(crate) fn payload(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).unwrap().map(|object| object.payload().to_vec())
}

/// Gets one key through a batch.
pub(crate) fn get_one(
    store: &Store,
    key: &[u8],
    payload: &mut [u8],
) -> Result<Option<usize>, Error> {
    let found = store.get_many(&mut [Get::new(key, payload)]).remove(0)?;
    Ok(found.map(|found| found.payload_len))
}

/// The first copy of the superblock.
pub(crate) fn superblock(device: &Arc<dyn IoBackend>) -> Superblock {
    *Superblock::read(&read(device, 0, 4096)).unwrap()
}

/// The sizes and places of the store.
pub(crate) fn layout(device: &Arc<dyn IoBackend>) -> Layout {
    Layout::of(&superblock(device))
}

/// A version of an object as it lies on the device. Offsets are in bytes on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) segment: u32,
    /// Where the header of its slot begins, and where the slot ends.
    pub(crate) slot: u64,
    pub(crate) slot_end: u64,
    /// Where its payload begins.
    pub(crate) payload: u64,
}

/// All versions of all objects that the slot headers on the device name, in order of their
/// sequence: also those that were replaced, deleted or moved, as long as nothing overwrote them.
pub(crate) fn versions(device: &Arc<dyn IoBackend>) -> Vec<Version> {
    let len = usize::try_from(device.geometry().capacity).unwrap();
    let image = read(device, 0, len);
    let block_size = u64::from(layout(device).block_size);
    let slots = slots::slots(&image);
    let of_slot = |slot: &FoundSlot| {
        let (segment, start) = (slot.segment, slot.header.start);
        let slot_end = start + u64::from(slot.blocks) * block_size;
        let version = |object: &FoundObject| Version {
            key: object.key.clone(),
            sequence: object.sequence,
            segment,
            slot: start,
            slot_end,
            payload: object.payload.start,
        };
        slot.objects.iter().map(version).collect::<Vec<_>>()
    };
    let mut versions: Vec<_> = slots.iter().flat_map(of_slot).collect();
    versions.sort_by_key(|version| version.sequence);
    versions
}

/// The newest version on the device of the object with this key.
pub(crate) fn newest(device: &Arc<dyn IoBackend>, key: &[u8]) -> Version {
    let of_key = versions(device).into_iter().rfind(|version| version.key == key);
    of_key.unwrap_or_else(|| panic!("no slot header names the key {key:?}"))
}

/// Checks that every segment is in exactly one state.
pub(crate) fn check_segments(store: &Store) {
    let stats = store.stats();
    let unused = stats.free_segments + stats.draining_segments + stats.bad_segments;
    assert_eq!(unused + stats.open_segments + stats.full_segments, stats.segments, "{stats:?}");
}

pub(crate) fn read(device: &Arc<dyn IoBackend>, offset: u64, len: usize) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(len).unwrap();
    let device = Dispatcher::new(device.clone()).unwrap();
    device.read_buffers(&mut [ReadAt::new(offset, &mut buffer)]).all().unwrap();
    buffer
}

pub(crate) fn write(device: &Arc<dyn IoBackend>, offset: u64, bytes: &[u8]) {
    let device = Dispatcher::new(device.clone()).unwrap();
    device.write_buffers(&[WriteAt::new(offset, bytes)]).all().unwrap();
}

/// Flips one bit of the byte at `offset`.
pub(crate) fn flip(device: &Arc<dyn IoBackend>, offset: u64) {
    let block = offset - offset % 512;
    let mut bytes = read(device, block, 512);
    bytes[usize::try_from(offset - block).unwrap()] ^= 0x10;
    write(device, block, &bytes);
}
