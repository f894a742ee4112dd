//! The containers of checkpoints.

use std::cmp::Reverse;

use anyhow::Result;
use raw_block_store::format::{CONTAINERS, CheckpointHeader, RecordReader, SegmentRecord};

use super::{Block, Flaw, Reader};

/// A container of a checkpoint.
pub(crate) struct Container {
    pub(crate) number: u32,
    /// Where it begins.
    pub(crate) offset: u64,
    /// Its header, or why that cannot be used.
    pub(crate) header: Result<CheckpointHeader, Flaw>,
}

/// What a checkpoint says of a segment.
pub(crate) struct Record {
    pub(crate) record: SegmentRecord,
    live: Vec<u64>,
    /// Where the block begins in which it ends.
    pub(crate) offset: u64,
}

impl Record {
    /// Whether an entry is named.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        let word = self.live.get((number / u64::BITS) as usize);
        word.is_some_and(|word| word >> (number % u64::BITS) & 1 != 0)
    }

    /// How many entries are named.
    pub(crate) fn live(&self) -> u32 {
        self.live.iter().map(|word| word.count_ones()).sum()
    }
}

/// The body of a checkpoint, as far as it can be read.
#[derive(Default)]
pub(crate) struct Body {
    /// The records, in the order of the segments.
    pub(crate) records: Vec<Record>,
    /// The first block that cannot be used, where it begins, and why.
    pub(crate) flaw: Option<(u64, u64, Flaw)>,
}

impl Reader<'_> {
    /// Reads the headers of the containers.
    pub(crate) fn containers(&self) -> Result<Vec<Container>> {
        let offsets = self.layout.container_offset;
        let mut containers = Vec::with_capacity(CONTAINERS);
        self.each_block((0..).zip(offsets), |number, offset, block| {
            let header = self.checkpoint_header(block);
            containers.push(Container { number, offset, header });
            Ok(())
        })?;
        Ok(containers)
    }

    fn checkpoint_header(&self, block: &Block) -> Result<CheckpointHeader, Flaw> {
        Ok(*CheckpointHeader::read(block.as_ref()?, &self.layout)?)
    }

    /// Where the blocks of a body begin, with their positions.
    pub(crate) fn body_places(
        &self,
        container: u64,
        header: &CheckpointHeader,
    ) -> impl Iterator<Item = (u64, u64)> + use<> {
        let block_size = u64::from(self.layout.block_size);
        (0..header.body_blocks(&self.layout))
            .map(move |index| (index, container + (1 + index) * block_size))
    }

    /// Reads the body of the checkpoint with this header in the container at this offset.
    pub(crate) fn body(&self, container: u64, header: &CheckpointHeader) -> Result<Body> {
        let mut body = Body::default();
        let mut reader = RecordReader::new(&self.layout, header);
        self.each_block(self.body_places(container, header), |index, offset, block| {
            if body.flaw.is_some() {
                return Ok(());
            }
            let taken = block.as_ref().map_err(Flaw::from).and_then(|block| {
                let each = |_, record: &SegmentRecord, live: &[u64]| {
                    body.records.push(Record { record: *record, live: live.to_vec(), offset });
                };
                Ok(reader.take(block, each)?)
            });
            body.flaw = taken.err().map(|flaw| (index, offset, flaw));
            Ok(())
        })?;
        if body.flaw.is_none() {
            body.flaw = reader.finish().err().map(|damage| (0, container, damage.into()));
        }
        Ok(body)
    }

    /// The records of the newest checkpoint of which everything is valid, in the order of the
    /// segments; none if there is no such checkpoint.
    pub(crate) fn newest_records(&self) -> Result<Vec<Record>> {
        let containers = self.containers()?;
        let mut valid: Vec<_> = containers
            .iter()
            .filter_map(|container| Some((container.offset, container.header.as_ref().ok()?)))
            .collect();
        valid.sort_by_key(|(_, header)| Reverse(header.number.get()));
        for (offset, header) in valid {
            let body = self.body(offset, header)?;
            if body.flaw.is_none() {
                return Ok(body.records);
            }
        }
        Ok(Vec::new())
    }
}
