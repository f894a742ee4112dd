use super::*;

const SLOT: u64 = 17;
const KEY: &[u8] = b"model/layer/0001";
const METADATA: &[u8] = b"shape 2x3, dtype f16";
const PAYLOAD: &[u8] = b"a payload that is short enough to lie in the header block";

fn fields(payload: SlotPayload<'static>) -> SlotFields<'static> {
    SlotFields {
        slot: SLOT,
        sequence: 77,
        key_hash: [5; 16],
        key: KEY,
        metadata: METADATA,
        payload,
    }
}

fn following() -> SlotPayload<'static> {
    SlotPayload::Following {
        len: PAYLOAD.len() as u64,
        checksum: payload_checksum(&UUID, SLOT, 77, [PAYLOAD]),
    }
}

fn block(payload: SlotPayload<'static>) -> [u8; 512] {
    let mut block = [0xEE; 512];
    SlotHeader::encode(&mut block, &store(512), &fields(payload)).unwrap();
    block
}

fn encode(fields: &SlotFields<'_>) -> Result<ObjectEntry, EncodeError> {
    SlotHeader::encode(&mut [0; 512], &store(512), fields)
}

#[test]
fn an_object_with_an_inline_payload_comes_back_as_it_was_written() {
    let block = block(SlotPayload::Inline(PAYLOAD));
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    assert_eq!((view.key, view.metadata), (KEY, METADATA));
    assert_eq!(view.inline_payload, Some(PAYLOAD));
    assert_eq!(view.header.verify_payload([PAYLOAD]), Ok(()));
    assert_eq!(view.header.payload_offset(512), 128 + 16 + 20);
}

#[test]
fn an_object_with_a_payload_behind_the_header_comes_back_as_it_was_written() {
    for block_size in [512, 4096, 65536] {
        let mut block = vec![0xEE; block_size as usize];
        let fields = fields(following());
        let entry = SlotHeader::encode(&mut block, &store(block_size), &fields).unwrap();
        let view = SlotHeader::read(&block, &store(block_size), SLOT).unwrap();
        assert_eq!((view.key, view.metadata), (KEY, METADATA));
        assert_eq!(view.inline_payload, None);
        assert_eq!(view.header.entry, entry);
        assert_eq!(view.header.verify_payload([PAYLOAD]), Ok(()));
        assert_eq!(view.header.payload_offset(block_size), block_size.into());
    }
}

#[test]
fn a_payload_in_pieces_verifies_like_the_whole() {
    let block = block(following());
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    for cut in 0..=PAYLOAD.len() {
        let (one, two) = PAYLOAD.split_at(cut);
        assert_eq!(view.header.verify_payload([one, two]), Ok(()));
    }
    let longer = view.header.verify_payload([PAYLOAD, b"!"]);
    let shorter = view.header.verify_payload([&PAYLOAD[1..]]);
    assert!(matches!(longer, Err(Damage::Inconsistent(_))));
    assert!(matches!(shorter, Err(Damage::Inconsistent(_))));
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let mut after = KEY.to_vec();
    after.extend(METADATA);
    let place = [&UUID[..], &SLOT.to_le_bytes(), &77_u64.to_le_bytes()].concat();
    let payload_checksum = checksum::crc64_bit_by_bit(&[&place, PAYLOAD].concat());
    let mut expected = image(
        128,
        &[
            (0, b"RAWBLKSL"),
            (12, &1_u32.to_le_bytes()),
            (16, &UUID),
            (32, &[5; 16]),
            (48, &77_u64.to_le_bytes()),
            (56, &57_u32.to_le_bytes()),
            (60, &16_u16.to_le_bytes()),
            (62, &20_u16.to_le_bytes()),
            (64, &SLOT.to_le_bytes()),
            (72, &payload_checksum.to_le_bytes()),
            (80, &checksum::crc32c_bit_by_bit(&after).to_le_bytes()),
            (84, &1_u32.to_le_bytes()),
            (88, &1_u32.to_le_bytes()),
        ],
    );
    expected.extend(after);
    expected.extend(PAYLOAD);
    expected.resize(512, 0);
    assert_eq!(block(SlotPayload::Inline(PAYLOAD)).as_slice(), expected);
}

#[test]
fn every_flipped_bit_of_header_key_and_metadata_is_found() {
    let store = store(512);
    let covered = 128 + KEY.len() + METADATA.len();
    every_flip_is_found(&mut block(following()), covered, |block| {
        SlotHeader::read(block, &store, SLOT).map(drop)
    });
}

#[test]
fn every_flipped_bit_of_a_payload_is_found() {
    let store = store(512);
    let mut block = block(SlotPayload::Inline(PAYLOAD));
    let start = 128 + KEY.len() + METADATA.len();
    for byte in start..start + PAYLOAD.len() {
        for bit in 0..8 {
            block[byte] ^= 1 << bit;
            let view = SlotHeader::read(&block, &store, SLOT).unwrap();
            let found = view.header.verify_payload(view.inline_payload);
            assert!(matches!(found, Err(Damage::Checksum { .. })));
            block[byte] ^= 1 << bit;
        }
    }
}

