//! The checksums and hashes of the format.
//!
//! CRC-32C protects the structures, XXH3-64 the payloads. With any vector instructions XXH3 is as
//! fast as a CRC is with the widest carry-less multiplication, which few processors have. Slot
//! headers also have a keyed hash.

use core::hash::Hasher;

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use crc_fast::Digest;
use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::{RawHasher, SecretBuffer};

use super::layout::Layout;

/// Length in bytes of the secret that the streaming hash derives from its seed.
const SECRET_LEN: usize = 192;

/// CRC-32C (Castagnoli, also called CRC-32/ISCSI) of `parts`, as if they were one piece.
pub fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(Crc32Iscsi);
    parts.into_iter().for_each(|part| digest.update(part));
    // The mask drops nothing: a CRC of 32 bits is at most u32::MAX.
    (digest.finalize() & 0xFFFF_FFFF) as u32
}

/// The place of a payload, and the write that put it there. Known as soon as its space is
/// allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadPlace {
    /// Number of the segment.
    pub segment: u32,
    /// Generation of the segment.
    pub generation: u64,
    /// Block within the segment: that of the slot header if the payload uses no block.
    pub block: u32,
    /// Sequence of the write.
    pub sequence: u64,
}

impl PayloadPlace {
    /// Checksum of a payload with this [hash](payload_hash) that this write puts into this place:
    /// the XXH3-64 of the member's identity (16 bytes), the generation and the sequence (8 bytes
    /// each), the segment and the block (4 bytes each), and the hash (8 bytes), all little-endian.
    ///
    /// A payload that is intact but belongs to another member, place, generation or write does not
    /// match. A copy of it gets its checksum without another pass over the payload.
    #[must_use]
    pub fn checksum(&self, layout: &Layout, payload_hash: u64) -> u64 {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&layout.member);
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.segment.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.block.to_le_bytes());
        bytes[40..].copy_from_slice(&payload_hash.to_le_bytes());
        XxHash3_64::oneshot(&bytes)
    }
}

/// XXH3-64 of a payload, without a seed: what the payload adds to its checksum.
#[must_use]
pub fn payload_hash(payload: &[u8]) -> u64 {
    XxHash3_64::oneshot(payload)
}

/// Checksum of the payload that this write puts into this place.
#[must_use]
pub fn payload_checksum(layout: &Layout, place: &PayloadPlace, payload: &[u8]) -> u64 {
    place.checksum(layout, payload_hash(payload))
}

/// Computes a [`payload_hash`] over several pieces of a payload. Does not allocate.
///
/// # Examples
/// ```
/// use raw_block_store::format::{PayloadHasher, payload_hash};
///
/// let mut hasher = PayloadHasher::new();
/// hasher.update(b"a payload ");
/// hasher.update(b"in two pieces");
/// assert_eq!(hasher.finish(), payload_hash(b"a payload in two pieces"));
/// ```
#[derive(Clone)]
pub struct PayloadHasher(RawHasher<[u8; SECRET_LEN]>);

impl PayloadHasher {
    /// Begins the hash of a payload.
    #[must_use]
    pub fn new() -> Self {
        match SecretBuffer::with_seed(0, [0; SECRET_LEN]) {
            Ok(secret) => Self(RawHasher::new(secret)),
            Err(_) => unreachable!("the secret has the length that the hash asks for"),
        }
    }

    /// Adds the next piece of the payload.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// The hash of the pieces, in the order in which they were added.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl Default for PayloadHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for PayloadHasher {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("PayloadHasher").finish_non_exhaustive()
    }
}

/// Keyed hash of the bytes of a slot header that follow it: XXH3-64, seeded with the secret of the
/// store and the identity of the member.
///
/// The secret never leaves the store, so a payload cannot contain a header that passes this check,
/// unless the header was copied from this member. Such a header carries another place or another
/// generation.
#[must_use]
pub fn header_hash(layout: &Layout, bytes: &[u8]) -> u64 {
    let mut secret = [0; 32];
    secret[..16].copy_from_slice(&layout.hash_key);
    secret[16..].copy_from_slice(&layout.member);
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&secret), bytes)
}
