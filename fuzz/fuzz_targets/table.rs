//! A block of the table of a segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{TableBlock, TableId};

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let Some((&entries, rest)) = rest.split_first() else { return };
    let layout = wants.layout();
    let mut block = block(rest, layout.block_size as usize);
    let number = |at: usize| block[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    // A checkpoint that was read names the table.
    let table = TableId {
        generation: number(32),
        checkpoint: number(40),
        entries: u32::from(entries) % 80,
    };
    let index = u32::from(block[48]);
    wants.correct(&mut block, *b"RAWBLKST", &layout.member);

    let Ok(found) = TableBlock::read(&block, &layout, &table, index) else { return };
    assert_eq!(found.len(), table.numbers(&layout, index).len());
    let mut next = 1;
    for entry in found.iter().filter(|entry| !entry.is_empty()) {
        assert!(entry.header_block() > 0);
        let blocks = entry.payload_blocks(layout.block_size);
        if blocks > 0 {
            assert!(entry.block.get() >= next);
            next = entry.block.get() + blocks;
        }
        assert!(next <= layout.table_block(table.entries));
    }
    let mut written = vec![0xFF; block.len()];
    TableBlock::entries_mut(&mut written, &layout, &table, index)
        .expect("the reader has found such a block")
        .copy_from_slice(found);
    TableBlock::seal(&mut written, &layout, &table, index)
        .expect("the writer accepts what the reader does");
    assert_eq!(written, block);
});
