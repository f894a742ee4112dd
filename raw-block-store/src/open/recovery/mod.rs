//! Finding out what the store holds when it is opened. Writes nothing.

mod claims;
mod contested;
mod damages;
mod entries;
mod headers;
mod plan;
mod scan;
mod steps;
mod tables;
mod tombstones;

use raw_block_core::Dispatcher;

use crate::Error;
use crate::checkpoint::find::{self, Checkpoint, CheckpointSearch};
use crate::format::Layout;
use crate::mutant::Mutant;
use crate::options::OpenOptions;
use crate::state::containers::Containers;
use crate::state::index::{Index, Located, Place};
use crate::state::space::{CommittedCheckpoint, SegmentImage, Shape, SpaceImage};
use damages::Damages;
use entries::Entries;
use headers::Header;
use plan::{SegmentInfo, Segments};
use steps::Steps;

/// What a device holds.
pub(crate) struct Recovery {
    pub(crate) index: Index,
    /// For the space of the store.
    pub(crate) space: SpaceImage,
    pub(crate) containers: Containers,
    /// Whether the store was closed, and nothing was written since.
    pub(crate) clean: bool,
    /// Objects that are lost.
    pub(crate) damaged: u64,
    /// Segments whose headers a power cut may have torn or lost: the checkpoint does not show that
    /// they were durable.
    pub(crate) without_header: Vec<u32>,
    /// Containers of checkpoints that cannot be read.
    pub(crate) unreadable_containers: usize,
}

/// What the superblock says of how the store was left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShutdownState {
    /// The checkpoint from which the store is opened without recovery, if all copies say so.
    pub(crate) clean: Option<u64>,
    /// The number of the oldest checkpoint that may be used.
    pub(crate) oldest: u64,
}

/// Finds out what a store holds: from the checkpoint that its clean mark names, if it was closed;
/// otherwise from the newest checkpoint and everything newer.
///
/// With [`OpenOptions::accept_older_states`], an older checkpoint takes the place of one that is
/// lost, and blocks that cannot be read are left out.
///
/// # Errors
/// - [`Error::Damaged`] when there is no checkpoint, [`Error::CheckpointLost`] when the newest is
///   lost, [`Error::NewestLost`] when a block that may hold something newer cannot be read.
/// - [`Error::OutOfMemory`], [`Error::Device`].
pub(crate) fn recover(
    dispatcher: &Dispatcher,
    layout: &Layout,
    shape: &Shape,
    left: ShutdownState,
    options: &OpenOptions,
) -> Result<Recovery, Error> {
    let accept_older = options.accept_older_states;
    let CheckpointSearch { checkpoint, mut containers, broken, unreadable } =
        find::find(dispatcher, layout, left.clean)?;
    let clean = left.clean == Some(checkpoint.number);
    tracing::info!(
        device = dispatcher.backend().name(),
        checkpoint = checkpoint.number,
        clean,
        "a store is being opened"
    );
    let mut damages = Damages::new(dispatcher, layout, accept_older);
    let headers = headers::read(dispatcher, layout)?;
    let mentioned = headers.iter().map(Header::checkpoint).chain([broken, left.oldest]).max();
    let mut newest = Newest { dispatcher, found: checkpoint.number, accept_older };
    containers.skip_to(newest.check(mentioned.unwrap_or(0))?);

    let segments = Segments::new(&checkpoint, &headers, clean);
    let index = Index::new(layout.segment_count);
    index.reserve(checkpoint.named_entries());
    let steps = Steps::new(options.recovery_progress.as_deref().filter(|_| !clean), layout);
    let mut entries = Entries::new(dispatcher, layout, segments, &index, steps);
    entries.read(&headers, &mut damages)?;
    if entries.newer_checkpoint {
        containers.skip_to(newest.check(checkpoint.number + 1)?);
    }
    let Entries { mut claims, segments, tombstones, .. } = entries;
    contested::resolve(dispatcher, layout, &index, &mut claims, &segments, &mut damages)?;
    for tombstone in &claims.tombstones {
        index.delete(&tombstone.key_hash, tombstone.sequence, u64::MAX);
    }
    for tombstone in &tombstones {
        index.set_tombstone(tombstone.place, &tombstone.entry);
    }
    damages.finish();

    let is_lost = |known: &SegmentInfo| known.used && !known.has_header && !known.is_settled();
    let lost = segments.iter().filter(|(_, known)| !clean && is_lost(known));
    let without_header = lost.map(|(segment, _)| segment).collect();
    let next_sequence = next_sequence(layout, &checkpoint, clean, claims.highest);
    let restored = |(segment, known)| restored(segment, known, clean, next_sequence, shape, &index);
    let space = SpaceImage {
        segments: segments.iter().map(restored).collect(),
        tombstones: tombstones.iter().map(|found| (found.sequence(), found.place)).collect(),
        committed: CommittedCheckpoint { number: checkpoint.number, covered: checkpoint.covered },
        next_sequence,
    };
    Ok(Recovery {
        index,
        space,
        containers,
        clean,
        damaged: damages.objects,
        without_header,
        unreadable_containers: unreadable,
    })
}