#[test]
fn a_header_of_another_store_or_slot_is_refused() {
    let block = block(following());
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
    let block = block(following());
    let view = SlotHeader::read(&block, &store(512), SLOT).unwrap();
    for (uuid, slot, sequence) in [(OTHER_UUID, 17, 77), (UUID, 18, 77), (UUID, 17, 76)] {
        let mut header = *view.header;
        let theirs = payload_checksum(&uuid, slot, sequence, [PAYLOAD]);
        header.payload_checksum = theirs.into();
        let found = header.verify_payload([PAYLOAD]);
        assert!(matches!(found, Err(Damage::Checksum { .. })));
    }
}

#[test]
fn fields_out_of_bounds_are_refused() {
    let following_forgeries: &[(usize, &[u8], &str)] = &[
        (48, &[0; 8], "the sequence of an object is 0"),
        (56, &[1, 14], "the payload does not fit into the slot"),
        (56, &[0xFF; 4], "the payload does not fit into the slot"),
        (60, &[0], "the key is empty"),
        (60, &[0x6D, 1], "key and metadata do not fit into the header block"),
        (60, &[0xFF; 4], "key and metadata do not fit into the header block"),
        (84, &[2], "an unknown flag is set"),
        (87, &[0x80], "an unknown flag is set"),
        (88, &[0], "the span is not 1"),
        (88, &[2], "the span is not 1"),
        (92, &[1], "reserved bytes are not zero"),
        (127, &[1], "reserved bytes are not zero"),
    ];
    let inline_forgeries: &[(usize, &[u8], &str)] =
        &[(56, &[0x5D, 1], "the inline payload does not fit into the header block")];
    for (payload, forgeries) in
        [(following(), following_forgeries), (SlotPayload::Inline(PAYLOAD), inline_forgeries)]
    {
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
    let mut store = store(512);
    store.slot_size = 512.into();
    let mut block = block(following());
    assert_eq!(
        SlotHeader::read(&block, &store, SLOT).unwrap_err(),
        Damage::Inconsistent("the payload does not fit behind the header block")
    );
    let refused = SlotHeader::encode(&mut block, &store, &fields(following()));
    assert!(matches!(refused, Err(EncodeError::TooLarge { .. })));
    let inline = fields(SlotPayload::Inline(PAYLOAD));
    SlotHeader::encode(&mut block, &store, &inline).unwrap();
    assert!(SlotHeader::read(&block, &store, SLOT).is_ok());
}

#[test]
fn what_fits_exactly_is_written_and_one_byte_more_is_not() {
    let key = [1; 512];
    let inline = [2; 512];
    let room = 512 - SLOT_HEADER_LEN;
    let base = fields(SlotPayload::Inline(&[]));
    let of = |key_len: usize, inline_len: usize| {
        encode(&SlotFields {
            key: &key[..key_len],
            metadata: &[],
            payload: SlotPayload::Inline(&inline[..inline_len]),
            ..base
        })
    };
    for key_len in [1, 100, room] {
        let left = room - key_len;
        assert!(fits_inline(key_len, 0, left as u64, 512));
        assert!(of(key_len, left).is_ok());
        assert!(!fits_inline(key_len, 0, left as u64 + 1, 512));
        let expected = EncodeError::TooLarge {
            what: "the slot header with all that lies in its block",
            needed: 513,
            available: 512,
        };
        assert_eq!(of(key_len, left + 1), Err(expected));
    }
    assert!(!fits_inline(usize::MAX, usize::MAX, u64::MAX, 65536));

    assert_eq!(max_payload(8 * 512, 512), 7 * 512);
    for (len, fits) in [(7 * 512, true), (7 * 512 + 1, false), (u64::MAX, false)] {
        let payload = SlotPayload::Following { len, checksum: 0 };
        assert_eq!(encode(&SlotFields { payload, ..base }).is_ok(), fits);
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let good = fields(following());
    assert!(encode(&good).is_ok());
    assert!(encode(&SlotFields { slot: 40, ..good }).is_err());
    assert!(encode(&SlotFields { sequence: 0, ..good }).is_err());
    assert!(encode(&SlotFields { key: &[], ..good }).is_err());

    let mut block = [0xEE; 512];
    let empty = SlotFields { key: &[], ..good };
    assert!(SlotHeader::encode(&mut block, &store(512), &empty).is_err());
    assert_eq!(block, [0xEE; 512], "a refusal leaves the block as it was");
    assert!(SlotHeader::encode(&mut block[1..], &store(512), &good).is_err());
}

#[test]
fn the_widest_slot_and_block_are_within_the_lengths_of_an_entry() {
    let mut store = store(65536);
    store.slot_size = MAX_SLOT_SIZE.into();
    let key = vec![1; 65536 - SLOT_HEADER_LEN];
    let len = max_payload(MAX_SLOT_SIZE, 65536);
    let fields = SlotFields {
        key: &key,
        metadata: &[],
        payload: SlotPayload::Following { len, checksum: 0 },
        ..fields(following())
    };
    let mut block = vec![0; 65536];
    let entry = SlotHeader::encode(&mut block, &store, &fields).unwrap();
    assert_eq!(u64::from(entry.payload_len), len);
    assert_eq!(entry.header_len(), 65536);
    let view = SlotHeader::read(&block, &store, SLOT).unwrap();
    assert_eq!(view.key, key);
}
