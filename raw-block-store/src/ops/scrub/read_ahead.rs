//! Reading what a scrub verifies, and what comes next while it is verified.

use std::collections::VecDeque;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Buffer, BufferPool, OwnedTransfer, ReadAt, Ticket};

use super::windows::{Item, Window, Windows};
use crate::Error;
use crate::error::Context;
use crate::mutant;
use crate::state::StoreState;

/// Pieces that are read while one is verified.
const PIECES: usize = 8;
/// Dead blocks between two items that are read with them, because another transfer costs more.
const GAP: u32 = 8;

/// Bytes of a piece, at least a block.
fn piece_len() -> usize {
    mutant::limit(1 << 20, 2 << 10)
}

/// Consecutive blocks of a segment that are read together.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) window: Arc<Window>,
    pub(super) first_block: u32,
    pub(super) blocks: u32,
    pub(super) parts: Vec<Part>,
}

/// An item of a piece, or a part of a long one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its position in the window.
    pub(super) item: usize,
    /// Blocks of the item in earlier pieces.
    pub(super) skipped: u32,
    pub(super) blocks: u32,
}

impl Part {
    /// The first of its blocks in the segment.
    pub(super) fn block(&self, window: &Window) -> u32 {
        window.items[self.item].block + self.skipped
    }
}

/// A piece that was read.
pub(super) struct Read {
    pub(super) piece: Piece,
    pub(super) buffer: Buffer,
    pub(super) result: Result<(), raw_block_core::Error>,
}

/// Reads everything that is live, in the order of its place.
pub(super) struct ReadAhead<'a> {
    state: &'a StoreState,
    windows: Windows<'a>,
    /// The window that is being cut into pieces, the next item of it, and how many blocks of that
    /// item are in pieces.
    cursor: Option<(Arc<Window>, usize, u32)>,
    pool: BufferPool,
    in_flight: VecDeque<(Piece, PieceRead)>,
}

enum PieceRead {
    Begun(Box<Ticket>),
    Ended(Buffer, Result<(), raw_block_core::Error>),
}

impl<'a> ReadAhead<'a> {
    /// # Errors
    /// There is no memory for the buffers.
    pub(super) fn new(state: &'a StoreState) -> Result<Self, Error> {
        let len = piece_len().max(state.layout.block_size as usize);
        let pool = BufferPool::new(len, PIECES + 1).context("allocate memory for a scrub")?;
        let windows = Windows::new(state);
        Ok(Self { state, windows, cursor: None, pool, in_flight: VecDeque::new() })
    }

    /// The next piece; `None` after the last one. The buffer of the one before must have been
    /// dropped.
    pub(super) fn next(&mut self) -> Option<Read> {
        while self.in_flight.len() < PIECES {
            let Some(piece) = self.cut() else { break };
            let Some(buffer) = self.pool.take() else { break };
            let reading = self.begin(&piece, buffer);
            self.in_flight.push_back((piece, reading));
        }
        let (piece, reading) = self.in_flight.pop_front()?;
        let (buffer, result) = match reading {
            PieceRead::Begun(ticket) => {
                let read = ticket.wait().pop()?;
                (read.buffer, read.result)
            }
            PieceRead::Ended(buffer, result) => (buffer, result),
        };
        Some(Read { piece, buffer, result })
    }

    fn begin(&self, piece: &Piece, mut buffer: AlignedBuf) -> PieceRead {
        let layout = &self.state.layout;
        let len = piece.blocks as usize * layout.block_size as usize;
        let offset = layout.block_offset(piece.window.segment, piece.first_block);
        let transfer = OwnedTransfer::new(offset, buffer).with_payload_len(len);
        match self.state.dispatcher.batched_read(vec![transfer]) {
            Ok(ticket) => PieceRead::Begun(Box::new(ticket)),
            // No queue is left for it: it waits for one, as every other call does.
            Err(mut refused) => {
                let refused = refused.batch.pop().map(|transfer| transfer.buffer);
                buffer = refused.and_then(|it| it.try_into().ok()).unwrap_or_default();
                let mut read = [ReadAt::new(offset, &mut buffer[..len])];
                let result = self.state.dispatcher.read_buffers(&mut read).all();
                PieceRead::Ended(buffer.into(), result)
            }
        }
    }

    /// Cuts the next piece out of the windows.
    fn cut(&mut self) -> Option<Piece> {
        let most = u32::try_from(self.pool.buffer_len()).unwrap_or(u32::MAX)
            / self.state.layout.block_size;
        let (window, mut item, mut skipped) = match self.cursor.take() {
            Some(cursor) => cursor,
            None => (Arc::new(self.windows.next()?), 0, 0),
        };
        let first_block = window.items[item].block + skipped;
        let (mut parts, mut end) = (Vec::new(), first_block);
        while let Some(&Item { block, blocks, .. }) = window.items.get(item) {
            let start = block + skipped;
            let left = most - (end - first_block);
            if start < end || start > end + GAP || start - end >= left {
                break;
            }
            let part = (blocks - skipped).min(left - (start - end));
            parts.push(Part { item, skipped, blocks: part });
            end = start + part;
            skipped += part;
            if skipped == blocks {
                (item, skipped) = (item + 1, 0);
            }
        }
        if item < window.items.len() {
            self.cursor = Some((Arc::clone(&window), item, skipped));
        }
        Some(Piece { window, first_block, blocks: end - first_block, parts })
    }
}