/// Notices that the newest checkpoint is lost.
struct Newest<'a> {
    dispatcher: &'a Dispatcher,
    /// The number of the checkpoint that was found.
    found: u64,
    accept_older: bool,
}

impl Newest<'_> {
    /// Checks that no checkpoint is newer than the one that was found, if something on the device
    /// names this number. Returns the highest number that was ever used.
    fn check(&mut self, mentioned: u64) -> Result<u64, Error> {
        let Self { dispatcher, found, accept_older } = *self;
        if mentioned <= found || Mutant::LostCheckpointUnnoticed.is_on() {
            return Ok(found);
        }
        let device = dispatcher.backend().name();
        if !accept_older {
            let reason = "the device names it, and contains only older ones".to_owned();
            return Err(Error::CheckpointLost {
                device: device.to_owned(),
                number: mentioned,
                reason,
            });
        }
        tracing::error!(
            device,
            lost = mentioned,
            found,
            "an older checkpoint takes the place of the newest: old objects may be back"
        );
        Ok(mentioned)
    }
}

/// A sequence above every one that can have been given out.
///
/// Each segment was opened at most once since the checkpoint, and has at most as many entries as
/// blocks. There are no more deletes without tombstones than segments.
fn next_sequence(layout: &Layout, checkpoint: &Checkpoint, clean: bool, highest: u64) -> u64 {
    let jump = match () {
        () if clean || Mutant::SequencesGoOnFromHighest.is_on() => 0,
        () if Mutant::SequencesJumpTooShort.is_on() => layout.max_sequences() / 2,
        () => layout.max_sequences(),
    };
    checkpoint.next_sequence.saturating_add(jump).max(highest.saturating_add(1))
}

/// What the space has to know of a segment.
fn restored(
    segment: u32,
    known: &SegmentInfo,
    clean: bool,
    next_sequence: u64,
    shape: &Shape,
    index: &Index,
) -> SegmentImage {
    let entries = known.entries.max(known.found.entries);
    let end = known.next_block.max(known.found.end);
    // A record that lies may count more entries than have space in the table.
    let limit = shape.segment_blocks - shape.table_blocks(entries).min(shape.segment_blocks - 1);
    let is_whole = end <= limit;
    let mut restored = SegmentImage {
        generation: known.generation,
        used: known.used,
        open: clean && known.used && !known.is_settled() && known.has_header && is_whole,
        stream: known.stream,
        entries,
        next_block: end.min(limit),
        // The next checkpoint covers everything that was found.
        highest: next_sequence - 1,
        // It lacks what was found past it.
        table: if clean || known.is_settled() { known.table } else { 0 },
        bad: known.bad,
        ..SegmentImage::default()
    };
    if known.used {
        index.for_each_live(segment, |number, entry| {
            if entry.is_object() {
                let place = Place { segment, number };
                restored.count_live(&Located { place, entry }, shape);
            }
        });
    }
    restored
}

#[cfg(test)]
mod tests;
