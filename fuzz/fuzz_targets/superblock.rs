//! A superblock, and three copies of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{SUPERBLOCK_CELL_LEN, Superblock, SuperblockState};

const LEN: usize = size_of::<Superblock>();

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    // Up to three copies; those that the input does not reach are empty.
    let mut cells = [rest, rest.get(LEN..).unwrap_or(&[]), rest.get(2 * LEN..).unwrap_or(&[])]
        .map(|input| block(&input[..input.len().min(LEN)], SUPERBLOCK_CELL_LEN));
    for cell in &mut cells {
        let uuid: [u8; 16] = cell[16..32].try_into().expect("it is longer");
        wants.put_right(&mut cell[..LEN], *b"RAWBLKSB", &uuid);
    }
    for cell in &cells {
        if let Ok(superblock) = Superblock::read(cell) {
            check(superblock, cell);
        }
    }
    let copies = Superblock::newest(cells.each_ref().map(Vec::as_slice));
    if let Some(newest) = copies.newest {
        check(newest, newest_bytes(newest, &cells));
        for copy in copies.copies.iter().flatten() {
            assert!(copy.generation.get() <= newest.generation.get());
            assert_eq!(copy.preamble.uuid, newest.preamble.uuid);
        }
    }
});

fn newest_bytes<'a>(newest: &Superblock, cells: &'a [Vec<u8>; 3]) -> &'a [u8] {
    let same = cells.iter().find(|cell| Superblock::read(cell) == Ok(newest));
    same.expect("the newest copy is one of the cells")
}

/// What a reader accepts keeps every promise of the format, and the writer would write it the same.
fn check(superblock: &Superblock, cell: &[u8]) {
    let slots = superblock.slot_count.get();
    let last = superblock.slot_offset(slots - 1).expect("there is at least one slot");
    let end = last.checked_add(superblock.slot_size.get()).expect("it lies in the device");
    assert!(end <= superblock.last_superblock_offset.get());
    assert!(superblock.last_superblock_offset.get() < superblock.device_len.get());
    assert_eq!(superblock.slot_offset(slots), None);
    assert!(superblock.label().len() <= 64);
    if let SuperblockState::Clean { checkpoint, .. } = superblock.state() {
        assert_ne!(checkpoint, 0);
    }
    let mut written = vec![0xFF; SUPERBLOCK_CELL_LEN];
    superblock.encode(&mut written).expect("the writer accepts what the reader does");
    assert_eq!(written[..LEN], cell[..LEN]);
}
