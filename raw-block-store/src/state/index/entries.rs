//! The entries of all segments, by place and by location.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chunk::{BLOCK, Block, CHUNK, Chunk, EntryCell, bit};
use super::chunk_list::ChunkList;
use super::directory::Directory;
use super::located::{KeyHash, Located, Place};
use super::stamp::Stamp;
use crate::Error;
use crate::format::Entry;

/// The most chunks, so that a location has 32 bits.
const MAX_CHUNKS: u32 = 1 << 26;
/// No chunk: the end of the list of free ones.
const NO_CHUNK: u32 = u32::MAX;
/// Chunks that are freed under one lock.
const FREED_AT_ONCE: u32 = 64;

/// An entry by its position in memory: the number of its chunk times 64, plus its number in the
/// chunk. It is what the tables of the index hold.
pub(super) type Location = u32;

/// The entries of all segments, in chunks of 64 with consecutive numbers: 48.4 bytes an entry. A
/// chunk belongs to one segment from [`extend`](Self::extend) to [`release`](Self::release), and
/// never moves.
///
/// How threads agree on the words of an entry, all of which are relaxed atomics:
/// - Between two assignments of its chunk an entry is filled at most once, by the only thread that
///   knows its number. That thread sees it empty, because the number was allocated after `extend`.
/// - Its live bit is set after that with release. A reader by place looks at the bit with acquire;
///   if it is set, the entry is filled. Later changes of the word are read-modify-writes, so they
///   hide no earlier release.
/// - A reader by key holds the lock of a shard, under which the thread that filled the entry put
///   its location into the table.
/// - A bit that was cleared leaves the entry as it was. So a reader that saw the bit just before
///   copies the entry undisturbed. `release` is called only when there is no such reader, because
///   those count themselves as readers of the segment, and no table holds a location of the
///   segment.
pub(super) struct Entries {
    blocks: Directory<Block>,
    segments: Box<[ChunkList]>,
    pool: Mutex<Pool>,
}

/// The chunks that belong to no segment: a list, linked by the owners of the chunks, and all that
/// were never used.
struct Pool {
    free: u32,
    unused: u32,
}

impl Entries {
    /// Bytes of memory that a segment without entries takes.
    pub(super) const MEMORY_PER_SEGMENT: usize = size_of::<ChunkList>();

    pub(super) fn new(segments: u32) -> Self {
        Self {
            blocks: Directory::new(),
            segments: (0..segments).map(|_| ChunkList::default()).collect(),
            pool: Mutex::new(Pool { free: NO_CHUNK, unused: 0 }),
        }
    }

    /// Makes the entries of a segment below `count` exist. New ones are empty.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]. Those that exist stay.
    pub(super) fn extend(&self, segment: u32, count: u32) -> Result<(), Error> {
        debug_assert!((segment as usize) < self.segments.len(), "there is no segment {segment}");
        let wanted = count.div_ceil(CHUNK);
        let Some(list) = self.segments.get(segment as usize) else { return Ok(()) };
        if list.len() >= wanted {
            return Ok(());
        }
        let bytes = u64::from(wanted - list.len()) * size_of::<Block>() as u64 / BLOCK as u64;
        let mut pool = self.pool();
        while list.len() < wanted {
            let taken = list.reserve().and_then(|()| self.take(&mut pool));
            let (number, chunk) =
                taken.ok_or(Error::OutOfMemory { what: "entries of the index", bytes })?;
            chunk.assign(Place { segment, number: list.len() * CHUNK });
            list.push(number);
        }
        Ok(())
    }

    /// Frees all entries of a segment. The caller guarantees that no table holds one of them, and
    /// that no thread reads them.
    pub(super) fn release(&self, segment: u32) {
        let Some(list) = self.segments.get(segment as usize) else { return };
        let chunks = list.len();
        for first in (0..chunks).step_by(FREED_AT_ONCE as usize) {
            let mut pool = self.pool();
            let numbers = first..chunks.min(first + FREED_AT_ONCE);
            for number in numbers.filter_map(|at| list.get(at)) {
                let Some(chunk) = self.chunk(number) else { continue };
                // Readers by place find nothing here until the chunk is assigned again.
                chunk.live().store(0, Ordering::Relaxed);
                chunk.owner().store(pool.free.into(), Ordering::Relaxed);
                pool.free = number;
            }
        }
        list.clear();
    }

