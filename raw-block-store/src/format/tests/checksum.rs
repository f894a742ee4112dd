use super::super::*;

/// CRC-32C by its definition, to compare with.
pub(super) fn crc32c_bit_by_bit(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !crc
}

/// CRC-64/NVME by its definition, to compare with.
pub(super) fn crc64_bit_by_bit(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 };
        }
    }
    !crc
}

#[test]
fn the_published_check_values_come_out() {
    let check = b"123456789".as_slice();
    assert_eq!(crc32c([check]), 0xE306_9283);
    assert_eq!(crc64_nvme([check]), 0xAE8B_1486_0A79_9888);
    assert_eq!(crc32c_bit_by_bit(check), 0xE306_9283);
    assert_eq!(crc64_bit_by_bit(check), 0xAE8B_1486_0A79_9888);
}

#[test]
fn every_length_and_every_cut_gives_the_checksum_of_the_whole() {
    let bytes: Vec<u8> = (0..1500_u32).map(|i| (i * i % 251) as u8).collect();
    for len in 0..bytes.len() {
        let whole = &bytes[..len];
        let (one, two) = whole.split_at(len / 3);
        let crc32 = crc32c_bit_by_bit(whole);
        let crc64 = crc64_bit_by_bit(whole);
        assert_eq!(crc32c([whole]), crc32, "length {len}");
        assert_eq!(crc32c([one, &[], two]), crc32, "length {len}");
        assert_eq!(crc64_nvme([whole]), crc64, "length {len}");
        assert_eq!(crc64_nvme([one, &[], two]), crc64, "length {len}");
    }
}

#[test]
fn the_payload_checksum_is_that_of_uuid_slot_sequence_and_payload() {
    let uuid = [7; 16];
    let mut bytes = uuid.to_vec();
    bytes.extend(0x0102_0304_0506_0708_u64.to_le_bytes());
    bytes.extend(9_u64.to_le_bytes());
    bytes.extend(b"payload");
    let parts = [b"pay".as_slice(), b"load"];
    let checksum = payload_checksum(&uuid, 0x0102_0304_0506_0708, 9, parts);
    assert_eq!(checksum, crc64_bit_by_bit(&bytes));
}

#[test]
fn the_payload_checksum_tells_stores_slots_and_writes_apart() {
    let payload = [b"payload".as_slice()];
    let checksum = payload_checksum(&[7; 16], 1, 2, payload);
    assert_ne!(checksum, payload_checksum(&[8; 16], 1, 2, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 3, 2, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 1, 3, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 2, 1, payload));
}
