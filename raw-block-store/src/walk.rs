//! Going through all objects: listing keys, and verifying everything.

use std::fmt;
use std::iter;
use std::mem::offset_of;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

use raw_block_core::ReadAt;

use crate::error::Doing;
use crate::format::{
    Damage, DeleteLogBlock, ObjectEntry, Preamble, SUPERBLOCK_CELL_LEN, SlotHeader, SlotView,
    Superblock, superblock_offsets,
};
use crate::index::Located;
use crate::layout::buffer_len;
use crate::scratch::Scratch;
use crate::{Error, Progress, Store};

/// Bytes of objects, or of headers, that are read at once.
const PIECE: usize = 8 << 20;
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

/// What [`Store::scrub`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Objects that were read.
    pub objects: u64,
    /// Bytes of objects that were read, headers included.
    pub bytes: u64,
    /// What fails its checks or cannot be read.
    pub findings: Vec<Finding>,
    /// Whether everything was looked at.
    pub complete: bool,
}

/// Something that fails its checks or cannot be read. Its text has no more than the beginning of the key, with
/// everything escaped that is not plain text.
#[derive(Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The key, if it is an object whose header is well.
    pub key: Option<Vec<u8>>,
    /// What it is, where, and what is wrong with it.
    pub error: Error,
}

/// Bytes of a key that a text shows.
const SHOWN: usize = 32;

