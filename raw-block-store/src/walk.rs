//! Going through all objects: listing keys, and verifying everything.

use std::ops::ControlFlow;

use raw_block_core::ReadAt;

use crate::error::Doing;
use crate::format::{
    Damage, ObjectEntry, SUPERBLOCK_CELL_LEN, SlotHeader, SlotView, Superblock, superblock_offsets,
};
use crate::index::Located;
use crate::{Error, Store};

/// Bytes of objects, or of headers, that are read at once.
const PIECE: usize = 4 << 20;

/// How far a call is that goes through all slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Slots that it is done with.
    pub slots_done: u64,
    /// Slots in all.
    pub slots: u64,
}

/// What is known of an object without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Something that fails its checks or cannot be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The key, if it is an object whose header is well.
    pub key: Option<Vec<u8>>,
    /// What it is, where, and what is wrong with it.
    pub error: Error,
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
    /// checkpoint, header and payload of every object. Calls `progress` now and then; it may break, or
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
                    tracing::warn!(error = %finding.error, "the scrub found a damage");
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

    /// Reads the first `len` bytes of every object, in the order of the slots and many at once, and calls
    /// `visit` with each. Returns whether it came to the end: both functions may break.
    fn walk(
        &self,
        len: impl Fn(&ObjectEntry) -> usize,
        mut visit: impl FnMut(&Located, Result<&[u8], Error>) -> ControlFlow<()>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        let slots = self.shared.layout.slot_count.get();
        let mut entries = vec![ObjectEntry::NONE; PIECE / self.block_size()];
        let mut first = 0;
        while first < slots {
            let count = entries.len().min(usize::try_from(slots - first).unwrap_or(usize::MAX));
            let getting = self.shared.begin_get();
            self.shared.index.copy(first, &mut entries[..count]);
            // As many as fit, but at least one.
            let (mut slots_done, mut total, mut batch) = (first, 0, Vec::new());
            for (slot, &entry) in (first..).zip(&entries[..count]) {
                let len = if entry.is_live() { len(&entry) } else { 0 };
                if total > 0 && total + len > PIECE {
                    break;
                }
                slots_done = slot + 1;
                total += len;
                if entry.is_live() {
                    batch.push((Located { slot, entry }, len));
                }
            }
            let mut buffer = self.scratch.take(total)?;
            let mut reads = Vec::with_capacity(batch.len());
            let mut rest = &mut buffer[..];
            for (located, len) in &batch {
                let (object, after) = rest.split_at_mut(*len);
                reads.push(ReadAt::new(self.slot_offset(located.slot), object));
                rest = after;
            }
            let results = self.shared.device.read_buffers(&mut reads);
            drop((reads, getting));
            let mut rest = &buffer[..];
            for ((located, len), result) in batch.iter().zip(results) {
                let (object, after) = rest.split_at(*len);
                rest = after;
                if visit(located, result.doing("read an object").map(|()| object)).is_break() {
                    return Ok(false);
                }
            }
            first = slots_done;
            if progress(Progress { slots_done, slots }).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
