use twox_hash::XxHash3_64;

use super::*;

const SLOT: u64 = 17;
const KEY: &[u8] = b"model/layer/0001";
const METADATA: &[u8] = b"shape 2x3, dtype f16";
const PAYLOAD: &[u8] = b"a payload that is short enough to lie in the header block";

/// Longer than what a block of 512 bytes has room for.
const LONG: &[u8] = &pattern::<600>();

/// What the block of 512 bytes has room for beside `KEY` and `METADATA`.
const ROOM: usize = 512 - SLOT_HEADER_LEN - KEY.len() - METADATA.len();

/// Bytes that differ from their neighbours, and from those half a block away.
const fn pattern<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let mut at = 1;
    while at < LEN {
        bytes[at] = (bytes[at - 1] + 1) % 251;
        at += 1;
    }
    bytes
}

fn fields(payload: &[u8]) -> SlotFields<'_> {
    SlotFields {
        slot: SLOT,
        sequence: 77,
        checkpoint: 9,
        key_hash: [5; 16],
        key: KEY,
        metadata: METADATA,
        payload,
    }
}

fn block(payload: &[u8]) -> [u8; 512] {
    let mut block = [0xEE; 512];
    SlotHeader::encode(&mut block, &store(512), &fields(payload)).unwrap();
    block
}

fn encode(fields: &SlotFields<'_>) -> Result<ObjectEntry, EncodeError> {
    SlotHeader::encode(&mut [0; 512], &store(512), fields)
}

#[test]
fn an_object_comes_back_as_it_was_written_with_its_payload_inline_if_it_fits() {
    for block_size in [512, 4096, 65536] {
        let room = block_size as usize - SLOT_HEADER_LEN - KEY.len() - METADATA.len();
        for len in [0, 1, PAYLOAD.len(), room, room + 1, 7 * block_size as usize] {
            let payload: Vec<u8> = pattern::<251>().into_iter().cycle().take(len).collect();
            let mut block = vec![0xEE; block_size as usize];
            let store = store(block_size);
            let entry = SlotHeader::encode(&mut block, &store, &fields(&payload)).unwrap();
            let view = SlotHeader::read(&block, &store, SLOT).unwrap();
            assert_eq!((view.key, view.metadata), (KEY, METADATA));
            assert_eq!(view.header.entry, entry);
            assert_eq!(entry.is_inline(block_size), len <= room);
            assert_eq!(view.inline_payload, (len <= room).then_some(&payload[..]));
            assert_eq!(view.header.verify_payload(&payload), Ok(()));
        }
    }
}

#[test]
fn where_a_payload_lies_follows_from_the_lengths() {
    // Whatever the writer had put into the block.
    for payload in [PAYLOAD, LONG] {
        for (len, inline) in [(0, true), (ROOM, true), (ROOM + 1, false), (7 * 512, false)] {
            let mut block = block(payload);
            forge(&mut block[..128], 56, &u32::try_from(len).unwrap().to_le_bytes());
            let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
            assert_eq!(view.inline_payload.map(<[u8]>::len), inline.then_some(len));
        }
    }
}

#[test]
fn a_payload_of_another_length_is_refused() {
    let block = block(LONG);
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    for payload in [&[LONG, b"!"].concat(), &LONG[1..]] {
        let found = view.header.verify_payload(payload);
        assert!(matches!(found, Err(Damage::Inconsistent(_))));
    }
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let mut after = KEY.to_vec();
    after.extend(METADATA);
    let place = [&UUID[..], &SLOT.to_le_bytes(), &77_u64.to_le_bytes()].concat();
    for (payload, len, in_the_block) in [(PAYLOAD, 57_u32, PAYLOAD), (LONG, 600, &[])] {
        let payload_checksum = XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&place), payload);
        let mut expected = image(
            128,
            &[
                (0, b"RAWBLKSL"),
                (12, &1_u32.to_le_bytes()),
                (16, &UUID),
                (32, &[5; 16]),
                (48, &77_u64.to_le_bytes()),
                (56, &len.to_le_bytes()),
                (60, &16_u16.to_le_bytes()),
                (62, &20_u16.to_le_bytes()),
                (64, &SLOT.to_le_bytes()),
                (72, &payload_checksum.to_le_bytes()),
                (80, &checksum::crc32c_bit_by_bit(&after).to_le_bytes()),
                (84, &1_u32.to_le_bytes()),
                (88, &9_u64.to_le_bytes()),
            ],
        );
        expected.extend(&after);
        expected.extend(in_the_block);
        expected.resize(512, 0);
        assert_eq!(block(payload).as_slice(), expected);
    }
}

