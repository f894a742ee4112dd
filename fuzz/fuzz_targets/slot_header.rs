//! The header block of a slot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{SLOT_HEADER_LEN, SlotFields, SlotHeader, crc32c};

/// Where the checksum over key and metadata lies.
const KEY_CHECKSUM: std::ops::Range<usize> = 80..84;
/// Where the lengths of key and metadata lie, 2 bytes each.
const LENGTHS: usize = 60;

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let Some((&slot, rest)) = rest.split_first() else { return };
    let store = wants.store();
    let mut block = block(rest, store.block_size.get() as usize);
    // As with the header, a hostile author knows the checksum of the key.
    let length = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let end = SLOT_HEADER_LEN + length(LENGTHS) + length(LENGTHS + 2);
    if let Some(key) = block.get(SLOT_HEADER_LEN..end) {
        let checksum = crc32c([key]).to_le_bytes();
        block[KEY_CHECKSUM].copy_from_slice(&checksum);
    }
    wants.put_right(&mut block[..SLOT_HEADER_LEN], *b"RAWBLKSL", &store.preamble.uuid);

    let Ok(view) = SlotHeader::read(&block, &store, slot.into()) else { return };
    let entry = view.header.entry;
    assert!(slot < 20 && !view.key.is_empty());
    assert_eq!(view.key.len(), usize::from(entry.key_len));
    assert_eq!(view.metadata.len(), usize::from(entry.metadata_len));
    assert_eq!(view.inline_payload.is_some(), entry.is_inline(store.block_size.get()));
    let payload = match view.inline_payload {
        Some(inline) => inline.to_vec(),
        None => vec![7; entry.payload_len.get() as usize],
    };
    let is_intact = view.header.verify_payload(&payload).is_ok();
    assert!(view.header.verify_payload(&[&payload[..], b"more"].concat()).is_err());

    // The writer would write it the same, but for what the reader ignores, and with the right checksum.
    let fields = SlotFields {
        slot: slot.into(),
        sequence: entry.sequence.get(),
        checkpoint: view.header.checkpoint.get(),
        key_hash: entry.key_hash,
        key: view.key,
        metadata: view.metadata,
        payload: &payload,
    };
    let mut written = vec![0xFF; block.len()];
    let again = SlotHeader::encode(&mut written, &store, &fields).expect("the reader accepts it");
    assert_eq!(again, entry);
    if is_intact {
        assert_eq!(written[..SLOT_HEADER_LEN], block[..SLOT_HEADER_LEN]);
    }
});
