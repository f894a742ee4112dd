//! The header of a checkpoint, and a body of a few blocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raw_block_fuzz::{Wants, block};
use raw_block_store::format::{
    BodyBlock, CheckpointHeader, EncodeError, RecordReader, RecordWriter, body_capacity,
};

const NUMBER: u64 = 7;

fuzz_target!(|input: &[u8]| {
    let Some((wants, rest)) = Wants::take(input) else { return };
    let layout = wants.layout();
    let block_size = layout.block_size as usize;
    let mut header = block(rest, block_size);
    wants.correct(&mut header[..128], *b"RAWBLKCK", &layout.member);
    if let Ok(found) = CheckpointHeader::read(&header, &layout) {
        assert!(found.covered_sequence.get() < found.next_sequence.get());
        assert!((1 + found.body_blocks(&layout)) * block_size as u64 <= layout.container_len);
        let mut written = vec![0xFF; header.len()];
        found.encode(&mut written, &layout).expect("the writer accepts what the reader does");
        assert_eq!(written[..128], header[..128]);
    }

    // The stream is the input, in blocks that are as they should be.
    let len = rest.len().min(usize::try_from(layout.max_body_len()).unwrap_or(usize::MAX));
    let header = CheckpointHeader::new(&layout, NUMBER, (1, 2), len as u64);
    let mut reader = RecordReader::new(&layout, &header);
    let mut writer = RecordWriter::new(&layout);
    for (index, part) in (0..).zip(rest[..len].chunks(body_capacity(layout.block_size))) {
        let mut block = vec![0; block_size];
        BodyBlock::stream_mut(&mut block)[..part.len()].copy_from_slice(part);
        BodyBlock::seal(&mut block, &layout, NUMBER, index).expect("the block is whole");
        let taken = reader.take(&block, |segment, record, live| {
            assert!(segment < layout.segment_count);
            assert!(live.len() == record.words() && record.entries <= layout.segment_blocks);
            writer
                .add(record, live, || Ok::<_, EncodeError>(vec![0xFF; block_size]))
                .expect("the writer accepts what the reader does");
        });
        if taken.is_err() {
            return;
        }
    }
    if reader.finish().is_ok() {
        let body = writer.finish().expect("every segment has a record");
        assert_eq!(body.len, len as u64);
        let stream: Vec<u8> = body
            .pieces
            .into_iter()
            .flat_map(|mut block| BodyBlock::stream_mut(&mut block).to_vec())
            .collect();
        assert_eq!(stream[..len], rest[..len]);
    }
});
