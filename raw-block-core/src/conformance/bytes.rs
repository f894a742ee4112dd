//! Bytes to write, and how found ones are compared.

use crate::AlignedBuf;

/// `len` bytes that look random. Another seed gives others, and so does another place in them.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    // SplitMix64.
    let mut state = seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A buffer with a copy of `bytes`.
pub(super) fn aligned(bytes: &[u8]) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    buffer
}

/// Asserts that bytes are what they should be; says where they first are not.
#[track_caller]
pub(super) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: another length");
    if found == expected {
        return;
    }
    if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
        panic!(
            "{what}: byte {at} of {} is {:#04x} and not {:#04x}",
            found.len(),
            found[at],
            expected[at]
        );
    }
}
