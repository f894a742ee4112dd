use proptest::prelude::*;

use super::*;
use crate::format::EncodeError;

const PLACE: SlotPlace =
    SlotPlace { segment: 3, generation: 70, block: 9, blocks: 4, first_entry: 5 };

/// An object with its parts, before it is written.
#[derive(Clone, Debug)]
struct Parts {
    key: Vec<u8>,
    metadata: Vec<u8>,
    payload: Vec<u8>,
}

fn parts(lens: &[(usize, usize, usize)]) -> Vec<Parts> {
    let bytes = |len, seed: usize| (0..len).map(|at| ((at * 7 + seed * 31) % 251) as u8).collect();
    let part = |(at, &(key, metadata, payload)): (usize, &(usize, usize, usize))| Parts {
        key: bytes(key, at),
        metadata: bytes(metadata, at + 50),
        payload: bytes(payload, at + 100),
    };
    lens.iter().enumerate().map(part).collect()
}

/// Writes objects one after the other; one alone is inline if `inline`.
fn encode(
    layout: &Layout,
    place: &SlotPlace,
    parts: &[Parts],
    inline: bool,
) -> Result<(Vec<u8>, Vec<Entry>), EncodeError> {
    let mut next = place.block + 1;
    let entries: Vec<Entry> = (0..)
        .zip(parts)
        .map(|(at, part)| {
            let blocks = (part.payload.len() as u32).div_ceil(layout.block_size);
            let block = if inline || blocks == 0 { place.block } else { next };
            next += if inline { 0 } else { blocks };
            let mut entry = Entry {
                key_hash: [at; 16],
                sequence: (1000 - u64::from(at)).into(),
                checksum: 0.into(),
                payload_len: (part.payload.len() as u32).into(),
                key_len: (part.key.len() as u16).into(),
                metadata_len: (part.metadata.len() as u16).into(),
                block: block.into(),
                blocks_back: (block - place.block).into(),
            };
            let at = entry.place(place.segment, place.generation);
            entry.checksum = payload_checksum(layout, &at, &part.payload).into();
            entry
        })
        .collect();
    let place = SlotPlace { blocks: next - place.block, ..*place };
    let objects = entries.iter().zip(parts).map(|(&entry, part)| SlotObject {
        entry,
        key: &part.key,
        metadata: &part.metadata,
    });
    let mut block = vec![0xEE; layout.block_size as usize];
    let payload = if inline { &parts[0].payload[..] } else { &[] };
    SlotHeader::encode(&mut block, layout, &place, objects, payload)?;
    Ok((block, entries))
}

fn shared() -> Vec<u8> {
    let parts = parts(&[(3, 5, 600), (1, 0, 0), (20, 1, 512)]);
    encode(&layout(512), &PLACE, &parts, false).unwrap().0
}

fn read(block: &[u8]) -> Result<SlotView<'_>, Damage> {
    SlotHeader::read(block, &layout(512), 3, 9)
}

fn tombstones(count: usize) -> Result<Vec<u8>, EncodeError> {
    let hashes: Vec<KeyHash> = (0..count).map(|at| [at as u8; 16]).collect();
    let place = SlotPlace { blocks: 1, ..PLACE };
    let mut block = vec![0xEE; 512];
    SlotHeader::encode_tombstones(&mut block, &layout(512), &place, 90, &hashes)?;
    Ok(block)
}