/// The beginning of bytes that came from a device, harmless for a terminal and a log.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN { write!(f, "... ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "key {}: ", Escaped(key))?;
        }
        write!(f, "{}", self.error)
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finding({self})")
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

    /// Reads everything that counts, and verifies it: the copies of the superblock, the committed
    /// checkpoint, the delete log, header and payload of every object. Calls `progress` now and then; it may break, or
    /// sleep to leave the device to others.
    ///
    /// Changes and gets go on meanwhile; a checkpoint waits while the committed one is read. Nothing is
    /// repaired: a damaged object is lost and should be put again or deleted; copies of the superblock and
    /// checkpoints are rewritten by the next close.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and [`Error::Device`] when there is no memory for buffers. What is damaged
    /// or cannot be read is in the report.
    pub fn scrub(
        &self,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, Error> {
        let mut report = ScrubReport::default();
        self.scrub_superblocks(&mut report)?;
        let found = |error| Finding { key: None, error };
        report.findings.extend(self.shared.verify_checkpoint().err().map(found));
        self.scrub_delete_log(&mut report)?;

        let block_size = self.block_size();
        let len = |entry: &ObjectEntry| {
            let behind = if self.is_inline(entry) { 0 } else { entry.payload_len.get() as usize };
            (block_size + behind).next_multiple_of(block_size)
        };
        let complete = self.walk(
            len,
            |located, object| {
                report.objects += 1;
                report.bytes += len(&located.entry) as u64;
                if let Err(finding) = self.scrub_object(located, object) {
                    tracing::warn!(%finding, "the scrub found a damage");
                    self.shared.counters.failed_checks.add(1);
                    report.findings.push(finding);
                }
                ControlFlow::Continue(())
            },
            &mut progress,
        )?;
        report.complete = complete;
        Ok(report)
    }

    fn scrub_object(&self, located: &Located, object: Result<&[u8], Error>) -> Result<(), Finding> {
        let nameless = |error| Finding { key: None, error };
        let object = object.map_err(nameless)?;
        let view = self.check_header(object, located).map_err(nameless)?;
        let payload_len = located.entry.payload_len.get() as usize;
        let behind = &object[self.block_size()..];
        let payload = view.inline_payload.unwrap_or_else(|| &behind[..payload_len]);
        view.header.verify_payload([payload]).map_err(|damage| {
            let (structure, offset) = ("the payload of an object", self.slot_offset(located.slot));
            Finding {
                key: Some(view.key.to_vec()),
                error: Error::Damaged { structure, offset, damage },
            }
        })?;
        self.unverified.remove(located.slot);
        Ok(())
    }

    /// Checks that an object that was read begins with the header that the index names.
    fn check_header<'a>(&self, object: &'a [u8], located: &Located) -> Result<SlotView<'a>, Error> {
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

    fn scrub_superblocks(&self, report: &mut ScrubReport) -> Result<(), Error> {
        let [first, second, _] =
            superblock_offsets(self.shared.layout.device_len.get()).unwrap_or_default();
        let mut cell = self.scratch.take(SUPERBLOCK_CELL_LEN)?;
        for offset in [first, second, self.shared.layout.last_superblock_offset.get()] {
            let read = ReadAt::new(offset, &mut cell);
            let found = self.shared.device.read_buffers(&mut [read]).all();
            let found = found.doing("read a copy of the superblock").and_then(|()| {
                let structure = "a copy of the superblock";
                let damaged = |damage| Error::Damaged { structure, offset, damage };
                let copy = Superblock::read(&cell).map_err(damaged)?;
                let ours = copy.preamble.uuid == self.shared.layout.preamble.uuid;
                if ours { Ok(()) } else { Err(damaged(Damage::ForeignStore)) }
            });
            report.findings.extend(found.err().map(|error| Finding { key: None, error }));
        }
        Ok(())
    }

    /// Verifies every block of the delete log that was ever written. One that a power cut tore looks like one
    /// that decayed, until it is written again.
    fn scrub_delete_log(&self, report: &mut ScrubReport) -> Result<(), Error> {
        let block_size = self.block_size();
        let layout = &self.shared.layout;
        let blocks = layout.delete_log_len.get() / block_size as u64;
        let mut buffer = self.scratch.take(buffer_len(layout, blocks, PIECE))?;
        let mut verify = |indices: Vec<u64>| {
            let mut damaged = Vec::new();
            for batch in indices.chunks(buffer.len() / block_size) {
                let offsets =
                    batch.iter().map(|i| layout.delete_log_offset.get() + i * block_size as u64);
                let offsets: Vec<_> = offsets.collect();
                let places = offsets.iter().zip(buffer.chunks_exact_mut(block_size));
                let mut reads: Vec<_> = places.map(|(&at, block)| ReadAt::new(at, block)).collect();
                let results = self.shared.device.read_buffers(&mut reads);
                drop(reads);
                let read = buffer.chunks_exact(block_size).zip(results);
                for ((&index, offset), (block, result)) in batch.iter().zip(offsets).zip(read) {
                    let structure = "a block of the delete log";
                    let damage = |damage| Error::Damaged { structure, offset, damage };
                    let verified = result.doing("read the delete log").and_then(|()| {
                        match DeleteLogBlock::read(block, layout, index) {
                            Err(Damage::ForeignStore) | Ok(_) => Ok(()),
                            // Never written by this store, unless it is another structure of it.
                            Err(Damage::NotThisStructure { .. })
                                if block[offset_of!(Preamble, uuid)..][..16]
                                    != layout.preamble.uuid =>
                            {
                                Ok(())
                            }
                            Err(damaged) => Err(damage(damaged)),
                        }
                    });
                    damaged.extend(verified.err().map(|error| (index, error)));
                }
            }
            damaged
        };
        let suspects = verify((0..blocks).collect());
        if suspects.is_empty() {
            return Ok(());
        }
        // A block may have been under way; it is written once, and then stays as it is for long.
        self.shared.wait_for_changes();
        let damaged = verify(suspects.into_iter().map(|(index, _)| index).collect());
        report.findings.extend(damaged.into_iter().map(|(_, error)| Finding { key: None, error }));
        Ok(())
    }

    /// Reads the first `len` bytes of every object, in the order of the slots and many at once, and calls
    /// `visit` with each. Returns whether it came to the end: both functions may break.
    ///
    /// What comes next is read, by a thread of its own, while `visit` looks at what is there.
    fn walk(
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
