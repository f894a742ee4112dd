//! The two checksums of the format, over data that may lie in several pieces.
//!
//! CRC-32C protects the structures, CRC-64/NVME the payloads. Both use the
//! vector instructions of the processor where it has them; the choice is made
//! once, at run time. Nothing here allocates.

use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc64Nvme};
use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C (Castagnoli, also called CRC-32/ISCSI) of `parts`, as if they were
/// one piece.
pub fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    // The mask drops nothing: a CRC of 32 bits is at most u32::MAX.
    (crc(Crc32Iscsi, &[], parts) & 0xFFFF_FFFF) as u32
}

/// CRC-64/NVME of `parts`, as if they were one piece.
pub fn crc64_nvme<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    crc(Crc64Nvme, &[], parts)
}

/// Checksum of the payload that the write with this `sequence` puts into this
/// `slot` of the store with this `uuid`.
///
/// It is the CRC-64/NVME of the UUID (16 bytes), the slot and the sequence
/// (8 bytes each, little-endian) and the payload, `parts` in order. A payload
/// that is intact but belongs to another store, slot or write therefore does
/// not match.
pub fn payload_checksum<'a>(
    uuid: &[u8; 16],
    slot: u64,
    sequence: u64,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> u64 {
    let mut place = [0; 32];
    place[..16].copy_from_slice(uuid);
    place[16..24].copy_from_slice(&slot.to_le_bytes());
    place[24..].copy_from_slice(&sequence.to_le_bytes());

    crc(Crc64Nvme, &place, parts)
}

fn crc<'a>(
    algorithm: CrcAlgorithm,
    first: &[u8],
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> u64 {
    let mut digest = Digest::new(algorithm);
    digest.update(first);
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}
