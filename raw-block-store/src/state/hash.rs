//! From keys to key hashes.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::state::index::KeyHash;

/// SipHash-1-3 with 128 bits of output, low half first, under the hash key of the store. Keyed, so
/// that an attacker without the key cannot construct keys that collide.
pub(crate) fn key_hash(hash_key: &[u8; 16], key: &[u8]) -> KeyHash {
    let mut hasher = SipHasher13::new_with_key(hash_key);
    hasher.write(key);
    let hash = hasher.finish128();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash.h1.to_le_bytes());
    bytes[8..].copy_from_slice(&hash.h2.to_le_bytes());
    bytes
}
