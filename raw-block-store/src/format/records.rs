//! The body of a checkpoint: one record for each segment, each followed by its live bits.

use core::mem::offset_of;
use core::ops::DerefMut;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checkpoint::BodyBlock;
use super::entry::check_generation;
use super::layout::Layout;
use super::segment_header::Stream;
use super::sizes::{RECORD_LEN, body_capacity};
use crate::format::damage::ensure;
use crate::format::{EncodeError, MAX_SEQUENCE};

/// The settled prefix of a segment in which only named entries count: nothing was in flight in it,
/// and nothing was to be allocated.
pub const SETTLED_ALL: u32 = u32::MAX;

const USED: u16 = 1;
const UNVERIFIED: u16 = 2;
const BAD: u16 = 4;

/// The record of a segment in a checkpoint. Its live bits follow in the body, 64 entries in each
/// word of 8 bytes: bit `i` of word `w` is that of entry `64 * w + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Generation of the segment; for an unused segment its last one, or 0 if it was never opened.
    pub generation: u64,
    /// Whether its entries count. If not, all following fields except `bad` are zero.
    pub used: bool,
    /// Whether named entries may have a payload that was never verified: a recovery found them.
    pub unverified: bool,
    /// Whether it is in quarantine: it is not opened again.
    pub bad: bool,
    /// Its contents.
    pub stream: Stream,
    /// Entries below this number count only if they are named; [`SETTLED_ALL`] if that applies to
    /// all.
    pub settled: u32,
    /// Number of entries that were allocated.
    pub entries: u32,
    /// The block at which the next slot begins.
    pub next_block: u32,
    /// Number of the checkpoint that wrote the table of the segment; 0 if it has none.
    pub table: u64,
}

/// A record in its form on the device.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
struct RawRecord {
    generation: U64,
    /// 1 used, 2 unverified, 4 bad.
    flags: U16,
    stream: U16,
    settled: U32,
    entries: U32,
    next_block: U32,
    table: U64,
}

const _: () = assert!(size_of::<RawRecord>() == RECORD_LEN);
const _: () = assert!(offset_of!(RawRecord, generation) == 0);
const _: () = assert!(offset_of!(RawRecord, flags) == 8);
const _: () = assert!(offset_of!(RawRecord, stream) == 10);
const _: () = assert!(offset_of!(RawRecord, settled) == 12);
const _: () = assert!(offset_of!(RawRecord, entries) == 16);
const _: () = assert!(offset_of!(RawRecord, next_block) == 20);
const _: () = assert!(offset_of!(RawRecord, table) == 24);

impl SegmentRecord {
    /// The record of a segment whose entries do not count.
    #[must_use]
    pub fn unused(generation: u64, bad: bool) -> Self {
        Self {
            generation,
            used: false,
            unverified: false,
            bad,
            stream: Stream::New,
            settled: 0,
            entries: 0,
            next_block: 0,
            table: 0,
        }
    }

    /// Number of words of its live bits.
    #[must_use]
    pub fn words(&self) -> usize {
        self.entries.div_ceil(u64::BITS) as usize
    }

    /// Whether only named entries count in the whole segment.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled == SETTLED_ALL
    }

    /// Reads a record from its bytes.
    pub(super) fn read(bytes: &[u8; RECORD_LEN], layout: &Layout) -> Result<Self, &'static str> {
        let raw = RawRecord::read_from_bytes(bytes).map_err(|_| "the record is not whole")?;
        let flags = raw.flags.get();
        ensure(flags & !(USED | UNVERIFIED | BAD) == 0, "a segment record has unknown flags")?;
        let stream = Stream::from_number(raw.stream.get().into())
            .ok_or("the stream of a segment record is unknown")?;
        let record = Self {
            generation: raw.generation.get(),
            used: flags & USED != 0,
            unverified: flags & UNVERIFIED != 0,
            bad: flags & BAD != 0,
            stream,
            settled: raw.settled.get(),
            entries: raw.entries.get(),
            next_block: raw.next_block.get(),
            table: raw.table.get(),
        };
        record.check(layout)?;
        Ok(record)
    }

    fn bytes(&self) -> [u8; RECORD_LEN] {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(self.used, USED) | flag(self.unverified, UNVERIFIED) | flag(self.bad, BAD);
        zerocopy::transmute!(RawRecord {
            generation: self.generation.into(),
            flags: flags.into(),
            stream: (self.stream as u16).into(),
            settled: self.settled.into(),
            entries: self.entries.into(),
            next_block: self.next_block.into(),
            table: self.table.into(),
        })
    }

    fn check(&self, layout: &Layout) -> Result<(), &'static str> {
        if !self.used {
            ensure(self.generation <= MAX_SEQUENCE, "the generation of a record is too high")?;
            return ensure(
                *self == Self::unused(self.generation, self.bad),
                "the record of a segment that is not used says more than its generation",
            );
        }
        check_generation(self.generation)?;
        ensure(self.entries <= layout.segment_blocks, "a segment has more entries than blocks")?;
        ensure(
            self.settled <= self.entries || self.is_settled(),
            "more entries of a segment are settled than it has",
        )?;
        ensure(
            (1..=layout.table_block(self.entries)).contains(&self.next_block),
            "the next block is not in the segment, or in its table",
        )?;
        ensure(self.table <= MAX_SEQUENCE, "the number of a table is too high")?;
        ensure(self.table == 0 || self.entries > 0, "a segment without entries has a table")
    }
}

