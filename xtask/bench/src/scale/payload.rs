//! Payloads whose blocks a [sparse device](super::device::SparseDevice) keeps as one number each.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use raw_block_core::AlignedBuf;

use super::numbers::scatter;

/// Bytes of a block of the device, and of the stores on it.
pub(super) const BLOCK: usize = 4096;
/// The first eight bytes of each block of a payload. The stamp follows.
const MAGIC: [u8; 8] = *b"payload\n";
const STAMP_AT: usize = MAGIC.len();
const REST_AT: usize = STAMP_AT + 8;
/// A stamp is below this number.
pub(super) const STAMPS: u64 = 1 << 62;

/// A block of a payload with stamp 0.
static FILLER: LazyLock<[u8; BLOCK]> = LazyLock::new(|| {
    let mut block = [0; BLOCK];
    for (bytes, number) in block.chunks_exact_mut(8).zip(0..) {
        bytes.copy_from_slice(&scatter(number).to_le_bytes());
    }
    block[..STAMP_AT].copy_from_slice(&MAGIC);
    block[STAMP_AT..REST_AT].fill(0);
    block
});

/// Returns the stamp of a block, if it is a block of a payload.
pub(super) fn stamp_of(block: &[u8]) -> Option<u64> {
    if block.len() != BLOCK || block[..STAMP_AT] != MAGIC || block[REST_AT..] != FILLER[REST_AT..] {
        return None;
    }
    let stamp = u64::from_le_bytes(block[STAMP_AT..REST_AT].try_into().ok()?);
    (stamp < STAMPS).then_some(stamp)
}

/// Makes a block that of a payload with this stamp.
pub(super) fn fill(block: &mut [u8], stamp: u64) {
    block.copy_from_slice(&*FILLER);
    block[STAMP_AT..REST_AT].copy_from_slice(&stamp.to_le_bytes());
}

/// Creates a payload of `len` bytes. Its last block may be incomplete.
pub(super) fn payload(len: usize) -> Result<AlignedBuf> {
    let mut payload = AlignedBuf::zeroed(len)?;
    for block in payload.chunks_mut(BLOCK) {
        block.copy_from_slice(&FILLER[..block.len()]);
    }
    Ok(payload)
}

/// Makes a payload that of this key: the stamp of its first block is the number of the key.
pub(super) fn stamp(payload: &mut [u8], key: u64) {
    if let Some(bytes) = payload.get_mut(STAMP_AT..REST_AT) {
        bytes.copy_from_slice(&(key % STAMPS).to_le_bytes());
    }
}

/// Checks that a payload is that of this key.
pub(super) fn check(payload: &[u8], key: u64) -> Result<()> {
    let found = payload.get(STAMP_AT..REST_AT).map(<[u8; 8]>::try_from);
    match found {
        Some(Ok(bytes)) if u64::from_le_bytes(bytes) == key % STAMPS => Ok(()),
        found => bail!("a get of key {key} returned another payload, with stamp {found:?}"),
    }
}
