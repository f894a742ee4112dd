//! The chunks of one segment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::FromZeros;

/// Chunks of the first piece of a list.
const FIRST_PIECE: usize = 8;
/// The pieces of a list with 2^26 chunks: each is four times as long as its predecessor.
const PIECES: usize = 13;

/// A list of chunk numbers that grows while it is read. It keeps its memory when it is emptied.
///
/// One thread at a time appends or empties; readers take no lock.
#[derive(Default)]
pub(super) struct ChunkList {
    len: AtomicU32,
    pieces: OnceLock<Box<[Piece; PIECES]>>,
}

type Piece = OnceLock<Box<[AtomicU32]>>;

impl ChunkList {
    /// How many chunks there are. A thread that reads this count sees what was done to the chunks
    /// before they were appended.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, at: u32) -> Option<u32> {
        if at >= self.len() {
            return None;
        }
        let (piece, at) = position(at);
        let chunks = self.pieces.get()?.get(piece)?.get()?;
        chunks.get(at).map(|chunk| chunk.load(Ordering::Relaxed))
    }

    /// Makes space for one more chunk; `None` if there is no memory for it.
    pub(super) fn reserve(&self) -> Option<()> {
        self.next()?;
        Some(())
    }

    /// Appends a chunk, for which there [is space](Self::reserve).
    pub(super) fn push(&self, chunk: u32) {
        if let Some(next) = self.next() {
            next.store(chunk, Ordering::Relaxed);
            self.len.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn clear(&self) {
        self.len.store(0, Ordering::Release);
    }

    /// Bytes that the list takes.
    pub(super) fn memory(&self) -> usize {
        let Some(pieces) = self.pieces.get() else { return size_of::<Self>() };
        let chunks: usize = pieces.iter().filter_map(OnceLock::get).map(|piece| piece.len()).sum();
        size_of::<Self>() + size_of_val(&**pieces) + chunks * size_of::<AtomicU32>()
    }

    /// Where the next chunk goes, which is allocated if need be.
    fn next(&self) -> Option<&AtomicU32> {
        let (piece, at) = position(self.len());
        let pieces = self.pieces.get_or_init(Box::default);
        let chunks = pieces.get(piece)?;
        if chunks.get().is_none() {
            let len = FIRST_PIECE << (2 * piece);
            let _ = chunks.set(<[AtomicU32]>::new_box_zeroed_with_elems(len).ok()?);
        }
        chunks.get()?.get(at)
    }
}

/// The piece in which the chunk lies, and its position there.
fn position(at: u32) -> (usize, usize) {
    let at = at as usize;
    let piece = (3 * (at / FIRST_PIECE) + 1).ilog2() / 2;
    let before = FIRST_PIECE * ((1 << (2 * piece)) - 1) / 3;
    (piece as usize, at - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_and_keeps_its_memory_when_it_is_emptied() {
        let list = ChunkList::default();
        for round in 0..2 {
            for at in 0..1000 {
                assert_eq!(list.get(at), None);
                list.reserve().unwrap();
                list.push(at * 7 + round);
                assert_eq!(list.len(), at + 1);
            }
            assert!((0..1000).all(|at| list.get(at) == Some(at * 7 + round)));
            let memory = list.memory();
            list.clear();
            assert_eq!((list.len(), list.get(0)), (0, None));
            assert_eq!(list.memory(), memory);
        }
    }

    #[test]
    fn every_number_has_its_own_position() {
        let mut expected = (0, 0);
        for at in 0..100_000 {
            assert_eq!(position(at), expected, "{at}");
            expected.1 += 1;
            if expected.1 == 8 << (2 * expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(position((1 << 26) - 1).0 < PIECES);
    }
}