proptest! {
    #[test]
    fn objects_of_a_slot_are_read_back(
        lens in prop::collection::vec((1_usize..60, 0_usize..40, 0_usize..3000), 1..20),
        inline in any::<bool>(),
    ) {
        let layout = layout(4096);
        let parts = parts(&lens);
        let inline = inline && parts.len() == 1 && !parts[0].payload.is_empty();
        let (block, entries) = encode(&layout, &PLACE, &parts, inline).unwrap();
        let view = SlotHeader::read(&block, &layout, 3, 9).unwrap();
        prop_assert!(view.of_generation(70).is_ok());
        prop_assert_eq!(view.entries(), &entries);
        prop_assert_eq!(view.entry_numbers() as usize, parts.len());
        prop_assert!(view.tombstones().is_none() && view.tombstone_entry().is_none());
        prop_assert_eq!(view.objects().count(), parts.len());
        for ((number, object), part) in (5..).zip(view.objects()).zip(&parts) {
            prop_assert_eq!(object.number, number);
            prop_assert_eq!((object.key, object.metadata), (&part.key[..], &part.metadata[..]));
            let in_header = inline || part.payload.is_empty();
            prop_assert_eq!(object.payload, in_header.then_some(&part.payload[..]));
            prop_assert!(object.entry.verify_payload(&layout, 3, 70, &part.payload).is_ok());
            prop_assert_eq!(view.object(number), Some(object));
        }
        prop_assert_eq!(view.object(5 + parts.len() as u32), None);
        if inline {
            let at = entries[0].inline_offset();
            prop_assert_eq!(&block[at..at + parts[0].payload.len()], &parts[0].payload[..]);
        }
    }

    #[test]
    fn forged_slots_are_refused_or_read_but_never_panic(
        at in 40_usize..230,
        bytes in any::<[u8; 8]>(),
        len in 1_usize..=8,
        is_tombstones in any::<bool>(),
    ) {
        let layout = layout(512);
        let mut block = if is_tombstones { tombstones(4).unwrap() } else { shared() };
        forge_slot(&mut block, &layout, at, &bytes[..len]);
        if let Ok(view) = read(&block) {
            prop_assert!(view.objects().all(|object| !object.key.is_empty()));
            let header = *view.header;
            let place = SlotPlace {
                segment: 3,
                generation: header.generation.get(),
                block: 9,
                blocks: header.blocks.get(),
                first_entry: header.first_entry.get(),
            };
            let mut again = vec![0xEE; 512];
            if let Some(hashes) = view.tombstones() {
                let sequence = header.sequence.get();
                SlotHeader::encode_tombstones(&mut again, &layout, &place, sequence, hashes).unwrap();
            } else {
                let objects: Vec<_> = view.objects().collect();
                let inline = objects[0].payload.unwrap_or_default();
                let objects = objects.iter().map(|object| SlotObject {
                    entry: *object.entry,
                    key: object.key,
                    metadata: object.metadata,
                });
                SlotHeader::encode(&mut again, &layout, &place, objects, inline).unwrap();
            }
            let len = header.len.get() as usize;
            prop_assert_eq!(&again[..len], &block[..len]);
        }
    }

    #[test]
    fn a_hash_does_not_depend_on_the_pieces(
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        cuts in prop::collection::vec(0_usize..2000, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(payload.len())).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        let mut hasher = PayloadHasher::new();
        for pair in cuts.windows(2) {
            hasher.update(&payload[pair[0]..pair[1]]);
        }
        prop_assert_eq!(hasher.finish(), payload_hash(&payload));
    }
}

#[test]
fn tombstones_are_read_back() {
    for count in [1, 2, tombstones_per_slot(512)] {
        let block = tombstones(count).unwrap();
        let view = read(&block).unwrap();
        assert_eq!(view.tombstones().unwrap().len(), count);
        assert_eq!(view.tombstones().unwrap()[count - 1], [(count - 1) as u8; 16]);
        assert_eq!(view.tombstone_entry(), Some(Entry::tombstone(90, 9)));
        assert_eq!((view.entry_numbers(), view.entries().len(), view.objects().count()), (1, 0, 0));
    }
    assert!(matches!(tombstones(28), Err(EncodeError::TooLarge { .. })));
    assert!(tombstones(0).is_err());
}

#[test]
fn every_flipped_bit_of_a_slot_header_is_found() {
    for mut block in [shared(), tombstones(5).unwrap()] {
        let len = read(&block).unwrap().header.len.get() as usize;
        every_flip_is_found(&mut block, len, |block| read(block).map(drop));
    }
}

#[test]
fn a_slot_of_another_place_or_generation_is_refused() {
    let block = shared();
    let wrong = |found, expected| Damage::WrongPlace { found, expected };
    let at = |segment, number| SlotHeader::read(&block, &layout(512), segment, number).unwrap_err();
    assert_eq!(at(4, 9), wrong(3, 4));
    assert_eq!(at(3, 10), wrong(9, 10));
    assert_eq!(read(&block).unwrap().of_generation(71).unwrap_err(), wrong(70, 71));
    let other = SlotHeader::read(&block, &other_member(512), 3, 9);
    assert_eq!(other.unwrap_err(), Damage::ForeignStore);
}

#[test]
fn a_forger_without_the_secret_is_refused() {
    // The header says the right place, and all but the keyed hash is right.
    let stranger = layout(512).with_identity(&MEMBER, b"another secret!!");
    let parts = parts(&[(3, 5, 600)]);
    let (block, _) = encode(&stranger, &PLACE, &parts, false).unwrap();
    assert!(matches!(read(&block), Err(Damage::Checksum { .. })));
    assert!(SlotHeader::read(&block, &stranger, 3, 9).is_ok());
}