#[test]
fn every_flipped_bit_of_header_key_and_metadata_is_found() {
    let store = store(512);
    let covered = 128 + KEY.len() + METADATA.len();
    for payload in [PAYLOAD, LONG] {
        every_flip_is_found(&mut block(payload), covered, |block| {
            SlotHeader::read(block, &store, SLOT).map(drop)
        });
    }
}

#[test]
fn every_flipped_bit_of_an_inline_payload_is_found() {
    let store = store(512);
    let mut block = block(PAYLOAD);
    let start = 128 + KEY.len() + METADATA.len();
    for byte in start..start + PAYLOAD.len() {
        for bit in 0..8 {
            block[byte] ^= 1 << bit;
            let view = SlotHeader::read(&block, &store, SLOT).unwrap();
            let found = view.header.verify_payload(view.inline_payload.unwrap());
            assert!(matches!(found, Err(Damage::Checksum { .. })));
            block[byte] ^= 1 << bit;
        }
    }
}

#[test]
fn every_flipped_bit_of_a_payload_behind_the_header_is_found() {
    let block = block(LONG);
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    let mut payload = LONG.to_vec();
    for byte in 0..payload.len() {
        for bit in 0..8 {
            payload[byte] ^= 1 << bit;
            let found = view.header.verify_payload(&payload);
            assert!(matches!(found, Err(Damage::Checksum { .. })));
            payload[byte] ^= 1 << bit;
        }
    }
}

#[test]
fn a_header_of_another_store_or_slot_is_refused() {
    let block = block(LONG);
    assert_eq!(
        SlotHeader::read(&block, &other_store(512), SLOT).unwrap_err(),
        Damage::ForeignStore
    );
    assert_eq!(
        SlotHeader::read(&block, &store(512), 18).unwrap_err(),
        Damage::WrongPlace { found: 17, expected: 18 }
    );
}

#[test]
fn an_intact_payload_of_another_store_slot_or_write_is_refused() {
    let block = block(LONG);
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    for (uuid, slot, sequence) in [(OTHER_UUID, 17, 77), (UUID, 18, 77), (UUID, 17, 76)] {
        let mut header = *view.header;
        let theirs = payload_checksum(&uuid, slot, sequence, LONG);
        header.payload_checksum = theirs.into();
        let found = header.verify_payload(LONG);
        assert!(matches!(found, Err(Damage::Checksum { .. })));
    }
}

#[test]
fn fields_out_of_bounds_are_refused() {
    let forgeries: &[(usize, &[u8], &str)] = &[
        (48, &[0; 8], "the sequence of an object is 0"),
        (48, &[0xFF; 8], "the sequence of an object is too high"),
        (56, &[1, 14], "the payload does not fit into the slot"),
        (56, &[0xFF; 4], "the payload does not fit into the slot"),
        (60, &[0], "the key is empty"),
        (60, &[0x6D, 1], "key and metadata do not fit into the header block"),
        (60, &[0xFF; 4], "key and metadata do not fit into the header block"),
        (84, &[0], "the span is not 1"),
        (84, &[2], "the span is not 1"),
        (87, &[0x80], "the span is not 1"),
        (88, &[0], "the checkpoint number is 0"),
        (95, &[0x80], "the checkpoint number is too high"),
        (96, &[1], "reserved bytes are not zero"),
        (127, &[1], "reserved bytes are not zero"),
    ];
    for payload in [PAYLOAD, LONG] {
        for (at, bytes, rule) in forgeries {
            let mut block = block(payload);
            forge(&mut block[..128], *at, bytes);
            assert_eq!(
                SlotHeader::read(&block, &store(512), SLOT).unwrap_err(),
                Damage::Inconsistent(rule),
                "offset {at}"
            );
        }
    }
}

#[test]
fn a_slot_of_one_block_takes_inline_payloads_only() {
    let mut one_block = store(512);
    one_block.slot_size = 512.into();
    for len in [ROOM + 1, LONG.len()] {
        let mut block = block(&LONG[..len]);
        assert_eq!(
            SlotHeader::read(&block, &one_block, SLOT).unwrap_err(),
            Damage::Inconsistent("the payload does not fit into the slot")
        );
        let (needed, available) = (len as u64, ROOM as u64);
        assert_eq!(
            SlotHeader::encode(&mut block, &one_block, &fields(&LONG[..len])),
            Err(EncodeError::TooLarge { what: "the payload", needed, available })
        );
    }
    for len in [0, ROOM] {
        let mut block = [0; 512];
        SlotHeader::encode(&mut block, &one_block, &fields(&LONG[..len])).unwrap();
        let view = SlotHeader::read(&block, &one_block, SLOT).unwrap();
        assert_eq!(view.inline_payload, Some(&LONG[..len]));
    }
}

