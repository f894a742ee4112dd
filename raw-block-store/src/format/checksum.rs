//! The two checksums of the format.
//!
//! CRC-32C protects the structures, XXH3-64 the payloads: it is as fast on every
//! processor with vectors as a CRC is on the few with the widest carry-less
//! multiplication. Both use what the processor has; the choice is made once, at
//! run time. Nothing here allocates.

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use crc_fast::Digest;
use twox_hash::XxHash3_64;

/// CRC-32C (Castagnoli, also called CRC-32/ISCSI) of `parts`, as if they were
/// one piece.
pub fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(Crc32Iscsi);
    parts.into_iter().for_each(|part| digest.update(part));
    // The mask drops nothing: a CRC of 32 bits is at most u32::MAX.
    (digest.finalize() & 0xFFFF_FFFF) as u32
}

/// Checksum of the payload that the write with this `sequence` puts into this
/// `slot` of the store with this `uuid`.
///
/// It is the XXH3-64 of the payload, seeded with that of the UUID (16 bytes), the
/// slot and the sequence (8 bytes each, little-endian). A payload that is intact
/// but belongs to another store, slot or write therefore does not match.
#[must_use]
pub fn payload_checksum(uuid: &[u8; 16], slot: u64, sequence: u64, payload: &[u8]) -> u64 {
    let mut place = [0; 32];
    place[..16].copy_from_slice(uuid);
    place[16..24].copy_from_slice(&slot.to_le_bytes());
    place[24..].copy_from_slice(&sequence.to_le_bytes());

    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&place), payload)
}
