//! What recovery knows of each segment before it reads entries: the record of the checkpoint, and
//! the segment's header.

use super::headers::Header;
use crate::checkpoint::find::Checkpoint;
use crate::format::{SETTLED_ALL, Stream};
use crate::mutant::Mutant;
use crate::state::index::Place;

/// A segment, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentInfo {
    pub(super) generation: u64,
    /// Whether its entries count.
    pub(super) used: bool,
    /// Whether it was opened after the checkpoint: no record says anything of its entries.
    pub(super) is_newer: bool,
    pub(super) stream: Stream,
    /// Whether it has a valid header of this generation.
    pub(super) has_header: bool,
    /// Entries below this number count only if they are named; [`SETTLED_ALL`] if no others do.
    pub(super) settled: u32,
    /// Entries that the record counts.
    pub(super) entries: u32,
    pub(super) next_block: u32,
    /// The number of the checkpoint that wrote the table; 0 if there is none, or it cannot be used.
    pub(super) table: u64,
    /// Whether named entries have to be verified by their first get.
    pub(super) unverified: bool,
    pub(super) bad: bool,
    /// Whether all entries of its table count: a mutation.
    pub(super) trusts_table: bool,
    /// What was found in it.
    pub(super) found: SegmentContents,
}

/// What was found in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentContents {
    /// The number after the last entry.
    pub(super) entries: u32,
    /// The block after the last slot that a scan found.
    pub(super) end: u32,
    /// Named entries.
    pub(super) named: u32,
}

impl SegmentInfo {
    /// Combines the record of a segment and its header. After a clean end the record alone counts.
    pub(super) fn of(checkpoint: &Checkpoint, segment: u32, header: &Header, clean: bool) -> Self {
        let record = checkpoint.record(segment);
        let mut known = Self {
            generation: record.generation,
            used: record.used,
            is_newer: false,
            stream: record.stream,
            has_header: false,
            settled: record.settled,
            entries: record.entries,
            next_block: record.next_block,
            table: record.table,
            unverified: record.unverified && !Mutant::UnverifiedForgotten.is_on(),
            bad: record.bad,
            trusts_table: false,
            found: SegmentContents { entries: 0, end: 1, named: 0 },
        };
        if let Header::Valid { generation, stream, .. } = *header {
            known.stream = stream;
            let is_newer = generation > record.generation && !clean;
            if is_newer && !Mutant::NewerSegmentsNotScanned.is_on() {
                known.open_again(generation);
            }
            known.has_header = generation == known.generation;
        }
        known
    }

    /// The segment was opened after the checkpoint: everything in it is newer.
    pub(super) fn open_again(&mut self, generation: u64) {
        *self = Self {
            generation,
            used: true,
            is_newer: true,
            settled: 0,
            entries: 0,
            table: 0,
            unverified: false,
            ..*self
        };
    }

    /// Whether no entries count but those that the checkpoint names.
    pub(super) fn is_settled(&self) -> bool {
        self.settled == SETTLED_ALL
    }
}

/// All segments, and the checkpoint that names entries in them.
pub(super) struct Segments<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    known: Vec<SegmentInfo>,
    /// Whether the store was closed: then the checkpoint names everything.
    pub(super) clean: bool,
}

impl<'a> Segments<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, headers: &[Header], clean: bool) -> Self {
        let known = (0..).zip(headers);
        let known =
            known.map(|(segment, header)| SegmentInfo::of(checkpoint, segment, header, clean));
        Self { checkpoint, known: known.collect(), clean }
    }

    pub(super) fn get(&self, segment: u32) -> &SegmentInfo {
        &self.known[segment as usize]
    }

    pub(super) fn get_mut(&mut self, segment: u32) -> &mut SegmentInfo {
        &mut self.known[segment as usize]
    }

    /// All segments with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &SegmentInfo)> {
        (0..).zip(&self.known)
    }

    pub(super) fn generation(&self, segment: u32) -> u64 {
        self.get(segment).generation
    }

    /// Whether the checkpoint names an entry.
    pub(super) fn is_named(&self, place: Place) -> bool {
        let known = self.get(place.segment);
        known.trusts_table || !known.is_newer && self.checkpoint.names(place)
    }

    /// How many entries of a segment the checkpoint names.
    pub(super) fn named_in(&self, segment: u32) -> u32 {
        if self.get(segment).is_newer { 0 } else { self.checkpoint.named_in(segment) }
    }

    /// Whether the entries of a segment are exactly those that the checkpoint names.
    pub(super) fn is_complete(&self, segment: u32) -> bool {
        self.clean || self.get(segment).is_settled()
    }

    /// Whether an entry counts that the checkpoint does not name.
    pub(super) fn counts_unnamed(&self, place: Place, sequence: u64) -> bool {
        let known = self.get(place.segment);
        if self.is_complete(place.segment) || place.number < known.settled {
            return false;
        }
        if Mutant::OpenSegmentsNotScanned.is_on() && known.settled > 0 {
            return false;
        }
        sequence > self.checkpoint.covered || Mutant::ScannedBelowCovered.is_on()
    }
}
