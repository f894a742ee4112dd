//! Readers of segments: counters without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mutant::Mutant;

/// The number of readers of each segment, and whether it may be read.
///
/// A reader that found an object in the index increments the count, and then checks whether a
/// segment was closed since before the look-up. A thread that frees a segment closes it, after the
/// last object left the index, and then reads the count. All four steps are sequentially
/// consistent, so at least one of the two sees the other.
pub(crate) struct Readers {
    segments: Box<[SegmentReaders]>,
    /// The number of times that a segment was closed.
    closed: AtomicU64,
}

/// Of one segment. Threads that read different segments do not share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct SegmentReaders {
    /// 0 if the segment may not be read.
    generation: AtomicU64,
    readers: AtomicU32,
}

/// The time before a look-up in the index, for [`Readers::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LookupTime(u64);

impl Readers {
    /// Bytes of memory that the counters of a segment take.
    pub(super) const MEMORY_PER_SEGMENT: usize = size_of::<SegmentReaders>();

    /// No segment may be read.
    pub(crate) fn new(segments: u32) -> Self {
        let segments = (0..segments).map(|_| SegmentReaders::default()).collect();
        Self { segments, closed: AtomicU64::new(0) }
    }

    /// Call before looking something up in the index.
    pub(crate) fn begin(&self) -> LookupTime {
        LookupTime(self.closed.load(Ordering::SeqCst))
    }

    /// Begins to read a segment in which the index showed an object after `since`. Returns its
    /// generation. Each successful call needs one of [`leave`](Self::leave).
    ///
    /// # Errors
    /// A segment was closed in the meantime: the object has to be looked up again. The error says
    /// what [`leave`](Self::leave) would.
    pub(crate) fn enter(&self, segment: u32, since: LookupTime) -> Result<u64, bool> {
        let Some(readable) = self.segments.get(segment as usize) else { return Err(false) };
        readable.readers.fetch_add(1, Ordering::SeqCst);
        let unchanged = self.closed.load(Ordering::SeqCst) == since.0;
        let generation = readable.generation.load(Ordering::SeqCst);
        if generation != 0 && (unchanged || Mutant::ReopenedWhileRead.is_on()) {
            return Ok(generation);
        }
        Err(self.leave(segment))
    }

    /// Begins to read a segment that something keeps from being closed: a pin, or the lock under
    /// which it would be. Returns its generation.
    pub(crate) fn enter_kept(&self, segment: u32) -> u64 {
        let Some(readable) = self.segments.get(segment as usize) else { return 0 };
        readable.readers.fetch_add(1, Ordering::SeqCst);
        readable.generation.load(Ordering::SeqCst)
    }

    /// Ends reading a segment. Returns whether it is closed, and this was its last reader: then it
    /// may be freed.
    pub(crate) fn leave(&self, segment: u32) -> bool {
        let Some(readable) = self.segments.get(segment as usize) else { return false };
        readable.readers.fetch_sub(1, Ordering::SeqCst) == 1
            && readable.generation.load(Ordering::SeqCst) == 0
    }

    /// Whether a segment was closed and is still being read.
    pub(super) fn is_closed_and_read(&self, segment: u32) -> bool {
        self.segments.get(segment as usize).is_some_and(|readable| {
            readable.generation.load(Ordering::SeqCst) == 0
                && readable.readers.load(Ordering::SeqCst) > 0
        })
    }

    /// The generation of a segment; 0 if it may not be read.
    pub(crate) fn generation(&self, segment: u32) -> u64 {
        let readable = self.segments.get(segment as usize);
        readable.map_or(0, |readable| readable.generation.load(Ordering::SeqCst))
    }

    /// Lets a segment be read that was opened.
    pub(super) fn open(&self, segment: u32, generation: u64) {
        if let Some(readable) = self.segments.get(segment as usize) {
            readable.generation.store(generation, Ordering::SeqCst);
        }
    }

    /// Lets no more readers into a segment of which the index shows nothing any more. Returns
    /// whether none is left.
    pub(super) fn close(&self, segment: u32) -> bool {
        let Some(readable) = self.segments.get(segment as usize) else { return false };
        if readable.generation.swap(0, Ordering::SeqCst) != 0 {
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
        readable.readers.load(Ordering::SeqCst) == 0 || Mutant::ReopenedWhileRead.is_on()
    }
}