/// The rule for live bits: as many as the segment has entries.
pub(super) fn check_live(entries: u32, live: &[u64]) -> Result<(), &'static str> {
    ensure(
        live.len() == entries.div_ceil(u64::BITS) as usize,
        "a segment has another number of live bits than entries",
    )?;
    let in_last = entries % u64::BITS;
    let past = if in_last == 0 { 0 } else { live.last().map_or(0, |word| word >> in_last) };
    ensure(past == 0, "an entry is live that the segment does not have")
}

/// Writes the body of a checkpoint into memory that the caller supplies piece by piece. The blocks
/// are complete except for their [seals](BodyBlock::seal_all).
///
/// # Examples
/// ```
/// use raw_block_store::format::{EncodeError, Layout, RecordWriter, SegmentRecord, Stream};
///
/// # use raw_block_store::format::LayoutRequest;
/// # let (segment_size, largest_object) = (Some(1 << 20), None);
/// # let request =
/// #     LayoutRequest { capacity: 1 << 30, block_size: 4096, segment_size, largest_object };
/// let layout = Layout::plan(&request)?;
/// let unused = SegmentRecord {
///     generation: 0,
///     used: false,
///     unverified: false,
///     bad: false,
///     stream: Stream::New,
///     settled: 0,
///     entries: 0,
///     next_block: 0,
///     table: 0,
/// };
/// let mut writer = RecordWriter::new(&layout);
/// for _ in 0..layout.segment_count {
///     writer.add(&unused, &[], || Ok::<_, EncodeError>(vec![0; 64 << 10]))?;
/// }
/// let body = writer.finish()?;
/// assert!(body.pieces.len() == 1 && body.blocks <= 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RecordWriter<P> {
    layout: Layout,
    pieces: Vec<P>,
    /// Free bytes of the stream in the last piece.
    free: usize,
    len: u64,
    segments: u32,
}

/// The body of a checkpoint. Its blocks are not [sealed](BodyBlock::seal_all).
#[derive(Debug)]
pub struct Body<P> {
    /// The memory, of whole blocks. All bytes past the end of the stream are zero.
    pub pieces: Vec<P>,
    /// Length of the stream in bytes: [`CheckpointHeader::body_len`](super::CheckpointHeader).
    pub len: u64,
    /// Number of blocks of the stream. The last piece may have more.
    pub blocks: u64,
}

impl<P: DerefMut<Target = [u8]>> RecordWriter<P> {
    /// Begins a body without a record.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { layout: *layout, pieces: Vec::new(), free: 0, len: 0, segments: 0 }
    }

    /// Appends the record of the next segment and its live bits, 64 entries a word. When the memory
    /// is full, `more` returns another piece of one or more whole blocks.
    ///
    /// # Errors
    /// That of `more`; [`EncodeError::Invalid`] if the record or the bits break a rule, if every
    /// segment has a record, or if a piece does not consist of whole blocks. The body is incomplete
    /// then.
    pub fn add<E: From<EncodeError>>(
        &mut self,
        record: &SegmentRecord,
        live: &[u64],
        mut more: impl FnMut() -> Result<P, E>,
    ) -> Result<(), E> {
        ensure(self.segments < self.layout.segment_count, "every segment has a record")
            .and_then(|()| record.check(&self.layout))
            .and_then(|()| check_live(record.entries, live))
            .map_err(EncodeError::Invalid)?;
        self.segments += 1;
        self.append(&record.bytes(), &mut more)?;
        live.iter().try_for_each(|word| self.append(&word.to_le_bytes(), &mut more))
    }

    /// The body, after the records of all segments.
    ///
    /// # Errors
    /// [`EncodeError::Invalid`] if a segment has no record.
    pub fn finish(mut self) -> Result<Body<P>, EncodeError> {
        ensure(self.segments == self.layout.segment_count, "a segment has no record")
            .map_err(EncodeError::Invalid)?;
        let capacity = body_capacity(self.layout.block_size);
        if let Some(piece) = self.pieces.last_mut() {
            let blocks = piece.chunks_exact_mut(self.layout.block_size as usize);
            let mut free = self.free;
            for block in blocks.rev() {
                let in_block = free.min(capacity);
                BodyBlock::stream_mut(block)[capacity - in_block..].fill(0);
                free -= in_block;
            }
        }
        let blocks = self.len.div_ceil(capacity as u64);
        Ok(Body { pieces: self.pieces, len: self.len, blocks })
    }

    /// Appends bytes to the stream.
    fn append<E: From<EncodeError>>(
        &mut self,
        mut bytes: &[u8],
        more: &mut impl FnMut() -> Result<P, E>,
    ) -> Result<(), E> {
        let (block_size, capacity) =
            (self.layout.block_size as usize, body_capacity(self.layout.block_size));
        while !bytes.is_empty() {
            if self.free == 0 {
                let piece = more()?;
                let is_whole = !piece.is_empty() && piece.len().is_multiple_of(block_size);
                ensure(is_whole, "the memory does not consist of whole blocks")
                    .map_err(EncodeError::Invalid)?;
                self.free = piece.len() / block_size * capacity;
                self.pieces.push(piece);
            }
            let Some(piece) = self.pieces.last_mut() else { return Ok(()) };
            let used = piece.len() / block_size * capacity - self.free;
            let (block, within) = (used / capacity, used % capacity);
            let stream = BodyBlock::stream_mut(&mut piece[block * block_size..][..block_size]);
            let len = bytes.len().min(capacity - within);
            let (now, rest) = bytes.split_at(len);
            stream[within..within + len].copy_from_slice(now);
            bytes = rest;
            self.free -= len;
            self.len += len as u64;
        }
        Ok(())
    }
}
