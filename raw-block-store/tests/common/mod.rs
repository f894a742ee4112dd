//! What the tests of the store share.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may")]

pub(crate) mod fake;
pub(crate) mod faulty;

use std::sync::Arc;

use raw_block_core::{AlignedBuf, Dispatcher, IoBackend, MemoryBackend, ReadAt, WriteAt};
use raw_block_store::format::Superblock;
use raw_block_store::{Error, FormatOptions, Get, Put, Store};

/// A device in memory; it keeps its bytes as long as somebody holds it.
pub(crate) fn memory(len: u64) -> Arc<dyn IoBackend> {
    Arc::new(MemoryBackend::new(len).unwrap())
}

/// A freshly formatted store.
pub(crate) fn store_on(device: &Arc<dyn IoBackend>, options: &FormatOptions) -> Store {
    Store::format(device.clone(), options).unwrap();
    Store::open(device.clone()).unwrap()
}

/// A store of `slots` slots for payloads of `payload_len` bytes, in memory.
pub(crate) fn store(payload_len: u64, slots: u64) -> (Arc<dyn IoBackend>, Store) {
    let device = memory(64 << 20);
    let options =
        FormatOptions { slot_count: Some(slots), ..FormatOptions::for_payloads(payload_len) };
    let store = store_on(&device, &options);
    (device, store)
}

/// Bytes that differ with every seed and every place.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
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

/// Where a slot begins on the device.
pub(crate) fn slot_offset(device: &Arc<dyn IoBackend>, slot: u64) -> u64 {
    superblock(device).slot_offset(slot).unwrap()
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
