//! A block of the delete log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{DeleteLogBlock, records_per_block};

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let Some((&index, rest)) = rest.split_first() else { return };
    let store = wants.store();
    let mut block = block(rest, store.block_size.get() as usize);
    wants.put_right(&mut block, *b"RAWBLKDL", &store.preamble.uuid);

    let Ok((found, records)) = DeleteLogBlock::read(&block, &store, index.into()) else { return };
    assert!(index < 3);
    assert!(records.len() <= records_per_block(store.block_size.get()));
    let mut written = vec![0xFF; block.len()];
    DeleteLogBlock::encode(&mut written, &store, index.into(), found.checkpoint.get(), records)
        .expect("the writer accepts what the reader does");
    assert_eq!(written, block);
});
