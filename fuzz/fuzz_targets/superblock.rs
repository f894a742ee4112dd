//! A superblock, and three copies of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{BUCKETS, Layout, SUPERBLOCK_CELL_LEN, Superblock};

/// The input gives the first part of each cell; what follows is zero.
const PART: usize = 2048;

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let mut cells = [rest, rest.get(PART..).unwrap_or(&[]), rest.get(2 * PART..).unwrap_or(&[])]
        .map(|input| block(&input[..input.len().min(PART)], SUPERBLOCK_CELL_LEN));
    for cell in &mut cells {
        let uuid: [u8; 16] = cell[16..32].try_into().expect("it is longer");
        wants.correct(cell, *b"RAWBLKSB", &uuid);
    }
    for cell in &cells {
        if let Ok(superblock) = Superblock::read(cell) {
            check(superblock, cell);
        }
    }
    let copies = Superblock::newest(cells.each_ref().map(Vec::as_slice));
    if let Some(newest) = copies.newest {
        for copy in copies.copies.iter().flatten() {
            assert!(copy.generation.get() <= newest.generation.get());
            assert_eq!(copy.preamble.uuid, newest.preamble.uuid);
        }
    }
});

/// What a reader accepts keeps every promise of the format, and the writer would write it the same.
fn check(superblock: &Superblock, cell: &[u8]) {
    let layout = Layout::of(superblock);
    let end = layout.segment_offset(layout.segment_count - 1) + layout.segment_size();
    assert!(end <= layout.last_superblock_offset);
    assert!(layout.container_len >= layout.min_container_len());
    assert!(layout.container_offset[2] + layout.container_len <= layout.segments_offset);
    assert!((0..BUCKETS).all(|bucket| superblock.home(bucket).is_some()));
    assert!(superblock.label().len() <= 64);
    let mut written = vec![0xFF; SUPERBLOCK_CELL_LEN];
    superblock.encode(&mut written).expect("the writer accepts what the reader does");
    assert_eq!(written, cell);
}
