//! Going through all objects, and listing their keys.

use std::fmt;
use std::iter;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

use raw_block_core::ReadAt;

use crate::error::Doing;
use crate::format::{Damage, ObjectEntry, SlotHeader, SlotView};
use crate::index::Located;
use crate::scratch::Scratch;
use crate::{Error, Progress, Store};

/// Bytes of objects, or of headers, that are read at once.
pub(crate) const PIECE: usize = 8 << 20;
/// Pieces that are read before somebody looks at them.
const PIECES_AHEAD: usize = 1;

/// What is known of an object without its payload.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The caller's metadata.
    pub metadata: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// The slot that holds it.
    pub slot: u64,
}

/// Bytes of a key that a text shows.
const SHOWN: usize = 32;

/// The beginning of bytes that came from a device, harmless for a terminal and a log.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN { write!(f, "... ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}

impl fmt::Debug for ObjectInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectInfo")
            .field("key", &format_args!("{}", Escaped(self.key)))
            .field("metadata", &format_args!("{}", Escaped(self.metadata)))
            .field("payload_len", &self.payload_len)
            .field("slot", &self.slot)
            .finish()
    }
}

impl Store {
    /// Calls `visit` with what is known of every object, in the order of the slots, until it breaks.
    ///
    /// Reads the header of each object, in large batches. Objects that are put or deleted meanwhile may be
    /// among them or not. What fails its checks is left out and counted.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn list(
        &self,
        mut visit: impl FnMut(ObjectInfo<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let block_size = self.block_size();
        self.walk(
            |_| block_size,
            |located, object| {
                let Ok(view) = object.and_then(|bytes| self.check_header(bytes, located)) else {
                    self.shared.counters.failed_checks.add(1);
                    return ControlFlow::Continue(());
                };
                visit(ObjectInfo {
                    key: view.key,
                    metadata: view.metadata,
                    payload_len: located.entry.payload_len.into(),
                    slot: located.slot,
                })
            },
            |_| ControlFlow::Continue(()),
        )
        .map(drop)
    }

    /// Checks that an object that was read begins with the header that the index names.
    pub(crate) fn check_header<'a>(
        &self,
        object: &'a [u8],
        located: &Located,
    ) -> Result<SlotView<'a>, Error> {
        let damaged = |damage| Error::Damaged {
            structure: "the header of an object",
            offset: self.slot_offset(located.slot),
            damage,
        };
        let block = &object[..self.block_size()];
        let view = SlotHeader::read(block, &self.shared.layout, located.slot).map_err(damaged)?;
        if view.header.entry != located.entry || self.hash(view.key) != located.entry.key_hash {
            let rule = "it is another object than the index names";
            return Err(damaged(Damage::Inconsistent(rule)));
        }
        Ok(view)
    }

    /// Reads the first `len` bytes of every object, in the order of the slots and many at once, and calls
    /// `visit` with each. Returns whether it came to the end: both functions may break.
    ///
    /// What comes next is read, by a thread of its own, while `visit` looks at what is there.
    pub(crate) fn walk(
        &self,
        len: impl Fn(&ObjectEntry) -> usize + Sync,
        mut visit: impl FnMut(&Located, Result<&[u8], Error>) -> ControlFlow<()>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        let slots = self.shared.layout.slot_count.get();
        let mut visit = |piece: Result<Piece<'_>, Error>| -> Result<_, Error> {
            let Piece { buffer, objects, slots_done } = piece?;
            let mut rest = &buffer[..];
            for (located, len, result) in objects {
                let (object, after) = rest.split_at(len);
                rest = after;
                if visit(&located, result.doing("read an object").map(|()| object)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(progress(Progress { slots_done, slots }))
        };
        let len = &len;
        let pieces = || {
            let mut first = 0;
            iter::from_fn(move || {
                let piece = (first < slots).then(|| self.read_piece(first, len))?;
                // After an error there is no more to come.
                first = piece.as_ref().map_or(slots, |piece| piece.slots_done);
                Some(piece)
            })
        };
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(PIECES_AHEAD);
            let reader = thread::Builder::new().name("raw-block-walk".to_owned());
            let started = reader.spawn_scoped(scope, move || {
                // Nobody receives any more when a function broke or panicked.
                let _ = pieces().try_for_each(|piece| sender.send(piece));
            });
            let mut ahead;
            let mut in_turn;
            let pieces: &mut dyn Iterator<Item = _> = if started.is_ok() {
                ahead = receiver.into_iter();
                &mut ahead
            } else {
                in_turn = pieces();
                &mut in_turn
            };
            for piece in pieces {
                if visit(piece)?.is_break() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Reads the first `len` bytes of the objects in the slots from `first` on, as many as fit into a piece
    /// but at least one.
    fn read_piece(
        &self,
        first: u64,
        len: impl Fn(&ObjectEntry) -> usize,
    ) -> Result<Piece<'_>, Error> {
        let slots = self.shared.layout.slot_count.get();
        let count = usize::try_from(slots - first).unwrap_or(usize::MAX);
        let mut entries = vec![ObjectEntry::NONE; count.min(PIECE / self.block_size())];
        let getting = self.shared.begin_get();
        self.shared.index.copy(first, &mut entries);
        let (mut slots_done, mut total, mut located) = (first, 0, Vec::new());
        for (slot, entry) in (first..).zip(entries) {
            let len = if entry.is_live() { len(&entry) } else { 0 };
            if total > 0 && total + len > PIECE {
                break;
            }
            slots_done = slot + 1;
            total += len;
            if entry.is_live() {
                located.push((Located { slot, entry }, len));
            }
        }
        let mut buffer = self.scratch.take(total)?;
        let mut reads = Vec::with_capacity(located.len());
        let mut rest = &mut buffer[..];
        for (located, len) in &located {
            let (object, after) = rest.split_at_mut(*len);
            reads.push(ReadAt::new(self.slot_offset(located.slot), object));
            rest = after;
        }
        let results = self.shared.device.read_buffers(&mut reads);
        drop((reads, getting));
        let objects = located.into_iter().zip(results);
        let objects = objects.map(|((located, len), result)| (located, len, result)).collect();
        Ok(Piece { buffer, objects, slots_done })
    }
}

/// Objects that were read together.
struct Piece<'a> {
    buffer: Scratch<'a>,
    /// Each with its length in the buffer, one behind the other, and how reading it went.
    objects: Vec<(Located, usize, Result<(), raw_block_core::Error>)>,
    slots_done: u64,
}
