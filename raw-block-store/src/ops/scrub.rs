//! Reading everything that counts, and verifying it.

mod confirm;
mod read_ahead;
mod structures;
mod windows;

use std::collections::HashSet;
use std::fmt;
use std::ops::{ControlFlow, Range};

use read_ahead::{Part, Read, ReadAhead};
use windows::{Content, Window};

use super::escaped::Escaped;
use super::header::slot_header;
use crate::format::{PayloadHasher, SegmentHeader};
use crate::state::index::{Located, Place};
use crate::stats::limited_log::{log_count, log_first};
use crate::{Error, Progress, Store};

const SCRUB: &str = "scrub the store";

/// What [`Store::scrub`] found.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// # use std::sync::Arc;
/// # use raw_block_store::core::MemoryBackend;
/// # use raw_block_store::{FormatOptions, Store};
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// let report = store.scrub(|_| ControlFlow::Continue(()))?;
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// assert!(report.complete && report.findings.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Objects that were verified.
    pub objects: u64,
    /// Bytes of live objects and headers that were read.
    pub bytes: u64,
    /// What fails its checks or cannot be read: the first [`MAX_FINDINGS`](Self::MAX_FINDINGS).
    pub findings: Vec<Finding>,
    /// How many findings there were beyond those.
    pub more_findings: u64,
    /// Whether everything was verified.
    pub complete: bool,
}

impl ScrubReport {
    /// The most findings that a report has: a device may have one for each object.
    pub const MAX_FINDINGS: usize = 1000;
}

/// Something that fails its checks or cannot be read. Its text has no more than the beginning of
/// the key, with everything escaped that is not plain text.
#[derive(Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The key, if it is an object whose slot header is intact.
    pub key: Option<Vec<u8>>,
    /// The segment that has it, if one has.
    pub segment: Option<u32>,
    /// Where it begins on the device, in bytes.
    pub offset: u64,
    /// What it is, and what is wrong with it.
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
    /// checkpoint, the headers of segments and slots, tombstones, and the payload of every object,
    /// in the order of their places. Calls `progress` now and then; it may break, use the store, or
    /// sleep to leave the device to other calls.
    ///
    /// What fails its checks, or cannot be read, is read once more before it counts. An object that
    /// fails them twice is marked as damaged, as by a get: [`contains`](Self::contains) says no,
    /// and it should be put again or deleted. Copies of the superblock and checkpoints are written
    /// again by the next close. The first ten findings are logged one by one, then how many there
    /// are in all.
    ///
    /// Takes some MiB of memory. Changes, gets and reclaims go on in the meantime; a checkpoint
    /// waits while the committed one is read. An object that is moved in the meantime may be
    /// verified twice, or not by this scrub but by its move.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no memory for buffers. What is damaged or cannot be read is
    /// in the report.
    pub fn scrub(
        &self,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ScrubReport, Error> {
        let state = &*self.state;
        let call = state.begin_call()?;
        let mut ahead = ReadAhead::new(state)?;
        let mut scrub = Scrub::new(self);
        scrub.superblocks()?;
        scrub.checkpoint()?;
        drop(call);
        let (layout, mut flow) = (&state.layout, ControlFlow::Continue(()));
        let bytes = layout.segment_size() * u64::from(layout.segment_count);
        while flow.is_continue() {
            let call = state.begin_call()?;
            let Some(read) = ahead.next() else { break };
            let piece = &read.piece;
            let end = layout.block_offset(piece.window.segment, piece.first_block + piece.blocks);
            scrub.piece(read)?;
            drop(call);
            let bytes_done = end - layout.segments_offset;
            flow = progress(Progress { bytes_done, bytes });
        }
        if flow.is_continue() {
            scrub.report.complete = true;
            let _ = progress(Progress { bytes_done: bytes, bytes });
        }
        log_count(scrub.findings(), state.device_name(), "the scrub");
        Ok(scrub.report)
    }
}

/// A scrub in progress.
struct Scrub<'a> {
    store: &'a Store,
    report: ScrubReport,
    /// The payload whose first pieces were read.
    payload: Option<Payload>,
    /// The segment that is being verified, and the numbers of its entries that are in the report.
    segment: u32,
    found: HashSet<u32>,
}

/// The pieces of a payload that were read.
struct Payload {
    hasher: PayloadHasher,
    /// Bytes that are left.
    left: usize,
    is_read: bool,
}

impl<'a> Scrub<'a> {
    fn new(store: &'a Store) -> Self {
        let report = ScrubReport::default();
        Self { store, report, payload: None, segment: 0, found: HashSet::new() }
    }

    /// Adds a finding to the report, and logs it if it is among the first.
    fn note(&mut self, finding: Finding) {
        log_first(self.findings(), || {
            let device = self.store.state.device_name();
            tracing::warn!(device, %finding, "the scrub found a damage");
        });
        if self.report.findings.len() < ScrubReport::MAX_FINDINGS {
            self.report.findings.push(finding);
        } else {
            self.report.more_findings += 1;
        }
    }

