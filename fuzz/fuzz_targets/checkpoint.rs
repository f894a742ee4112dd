//! The header of a checkpoint, and a block of its body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{CheckpointBlock, CheckpointHeader, MAX_SEQUENCE};

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let store = wants.store();
    let uuid = &store.preamble.uuid;
    let mut header = block(rest, store.block_size.get() as usize);
    let mut body = header.clone();

    wants.put_right(&mut header[..128], *b"RAWBLKCK", uuid);
    if let Ok(found) = CheckpointHeader::read(&header, &store) {
        assert!(found.covered_sequence.get() < found.next_sequence.get());
        assert!(found.live_count.get() <= 20 && found.number.get() > 0);
        let mut written = vec![0xFF; header.len()];
        found.encode(&mut written, &store).expect("the writer accepts what the reader does");
        assert_eq!(written[..128], header[..128]);
    }

    let Some(number) = body.get(32..40).and_then(|bytes| bytes.try_into().ok()) else { return };
    // It comes from a header that was read, and so keeps the bounds of one.
    let number = u64::from_le_bytes(number).clamp(1, MAX_SEQUENCE);
    let index = u64::from(body[40]);
    wants.put_right(&mut body, *b"RAWBLKCB", uuid);
    if let Ok(found) = CheckpointBlock::read(&body, &store, number, index) {
        assert!(found.len() <= 20);
        let mut written = vec![0xFF; body.len()];
        let entries = CheckpointBlock::entries_mut(&mut written, &store, index)
            .expect("the reader has found such a block");
        entries.copy_from_slice(found);
        CheckpointBlock::seal(&mut written, &store, number, index)
            .expect("the writer accepts what the reader does");
        assert_eq!(written, body);
    }
});
