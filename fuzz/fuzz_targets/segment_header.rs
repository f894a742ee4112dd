//! The header of a segment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{SegmentFields, SegmentHeader};

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let layout = wants.layout();
    let mut block = block(rest, layout.block_size as usize);
    let segment = u32::from(block[40] % 16);
    wants.correct(&mut block[..128], *b"RAWBLKSG", &layout.member);

    let Ok(found) = SegmentHeader::read(&block, &layout, segment) else { return };
    assert!(segment < layout.segment_count && found.generation.get() > 0);
    let fields = SegmentFields {
        segment,
        generation: found.generation.get(),
        stream: found.stream(),
        checkpoint: found.checkpoint.get(),
    };
    let mut written = vec![0xFF; block.len()];
    SegmentHeader::encode(&mut written, &layout, &fields)
        .expect("the writer accepts what the reader does");
    assert_eq!(written[..128], block[..128]);
});
