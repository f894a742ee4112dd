//! Reading everything that counts, and verifying it.

use std::fmt;
use std::mem::offset_of;
use std::ops::{ControlFlow, RangeInclusive};

use raw_block_core::ReadAt;

use crate::error::Doing;
use crate::format::{
    Damage, DeleteLogBlock, ObjectEntry, Preamble, SUPERBLOCK_CELL_LEN, Superblock,
    superblock_offsets,
};
use crate::index::Located;
use crate::layout::buffer_len;
use crate::limited_log::{log_count, log_first};
use crate::space::{LogInUse, Space};
use crate::walk::Escaped;
use crate::{Error, Progress, Store};

/// Bytes of the delete log that are read at once.
const PIECE: usize = 8 << 20;

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

impl Store {
    /// Reads everything that counts, and verifies it: the copies of the superblock, the committed
    /// checkpoint, the delete log, header and payload of every object. Calls `progress` now and then; it may break, or
    /// sleep to leave the device to others.
    ///
    /// The first ten findings are logged one by one, then how many there are in all.
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
        self.shared.check_process()?;
        let mut report = ScrubReport::default();
        self.scrub_superblocks(&mut report)?;
        if let Err(error) = self.shared.verify_checkpoint() {
            self.note(&mut report, Finding { key: None, error });
        }
        self.scrub_delete_log(&mut report)?;

        let block_size = self.shared.layout.block_size.get();
        let len = |entry: &ObjectEntry| entry.slot_len(block_size);
        let longest = usize::try_from(self.shared.layout.slot_size.get()).unwrap_or(usize::MAX);
        let complete = self.walk(
            longest,
            len,
            |located, object| {
                let scrubbed = self.scrub_object(located, object);
                if scrubbed.is_err() && !self.is_there(located) {
                    return ControlFlow::Continue(());
                }
                report.objects += 1;
                report.bytes += len(&located.entry) as u64;
                if let Err(finding) = scrubbed {
                    self.shared.counters.failed_checks.add(1);
                    self.note(&mut report, finding);
                }
                ControlFlow::Continue(())
            },
            &mut progress,
        );
        log_count(report.findings.len(), self.shared.device.backend().device(), "the scrub");
        report.complete = complete?;
        Ok(report)
    }

    /// Adds a finding to the report, and logs it if it is among the first.
    fn note(&self, report: &mut ScrubReport, finding: Finding) {
        let device = self.shared.device.backend().device();
        log_first(report.findings.len(), || {
            tracing::warn!(device, %finding, "the scrub found a damage");
        });
        report.findings.push(finding);
    }

    fn scrub_object(&self, located: &Located, object: Result<&[u8], Error>) -> Result<(), Finding> {
        let nameless = |error| Finding { key: None, error };
        let object = object.map_err(nameless)?;
        let view = self.check_header(object, located).map_err(nameless)?;
        let payload = view.payload(&object[self.block_size()..]);
        view.header.verify_payload(payload).map_err(|damage| {
            let (structure, offset) = ("the payload of an object", self.slot_offset(located.slot));
            Finding {
                key: Some(view.key.to_vec()),
                error: Error::Damaged { structure, offset, damage },
            }
        })?;
        self.unverified.remove(located.slot);
        Ok(())
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
            if let Err(error) = found {
                self.note(report, Finding { key: None, error });
            }
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
        let mut verify = |indices: &[u64], in_use: &LogInUse| {
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
                        check_log_block(block, layout, index, in_use.get(&index)).map_err(damage)
                    });
                    damaged.extend(verified.err().map(|error| (index, error)));
                }
            }
            damaged
        };
        let in_use = || self.shared.space(Space::log_in_use);
        let before = in_use();
        let suspects: Vec<_> = (0..blocks).collect();
        let suspects: Vec<_> =
            verify(&suspects, &before).into_iter().map(|(index, _)| index).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        // A block may have been under way. One that is written again since then is well.
        self.shared.wait_for_changes();
        let damaged = verify(&suspects, &before);
        let since = in_use();
        let damaged = damaged.into_iter().filter(|(i, _)| before.get(i) == since.get(i));
        for (_, error) in damaged {
            self.note(report, Finding { key: None, error });
        }
        Ok(())
    }
}

/// Checks a block of the delete log, which has records with these sequences if it is in use.
fn check_log_block(
    block: &[u8],
    store: &Superblock,
    index: u64,
    in_use: Option<&RangeInclusive<u64>>,
) -> Result<(), Damage> {
    match (DeleteLogBlock::read(block, store, index), in_use) {
        (Ok((_, records)), Some(sequences)) => {
            if records.iter().all(|record| sequences.contains(&record.sequence.get())) {
                return Ok(());
            }
            Err(Damage::Inconsistent("its records are older than those that were written to it"))
        }
        (Ok(_) | Err(Damage::ForeignStore), None) => Ok(()),
        // Never written by this store, unless it is another structure of it.
        (Err(Damage::NotThisStructure { .. }), None)
            if block[offset_of!(Preamble, uuid)..][..16] != store.preamble.uuid =>
        {
            Ok(())
        }
        (Err(damage), _) => Err(damage),
    }
}
