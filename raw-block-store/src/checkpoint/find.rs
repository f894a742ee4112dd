//! Finding checkpoints, and reading the newest valid one.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use crate::Error;
use crate::error::Context;
use crate::format::{CONTAINERS, CheckpointHeader, Layout, RecordReader, SegmentRecord};
use crate::state::containers::Containers;
use crate::state::index::Place;

/// Bytes of a body that are read at once.
const READ_CHUNK_BYTES: usize = 4 << 20;
/// What the store does when reading fails.
const READ: &str = "read a checkpoint";

/// The checkpoints of a device.
pub(crate) struct CheckpointSearch {
    /// The one that counts.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) containers: Containers,
    /// The highest number of a checkpoint that has a valid header and a damaged body; 0 if there is
    /// none.
    pub(crate) broken: u64,
    /// Containers whose header cannot be read.
    pub(crate) unreadable: usize,
}

/// A checkpoint as it was found, with its records in memory.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) number: u64,
    /// It covers every sequence up to this one.
    pub(crate) covered: u64,
    /// The next sequence when it was taken.
    pub(crate) next_sequence: u64,
    segments: Vec<Record>,
    /// The live bits of all segments.
    live: Vec<u64>,
}

/// The record of a segment, and where its live bits begin.
#[derive(Debug)]
struct Record {
    record: SegmentRecord,
    live: usize,
}

impl Checkpoint {
    /// The record of a segment.
    pub(crate) fn record(&self, segment: u32) -> &SegmentRecord {
        &self.segments[segment as usize].record
    }

    /// Whether it names this entry.
    pub(crate) fn names(&self, place: Place) -> bool {
        let Record { record, live } = &self.segments[place.segment as usize];
        place.number < record.entries && {
            let word = self.live[live + (place.number / u64::BITS) as usize];
            word >> (place.number % u64::BITS) & 1 != 0
        }
    }

    /// How many entries of a segment it names.
    pub(crate) fn named_in(&self, segment: u32) -> u32 {
        let Record { record, live } = &self.segments[segment as usize];
        self.live[*live..live + record.words()].iter().map(|word| word.count_ones()).sum()
    }