    fn findings(&self) -> usize {
        let more = usize::try_from(self.report.more_findings).unwrap_or(usize::MAX);
        self.report.findings.len().saturating_add(more)
    }

    /// Verifies a piece, and reads once more what fails.
    fn piece(&mut self, read: Read) -> Result<(), Error> {
        let Read { piece, buffer, result } = read;
        let window = &*piece.window;
        if self.segment != window.segment {
            self.segment = window.segment;
            self.found.clear();
        }
        let block_size = self.store.state.layout.block_size as usize;
        let is_read = result.is_ok();
        let mut suspects = Vec::new();
        for part in &piece.parts {
            let start = (part.block(window) - piece.first_block) as usize * block_size;
            let bytes = &buffer[start..start + part.blocks as usize * block_size];
            self.report.bytes += bytes.len() as u64;
            match &window.items[part.item].content {
                Content::SegmentHeader => {
                    if !is_read || !self.is_segment_header(window, bytes) {
                        self.confirm_segment_header(window)?;
                    }
                }
                Content::SlotHeader(entries) => {
                    let entries_of = &window.entries[entries.clone()];
                    let objects = entries_of.iter().filter(|of| of.entry.is_object());
                    self.report.objects += objects.count() as u64;
                    if is_read {
                        self.slot_header(window, entries, bytes, &mut suspects);
                    } else {
                        suspects.extend(entries.clone());
                    }
                }
                Content::Payload(entry) => {
                    if !self.is_payload_intact(window, *part, *entry, bytes, is_read) {
                        suspects.push(*entry);
                    }
                }
            }
        }
        drop(buffer);
        suspects.sort_unstable();
        suspects.dedup();
        for suspect in suspects {
            self.confirm(window, &window.entries[suspect])?;
        }
        Ok(())
    }

    fn is_segment_header(&self, window: &Window, block: &[u8]) -> bool {
        let layout = &self.store.state.layout;
        let header = SegmentHeader::read(block, layout, window.segment);
        header.is_ok_and(|header| header.generation.get() == window.generation)
    }

    /// Verifies a slot header, and what of its entries lies in it.
    fn slot_header(
        &mut self,
        window: &Window,
        entries: &Range<usize>,
        block: &[u8],
        suspects: &mut Vec<usize>,
    ) {
        let state = &self.store.state;
        let Some(first) = window.entries.get(entries.start) else { return };
        let place = (window.segment, first.entry.header_block());
        let Ok(view) = slot_header(state, block, place, window.generation) else {
            suspects.extend(entries.clone());
            return;
        };
        for at in entries.clone() {
            let located = &window.entries[at];
            let entry = &located.entry;
            if entry.is_tombstone() {
                if view.tombstone_entry() != Some(*entry) {
                    suspects.push(at);
                }
                continue;
            }
            let is_intact = self.store.object_in(&view, located).is_ok_and(|object| {
                object.payload.is_none_or(|payload| {
                    let (segment, generation) = (window.segment, window.generation);
                    entry.verify_payload(&state.layout, segment, generation, payload).is_ok()
                })
            });
            if !is_intact {
                suspects.push(at);
            } else if entry.payload_blocks(state.layout.block_size) == 0 {
                self.set_verified(window, located);
            }
        }
    }

    /// Verifies the next part of a payload. Returns `false` if that was the last one, and the
    /// payload is damaged.
    fn is_payload_intact(
        &mut self,
        window: &Window,
        part: Part,
        at: usize,
        bytes: &[u8],
        is_read: bool,
    ) -> bool {
        let layout = &self.store.state.layout;
        let located = &window.entries[at];
        let entry = &located.entry;
        let place = entry.place(window.segment, window.generation);
        let mut payload = match self.payload.take() {
            Some(payload) if part.skipped > 0 => payload,
            _ => Payload {
                hasher: PayloadHasher::new(),
                left: entry.payload_len.get() as usize,
                is_read: true,
            },
        };
        let len = bytes.len().min(payload.left);
        payload.hasher.update(&bytes[..len]);
        payload.left -= len;
        payload.is_read &= is_read;
        if payload.left > 0 {
            self.payload = Some(payload);
            return true;
        }
        let computed = place.checksum(layout, payload.hasher.finish());
        let is_intact = payload.is_read && entry.checksum == computed;
        if is_intact {
            self.set_verified(window, located);
        }
        is_intact
    }

    /// Notes that an object is intact which no get has verified since a recovery found it.
    fn set_verified(&self, window: &Window, located: &Located) {
        let state = &self.store.state;
        if !state.index.is_unverified(located.place) {
            return;
        }
        if let Some(_guard) = self.read_shown(window, located) {
            state.index.set_verified(located.place);
        }
    }
}

/// Where an entry lies.
fn offset_of(store: &Store, Place { segment, .. }: Place, block: u32) -> u64 {
    store.state.layout.block_offset(segment, block)
}

#[cfg(test)]
mod tests;