#[test]
fn slot_headers_that_lie_are_refused() {
    let layout = layout(512);
    let u32s = u32::to_le_bytes;
    let forgeries: &[(usize, &[u8], &str)] = &[
        (40, &[0; 8], "the generation is 0"),
        (56, &u32s(62), "the entry numbers of the slot are out of range"),
        (56, &u32s(u32::MAX), "the entry numbers of the slot are out of range"),
        (60, &[0, 0], "the slot holds nothing"),
        (60, &[2, 0], "keys and metadata do not end"),
        (60, &[9, 0], "the block ends before"),
        (60, &[0xFF, 0xFF], "the entry numbers of the slot are out of range"),
        (62, &[3, 0], "the kind of the slot is unknown"),
        (62, &[2, 0], "the key hashes of the slot"),
        (64, &u32s(0), "the slot has no block"),
        (64, &u32s(5), "the slot does not end with its last payload"),
        (64, &u32s(u32::MAX), "the slot ends past its segment"),
        (68, &u32s(253), "keys and metadata do not end"),
        (68, &u32s(100), "the block ends before"),
        (68, &u32s(513), "the keys and metadata of the slot do not end within"),
        (68, &u32s(10), "the keys and metadata of the slot do not end within"),
        (72, &[1], "a slot of objects has the sequence"),
        (96, &[0; 8], "the sequence of a change is 0"),
        (112, &u32s(1025), "the payloads of the slot overlap"),
        (112, &u32s(512), "the payloads of the slot overlap"),
        (112, &u32s(u32::MAX), "the payloads of the slot overlap"),
        (112, &u32s(0), "a payload without a byte takes a block"),
        (116, &[0, 0], "the key is empty"),
        (116, &[0xFF, 0xFF], "key, metadata and inline payload do not fit"),
        (118, &[6, 0], "keys and metadata do not end"),
        (120, &u32s(11), "an entry belongs to another slot"),
        (124, &u32s(10), "the slot header is not in front"),
        (120, &[9, 0, 0, 0, 0, 0, 0, 0], "key, metadata and inline payload do not fit"),
        (160, &u32s(10), "the payload of an object that shares its slot"),
    ];
    for (at, bytes, rule) in forgeries {
        let mut block = shared();
        forge_slot(&mut block, &layout, *at, bytes);
        let found = inconsistent(read(&block));
        assert!(found.starts_with(rule), "byte {at}: {found}");
    }
    for (at, bytes, rule) in [
        (64, [2_u8, 0], "a slot of tombstones has more than one block"),
        (60, [4, 0], "the key hashes of the slot"),
        (72, [0, 0], "the sequence of a change is 0"),
    ] {
        let mut block = tombstones(5).unwrap();
        forge_slot(&mut block, &layout, at, &bytes);
        assert!(inconsistent(read(&block)).starts_with(rule), "byte {at}");
    }
}

#[test]
fn a_writer_refuses_what_does_not_fit() {
    let layout = layout(512);
    let try_with = |lens: &[_], place: &SlotPlace, inline| {
        encode(&layout, place, &parts(lens), inline).map(drop)
    };
    let too_large = |result| matches!(result, Err(EncodeError::TooLarge { .. }));
    assert!(try_with(&[(300, 84, 0)], &PLACE, false).is_ok());
    assert!(too_large(try_with(&[(300, 85, 0)], &PLACE, false)));
    assert!(try_with(&[(100, 84, 200)], &PLACE, true).is_ok());
    assert!(too_large(try_with(&[(100, 84, 201)], &PLACE, true)));
    assert!(too_large(try_with(&[(1, 0, 0); 10], &PLACE, false)));
    // One block of table: the slot may end at block 63 of 64.
    assert!(try_with(&[(1, 0, 53 * 512)], &PLACE, false).is_ok());
    assert!(try_with(&[(1, 0, 53 * 512 + 1)], &PLACE, false).is_err());
    // Entry 9 needs a second block of table.
    let later = SlotPlace { first_entry: 9, ..PLACE };
    assert!(try_with(&[(1, 0, 53 * 512)], &later, false).is_err());
    let alone = SlotPlace { block: 1, first_entry: 0, ..PLACE };
    let largest = layout.largest_payload() as usize;
    assert!(try_with(&[(1, 0, largest)], &alone, false).is_ok());
    assert!(try_with(&[(1, 0, largest + 1)], &alone, false).is_err());
    assert!(try_with(&[(1, 0, 1)], &SlotPlace { block: 0, ..PLACE }, false).is_err());
    assert!(try_with(&[(1, 0, 1)], &SlotPlace { segment: 1000, ..PLACE }, false).is_err());
    assert!(try_with(&[(1, 0, 1)], &SlotPlace { generation: 0, ..PLACE }, false).is_err());
    assert!(try_with(&[], &PLACE, false).is_err());
}

#[test]
fn a_payload_of_another_place_or_write_is_refused() {
    let layout = layout(512);
    let parts = parts(&[(3, 5, 600)]);
    let (_, entries) = encode(&layout, &PLACE, &parts, false).unwrap();
    let (entry, payload) = (entries[0], &parts[0].payload[..]);
    let verify = |entry: &Entry, layout: &Layout, segment, generation, payload: &[u8]| {
        entry.verify_payload(layout, segment, generation, payload).is_ok()
    };
    assert!(verify(&entry, &layout, 3, 70, payload));
    assert!(!verify(&entry, &other_member(512), 3, 70, payload));
    assert!(!verify(&entry, &layout, 4, 70, payload));
    assert!(!verify(&entry, &layout, 3, 71, payload));
    assert!(!verify(&Entry { block: 11.into(), ..entry }, &layout, 3, 70, payload));
    assert!(!verify(&Entry { sequence: 1001.into(), ..entry }, &layout, 3, 70, payload));
    assert!(!verify(&entry, &layout, 3, 70, &payload[1..]));
    let mut flipped = payload.to_vec();
    for at in 0..flipped.len() {
        flipped[at] ^= 1 << (at % 8);
        assert!(!verify(&entry, &layout, 3, 70, &flipped));
        flipped[at] ^= 1 << (at % 8);
    }
}