    /// The location of an entry, if it exists.
    pub(super) fn location(&self, place: Place) -> Option<Location> {
        let list = self.segments.get(place.segment as usize)?;
        let chunk = list.get(place.number / CHUNK)?;
        Some(chunk * CHUNK + place.number % CHUNK)
    }

    /// The object at a location that a table holds. The caller has the lock of the table.
    pub(super) fn located(&self, at: Location) -> Located {
        let (chunk, cell) = self.at(at);
        Located { place: chunk.place(at), entry: cell.load() }
    }

    /// The key of the object at a location that a table holds. The caller has the lock of the
    /// table.
    pub(super) fn key_hash(&self, at: Location) -> KeyHash {
        self.at(at).1.key_hash()
    }

    /// Fills an empty entry and sets its bits. The caller has the lock of the shard of its key.
    pub(super) fn fill(&self, at: Location, entry: &Entry, stamp: Stamp, unverified: bool) {
        let (chunk, cell) = self.at(at);
        cell.fill(entry, stamp);
        if unverified {
            chunk.unverified().fetch_or(bit(at), Ordering::Relaxed);
        }
        chunk.live().fetch_or(bit(at), Ordering::Release);
    }

    /// Clears the live bit of an entry, which stays as it is.
    pub(super) fn kill(&self, at: Location) {
        self.at(at).0.live().fetch_and(!bit(at), Ordering::Release);
    }

    /// Whether the entry at a location is live. The caller has the lock of the shard of its key.
    pub(super) fn is_live(&self, at: Location) -> bool {
        self.at(at).0.live().load(Ordering::Relaxed) & bit(at) != 0
    }

    /// The entry at a place, if it is live.
    pub(super) fn live(&self, place: Place) -> Option<Entry> {
        let (chunk, cell) = self.find(place)?;
        let live = chunk.live().load(Ordering::Acquire) & bit(place.number) != 0;
        live.then(|| cell.load())
    }

    /// The chunk and the memory of an entry, if it exists.
    pub(super) fn find(&self, place: Place) -> Option<(Chunk<'_>, EntryCell<'_>)> {
        self.location(place).map(|at| self.at(at))
    }

    /// The chunks of a segment, in order of number.
    pub(super) fn chunks(&self, segment: u32) -> impl Iterator<Item = Chunk<'_>> {
        let list = self.segments.get(segment as usize);
        let numbers = 0..list.map_or(0, ChunkList::len);
        numbers.filter_map(move |at| self.chunk(list?.get(at)?))
    }

    /// Copies entries of a segment as they were filled; empty ones where none was, or none exists.
    pub(super) fn copy(&self, segment: u32, numbers: Range<u32>, into: &mut [Entry]) {
        for (number, to) in numbers.zip(into) {
            *to = self.find(Place { segment, number }).map_or(Entry::EMPTY, |(chunk, cell)| {
                // A live one was filled before; for others the caller knows that.
                chunk.live().load(Ordering::Acquire);
                cell.load()
            });
        }
    }

    /// Bytes that the entries take, free chunks included.
    pub(super) fn memory(&self) -> usize {
        let lists: usize = self.segments.iter().map(ChunkList::memory).sum();
        self.blocks.memory() + self.blocks.iter().count() * size_of::<Block>() + lists
    }

    /// Takes a chunk from the pool.
    fn take(&self, pool: &mut Pool) -> Option<(u32, Chunk<'_>)> {
        if pool.free != NO_CHUNK {
            let (number, chunk) = (pool.free, self.chunk(pool.free)?);
            pool.free = u32::try_from(chunk.owner().load(Ordering::Relaxed)).unwrap_or(NO_CHUNK);
            return Some((number, chunk));
        }
        let number = (pool.unused < MAX_CHUNKS).then_some(pool.unused)?;
        let block = self.blocks.get_or_make(number as usize / BLOCK, Block::new)?;
        pool.unused += 1;
        Some((number, block.chunk(number as usize)))
    }

    fn chunk(&self, number: u32) -> Option<Chunk<'_>> {
        self.blocks.get(number as usize / BLOCK).map(|block| block.chunk(number as usize))
    }

    fn at(&self, at: Location) -> (Chunk<'_>, EntryCell<'_>) {
        let chunk = self.chunk(at / CHUNK).expect("chunks that were assigned stay");
        (chunk, chunk.entry(at))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
