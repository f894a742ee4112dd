use twox_hash::XxHash3_64;

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

#[test]
fn the_published_check_value_comes_out() {
    let check = b"123456789".as_slice();
    assert_eq!(crc32c([check]), 0xE306_9283);
    assert_eq!(crc32c_bit_by_bit(check), 0xE306_9283);
}

#[test]
fn every_length_and_every_cut_gives_the_checksum_of_the_whole() {
    let bytes: Vec<u8> = (0..1500_u32).map(|i| (i * i % 251) as u8).collect();
    for len in 0..bytes.len() {
        let whole = &bytes[..len];
        let (one, two) = whole.split_at(len / 3);
        let crc32 = crc32c_bit_by_bit(whole);
        assert_eq!(crc32c([whole]), crc32, "length {len}");
        assert_eq!(crc32c([one, &[], two]), crc32, "length {len}");
    }
}

#[test]
fn the_hash_of_payloads_is_that_of_the_reference_implementation() {
    // libxxhash 0.8.1, at the lengths where XXH3 goes another way: without a seed, and with one.
    const SEED: u64 = 0x0102_0304_0506_0708;
    let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * i % 251) as u8).collect();
    for (len, plain, seeded) in [
        (0, 0x2D06_8005_38D3_94C2, 0x4A7F_542D_4511_AB5E),
        (1, 0xC44B_DFF4_074E_ECDB, 0xF9C3_F76A_B6D3_6495),
        (3, 0x3789_2F62_4F40_B19C, 0x09B9_0825_18B0_EEAB),
        (4, 0x5206_B2E6_B553_FE7E, 0xDF73_AD53_2901_5150),
        (8, 0xBCFE_131F_A6CB_6952, 0x419D_AF0D_B175_11DD),
        (9, 0x95A8_B757_2F43_0FEF, 0x5E47_0E80_0DE1_B825),
        (16, 0xF36D_1380_FC3D_25FD, 0xB024_D2EF_67B8_6EC0),
        (17, 0x85B8_6FB7_6A78_E347, 0x746A_8FEE_5138_A4DA),
        (128, 0xA053_9760_2C0D_7380, 0x5222_9BD0_2C7F_52C4),
        (129, 0xB0BE_8561_055F_B150, 0xDFD2_BAB0_DDA4_7265),
        (240, 0x2599_F783_6101_B7C7, 0x5920_05B6_9FA9_1256),
        (241, 0xFA3E_3F95_0B82_1A67, 0x3DD8_B5E2_7272_3E37),
        (1024, 0xA311_5476_086F_73F1, 0x2991_682E_17FA_73F9),
        (1025, 0x66B0_70BD_2732_7C00, 0xAA97_2359_F529_3777),
        (5000, 0x924C_0D5E_4141_8245, 0xDBE6_AF32_A559_8184),
    ] {
        assert_eq!(XxHash3_64::oneshot(&bytes[..len]), plain, "length {len}");
        assert_eq!(XxHash3_64::oneshot_with_seed(SEED, &bytes[..len]), seeded, "length {len}");
    }
}

#[test]
fn the_payload_checksum_is_seeded_with_uuid_slot_and_sequence() {
    let checksum = payload_checksum(&[7; 16], 0x0102_0304_0506_0708, 9, b"payload");
    // By libxxhash, from the bytes of the documentation.
    assert_eq!(checksum, 0xA25C_2C72_584D_1B6D);
}

#[test]
fn the_payload_checksum_tells_stores_slots_and_writes_apart() {
    let payload = b"payload";
    let checksum = payload_checksum(&[7; 16], 1, 2, payload);
    assert_ne!(checksum, payload_checksum(&[8; 16], 1, 2, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 3, 2, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 1, 3, payload));
    assert_ne!(checksum, payload_checksum(&[7; 16], 2, 1, payload));
}
