//! The header block of a slot: objects, or tombstones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{SlotHeader, SlotObject, SlotPlace, SlotView};

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let layout = wants.layout();
    let mut block = block(rest, layout.block_size as usize);
    let number =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (segment, at) = (number(48) % 16, number(52) % 80);
    wants.correct_slot(&mut block, &layout);

    let Ok(view) = SlotHeader::read(&block, &layout, segment, at) else { return };
    let header = view.header;
    assert!(segment < layout.segment_count && at > 0);
    assert!(at + header.blocks.get() <= layout.segment_blocks);
    assert!(header.first_entry.get() + view.entry_numbers() <= layout.segment_blocks);
    let place = SlotPlace {
        segment,
        generation: header.generation.get(),
        block: at,
        blocks: header.blocks.get(),
        first_entry: header.first_entry.get(),
    };
    let mut written = vec![0xFF; block.len()];
    if let Some(hashes) = view.tombstones() {
        let sequence = header.sequence.get();
        SlotHeader::encode_tombstones(&mut written, &layout, &place, sequence, hashes)
            .expect("the writer accepts what the reader does");
    } else {
        write_objects(&mut written, &view, |written, objects, inline| {
            SlotHeader::encode(written, &layout, &place, objects.iter().copied(), inline)
                .expect("the writer accepts what the reader does");
        });
    }
    let len = header.len.get() as usize;
    assert_eq!(written[..len], block[..len]);
});

/// Checks what the reader accepts of objects, and hands it to a writer.
fn write_objects(
    written: &mut [u8],
    view: &SlotView<'_>,
    write: impl FnOnce(&mut [u8], &[SlotObject<'_>], &[u8]),
) {
    let header = view.header;
    let mut next = header.block.get() + 1;
    let mut inline = &[][..];
    let mut objects = Vec::new();
    for object in view.objects() {
        let entry = object.entry;
        assert!(!object.key.is_empty() && entry.header_block() == header.block.get());
        match object.payload {
            Some(payload) => {
                assert_eq!(payload.len(), entry.payload_len.get() as usize);
                inline = payload;
            }
            None => {
                assert_eq!(entry.block.get(), next);
                next += (entry.payload_len.get() as usize).div_ceil(written.len()) as u32;
            }
        }
        objects.push(SlotObject { entry: *entry, key: object.key, metadata: object.metadata });
    }
    assert_eq!(objects.len(), view.entries().len());
    assert_eq!(next, header.block.get() + header.blocks.get());
    write(written, &objects, inline);
}