#[test]
fn what_fits_exactly_is_written_and_one_byte_more_is_not() {
    let part = [1; 512];
    let payload = [2; 7 * 512 + 1];
    let room = 512 - SLOT_HEADER_LEN;
    let of = |key_len: usize, metadata_len: usize, payload_len: usize| {
        encode(&SlotFields {
            key: &part[..key_len],
            metadata: &part[..metadata_len],
            ..fields(&payload[..payload_len])
        })
    };
    for key_len in [1, 100, room] {
        let left = room - key_len;
        assert!(fits_inline(key_len, 0, left as u64, 512));
        assert!(of(key_len, 0, left).unwrap().is_inline(512));
        assert!(!fits_inline(key_len, 0, left as u64 + 1, 512));
        assert!(!of(key_len, 0, left + 1).unwrap().is_inline(512));

        assert!(of(key_len, left, 0).unwrap().is_inline(512));
        let expected = EncodeError::TooLarge {
            what: "the slot header with key and metadata",
            needed: 513,
            available: 512,
        };
        assert_eq!(of(key_len, left + 1, 0), Err(expected));
    }
    assert!(!fits_inline(usize::MAX, usize::MAX, u64::MAX, 65536));

    assert_eq!(max_payload(8 * 512, 512), 7 * 512);
    assert!(of(1, 0, 7 * 512).is_ok());
    let expected = EncodeError::TooLarge { what: "the payload", needed: 3585, available: 3584 };
    assert_eq!(of(1, 0, 7 * 512 + 1), Err(expected));
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let good = fields(LONG);
    assert!(encode(&good).is_ok());
    assert!(encode(&SlotFields { slot: 40, ..good }).is_err());
    assert!(encode(&SlotFields { sequence: 0, ..good }).is_err());
    assert!(encode(&SlotFields { checkpoint: 0, ..good }).is_err());
    assert!(encode(&SlotFields { key: &[], ..good }).is_err());

    let mut block = [0xEE; 512];
    for refused in [
        SlotFields { key: &[], ..good },
        SlotFields { metadata: LONG, ..good },
        SlotFields { payload: &[0; 7 * 512 + 1], ..good },
    ] {
        assert!(SlotHeader::encode(&mut block, &store(512), &refused).is_err());
        assert_eq!(block, [0xEE; 512], "a refusal leaves the block as it was");
    }
    assert!(SlotHeader::encode(&mut block[1..], &store(512), &good).is_err());
}

#[test]
fn the_widest_slot_and_block_are_within_the_lengths_of_an_entry() {
    let mut store = store(65536);
    store.slot_size = MAX_SLOT_SIZE.into();
    let key = vec![1; 65536 - SLOT_HEADER_LEN];
    let fields = SlotFields { key: &key, metadata: &[], ..fields(PAYLOAD) };
    let mut block = vec![0; 65536];
    let entry = SlotHeader::encode(&mut block, &store, &fields).unwrap();
    assert_eq!(entry.header_len(), 65536);
    assert!(!entry.is_inline(65536));

    // In place of a payload of that length.
    let widest = u32::try_from(max_payload(MAX_SLOT_SIZE, 65536)).unwrap();
    forge(&mut block[..128], 56, &widest.to_le_bytes());
    let view = SlotHeader::read(&block, &store, SLOT).unwrap();
    assert_eq!(view.header.entry.payload_len, widest);
    assert_eq!(view.key, key);
    assert_eq!(view.inline_payload, None);
    forge(&mut block[..128], 56, &(widest + 1).to_le_bytes());
    assert_eq!(
        SlotHeader::read(&block, &store, SLOT).unwrap_err(),
        Damage::Inconsistent("the payload does not fit into the slot")
    );
}

#[test]
fn a_header_is_not_read_as_that_of_a_slot_which_the_store_does_not_have() {
    let block = block(PAYLOAD);
    let smaller = Superblock { slot_count: SLOT.into(), ..store(512) };
    let refused = SlotHeader::read(&block, &smaller, SLOT);
    assert_eq!(refused.unwrap_err(), Damage::Inconsistent("the store has no such slot"));
}