    /// How many entries it names.
    pub(crate) fn named_entries(&self) -> u64 {
        self.live.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Reads the body of the checkpoint in a container.
    fn read(
        dispatcher: &Dispatcher,
        layout: &Layout,
        header: &CheckpointHeader,
        container: usize,
    ) -> Result<Self, Error> {
        let block_size = layout.block_size as usize;
        let mut bound = *header;
        bound.number = super::write::body_number(header.number.get()).into();
        let mut reader = RecordReader::new(layout, &bound);
        let mut segments = Vec::with_capacity(layout.segment_count as usize);
        let mut live: Vec<u64> = Vec::new();
        let bytes = header.body_len.get();
        let words = usize::try_from(bytes / size_of::<u64>() as u64).unwrap_or(usize::MAX);
        live.try_reserve(words).map_err(|_| Error::OutOfMemory { what: "a checkpoint", bytes })?;
        let per_piece = READ_CHUNK_BYTES / block_size;
        let mut piece = AlignedBuf::default();
        let mut offset = layout.container_offset[container] + u64::from(layout.block_size);
        while reader.blocks_left() > 0 {
            let blocks = usize::try_from(reader.blocks_left()).unwrap_or(usize::MAX);
            let len = blocks.min(per_piece) * block_size;
            if piece.is_empty() {
                piece = AlignedBuf::zeroed(len).context(READ)?;
            }
            dispatcher
                .read_buffers(&mut [ReadAt::new(offset, &mut piece[..len])])
                .all()
                .context(READ)?;
            for block in piece[..len].chunks_exact(block_size) {
                let taken = reader.take(block, |_, record, words| {
                    segments.push(Record { record: *record, live: live.len() });
                    live.extend_from_slice(words);
                });
                taken.map_err(|damage| Error::Damaged {
                    structure: "a block of a checkpoint",
                    offset,
                    damage,
                })?;
                offset += u64::from(layout.block_size);
            }
        }
        reader.finish().map_err(|damage| {
            let offset = layout.container_offset[container];
            Error::Damaged { structure: "a checkpoint", offset, damage }
        })?;
        Ok(Self {
            number: header.number.get(),
            covered: header.covered_sequence.get(),
            next_sequence: header.next_sequence.get(),
            segments,
            live,
        })
    }
}

/// Reads the checkpoint with the number `preferred`, if there is one and it is valid; otherwise the
/// newest valid one.
///
/// # Errors
/// [`Error::Damaged`] or [`Error::Device`] when there is none, [`Error::OutOfMemory`].
pub(crate) fn find(
    dispatcher: &Dispatcher,
    layout: &Layout,
    preferred: Option<u64>,
) -> Result<CheckpointSearch, Error> {
    let Headers { mut headers, numbers, unreadable, mut failure } =
        read_headers(dispatcher, layout)?;
    headers.sort_by_key(|(_, header)| {
        let number = header.number.get();
        std::cmp::Reverse((Some(number) == preferred, number))
    });
    let mut broken = 0;
    for (container, header) in &headers {
        match Checkpoint::read(dispatcher, layout, header, *container) {
            Ok(checkpoint) => {
                let containers = Containers::new(*container, numbers);
                return Ok(CheckpointSearch { checkpoint, containers, broken, unreadable });
            }
            Err(error @ (Error::Damaged { .. } | Error::Device { .. })) if is_damage(&error) => {
                let number = header.number.get();
                let device = dispatcher.backend().name();
                tracing::error!(device, number, container, %error, "a checkpoint is damaged");
                broken = broken.max(number);
                failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let offset = layout.container_offset[0];
    let damage = crate::format::Damage::NotThisStructure { expected: "checkpoint header" };
    let none = Error::Damaged { structure: "the header of a checkpoint", offset, damage };
    Err(failure.unwrap_or(none))
}

/// Reads the committed checkpoint, twice if it is damaged. Returns what is wrong with it, and
/// where, if anything is.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Device`] if there is no memory for buffers.
pub(crate) fn verify(
    dispatcher: &Dispatcher,
    layout: &Layout,
    containers: &Containers,
) -> Result<Result<(), (u64, Error)>, Error> {
    let container = containers.committed_container();
    let mut failure = None;
    for _ in 0..2 {
        match read_committed(dispatcher, layout, container, containers.committed_number()) {
            Ok(()) => return Ok(Ok(())),
            Err(error @ (Error::Damaged { .. } | Error::Device { .. })) if is_damage(&error) => {
                failure = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let place = |error| match error {
        Error::Damaged { offset, .. } => (offset, error),
        error => (layout.container_offset[container], error),
    };
    Ok(failure.map_or(Ok(()), |error| Err(place(error))))
}

fn read_committed(
    dispatcher: &Dispatcher,
    layout: &Layout,
    container: usize,
    number: u64,
) -> Result<(), Error> {
    let offset = layout.container_offset[container];
    let mut block = AlignedBuf::zeroed(layout.block_size as usize).context(READ)?;
    dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut block)]).all().context(READ)?;
    let structure = "the header of a checkpoint";
    let damaged = |damage| Error::Damaged { structure, offset, damage };
    let header = CheckpointHeader::read(&block, layout).map_err(damaged)?;
    let found = header.number.get();
    if found != number {
        return Err(damaged(crate::format::Damage::WrongPlace { found, expected: number }));
    }
    Checkpoint::read(dispatcher, layout, header, container).map(drop)
}

/// Whether a checkpoint cannot be read, rather than the device not be used.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Device { error, .. } => error.kind().is_io(),
        _ => true,
    }
}

/// The headers of all containers.
#[derive(Default)]
struct Headers {
    /// Those that are valid, with their containers.
    headers: Vec<(usize, CheckpointHeader)>,
    /// For [`Containers::new`].
    numbers: [u64; CONTAINERS],
    unreadable: usize,
    /// Why one of the others is not valid.
    failure: Option<Error>,
}

fn read_headers(dispatcher: &Dispatcher, layout: &Layout) -> Result<Headers, Error> {
    let block_size = layout.block_size as usize;
    let mut blocks = AlignedBuf::zeroed(CONTAINERS * block_size).context(READ)?;
    let offsets = layout.container_offset;
    let mut reads: Vec<_> = offsets
        .into_iter()
        .zip(blocks.chunks_exact_mut(block_size))
        .map(|(offset, block)| ReadAt::new(offset, block))
        .collect();
    let results = dispatcher.read_buffers(&mut reads);
    let mut found = Headers::default();
    let blocks = blocks.chunks_exact(block_size);
    for (container, (block, result)) in blocks.zip(results).enumerate() {
        if let Err(error) = result {
            if !error.kind().is_io() {
                return Err(error).context(READ);
            }
            let device = dispatcher.backend().name();
            tracing::warn!(device, container, %error, "the header of a checkpoint cannot be read");
            // It may be that of an old checkpoint.
            found.numbers[container] = 1;
            found.unreadable += 1;
            found.failure = Some(Error::Device { context: READ, error });
            continue;
        }
        match CheckpointHeader::read(block, layout) {
            Ok(header) => {
                found.numbers[container] = header.number.get();
                found.headers.push((container, *header));
            }
            Err(damage) => {
                let (structure, offset) = ("the header of a checkpoint", offsets[container]);
                found.failure.get_or_insert(Error::Damaged { structure, offset, damage });
            }
        }
    }
    Ok(found)
}
