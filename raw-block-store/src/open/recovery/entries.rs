//! Reading the entries of all segments, and which of them count.

use raw_block_core::Dispatcher;

use super::claims::Claims;
use super::damages::{Damages, UnreadableBlock};
use super::headers::{Header, Unusable};
use super::plan::Segments;
use super::scan::{self, Scan, ScanResult};
use super::steps::Steps;
use super::tables::{self, Table};
use super::tombstones;
use crate::Error;
use crate::format::Damage;
use crate::format::{Entry, KeyHash, Layout, SETTLED_ALL, SlotView, TableId};
use crate::mutant::Mutant;
use crate::state::index::{Index, Located, Place};

/// The entries of all segments, while they are read.
pub(super) struct Entries<'a> {
    dispatcher: &'a Dispatcher,
    layout: &'a Layout,
    pub(super) segments: Segments<'a>,
    index: &'a Index,
    pub(super) claims: Claims<'a>,
    /// Tombstone slots that count.
    pub(super) tombstones: Vec<Located>,
    /// Those whose keys are not read yet, because a table names them.
    unread_tombstones: Vec<Located>,
    steps: Steps<'a>,
    /// Whether a slot names a checkpoint that is newer than the one that was found.
    pub(super) newer_checkpoint: bool,
}

impl<'a> Entries<'a> {
    pub(super) fn new(
        dispatcher: &'a Dispatcher,
        layout: &'a Layout,
        segments: Segments<'a>,
        index: &'a Index,
        steps: Steps<'a>,
    ) -> Self {
        Self {
            dispatcher,
            layout,
            segments,
            index,
            claims: Claims::new(index),
            tombstones: Vec::new(),
            unread_tombstones: Vec::new(),
            steps,
            newer_checkpoint: false,
        }
    }

    /// Reads tables, scans segments, and reads tombstones.
    pub(super) fn read(
        &mut self,
        headers: &[Header],
        damages: &mut Damages<'_>,
    ) -> Result<(), Error> {
        self.look_for_newer(headers, damages)?;
        self.read_tables(damages)?;
        self.scan(damages)?;
        self.read_tombstones(damages)?;
        self.claims.finish();
        self.steps.end();
        for (number, known) in self.segments.iter().filter(|(_, known)| known.used) {
            let named = self.segments.named_in(number);
            damages.note_lost(number, named.saturating_sub(known.found.named));
        }
        Ok(())
    }

    /// Looks for slots of a newer generation where the header of a segment cannot be used.
    fn look_for_newer(
        &mut self,
        headers: &[Header],
        damages: &mut Damages<'_>,
    ) -> Result<(), Error> {
        let mut scans = Vec::new();
        for ((number, known), header) in self.segments.iter().zip(headers) {
            let Header::Unusable(why) = header else { continue };
            let generation = known.generation;
            match why {
                // Whatever the device held before the store was made.
                Unusable::Damaged(Damage::NotThisStructure { .. }) if generation == 0 => continue,
                Unusable::Damaged(damage) => {
                    damages.note_damage("the header of a segment", number, 0, damage);
                }
                Unusable::Unreadable(error) => {
                    let at = UnreadableBlock { segment: number, block: 0, error: error.clone() };
                    damages.note_unreadable("the header of a segment", &at);
                }
            }
            if !self.segments.clean {
                // Slots of the newest generation may lie past those of an older one that was lost.
                scans.push(Scan {
                    segment: number,
                    generation,
                    adopt_newer: true,
                    entries: None,
                    settled: 0,
                });
            }
        }
        let found = scan::scan(self.dispatcher, self.layout, &scans, |_, _| Ok(()))?;
        for (scan, found) in scans.iter().zip(found) {
            let known = self.segments.get_mut(scan.segment);
            if !found.adopted {
                for at in &found.unreadable {
                    damages.leave_out("a block of a segment whose header cannot be used", at)?;
                }
            } else if known.used {
                self.newer_checkpoint = true;
            } else {
                known.open_again(found.generation);
            }
        }
        Ok(())
    }

    fn read_tables(&mut self, damages: &mut Damages<'_>) -> Result<(), Error> {
        if Mutant::TableWithoutCheckpoint.is_on() {
            self.trust_tables();
        }
        let tables = self.segments.iter().filter(|(_, known)| known.used && known.table != 0);
        let tables: Vec<Table> = tables
            .map(|(segment, known)| Table {
                segment,
                id: TableId {
                    generation: known.generation,
                    checkpoint: known.table,
                    entries: known.entries,
                },
            })
            .collect();
        let (dispatcher, layout) = (self.dispatcher, self.layout);
        tables::read(dispatcher, layout, &tables, damages, |table, blocks| {
            let Table { segment, id: TableId { entries, .. } } = *table;
            let Some(blocks) = blocks else {
                self.segments.get_mut(segment).table = 0;
                return Ok(());
            };
            self.index.extend(segment, entries)?;
            for (number, entry) in (0..).zip(blocks.iter().copied().flatten()) {
                if !entry.is_empty() {
                    self.add(Place { segment, number }, entry, None);
                }
            }
            self.segments.get_mut(segment).found.entries = entries;
            self.steps.one();
            Ok(())
        })
    }

    /// Makes tables count that no checkpoint names.
    fn trust_tables(&mut self) {
        for segment in 0..self.layout.segment_count {
            let known = self.segments.get_mut(segment);
            let is_candidate = known.used && known.table == 0 && known.settled == 0;
            let generation = known.generation;
            if is_candidate
                && let Some(id) =
                    tables::find_unnamed(self.dispatcher, self.layout, segment, generation)
            {
                (known.table, known.entries) = (id.checkpoint, id.entries);
                (known.settled, known.trusts_table) = (SETTLED_ALL, true);
            }
        }
    }

    /// Scans the segments whose entries are not, or not all, known from a table.
    fn scan(&mut self, damages: &mut Damages<'_>) -> Result<(), Error> {
        let mut scans = Vec::new();
        for (segment, known) in self.segments.iter().filter(|(_, known)| known.used) {
            let is_complete = self.segments.is_complete(segment);
            if known.table == 0 || !is_complete {
                scans.push(Scan {
                    segment,
                    generation: known.generation,
                    adopt_newer: false,
                    entries: is_complete.then_some(known.entries),
                    settled: known.settled,
                });
            }
        }
        let (dispatcher, layout) = (self.dispatcher, self.layout);
        let found = scan::scan(dispatcher, layout, &scans, |scan, slot| self.add_slot(scan, slot))?;
        for (scan, found) in scans.iter().zip(&found) {
            self.end_scan(scan, found, damages)?;
        }
        Ok(())
    }

    fn end_scan(
        &mut self,
        scan: &Scan,
        scanned: &ScanResult,
        damages: &mut Damages<'_>,
    ) -> Result<(), Error> {
        self.steps.one();
        self.newer_checkpoint |= scanned.newer;
        let named = self.segments.named_in(scan.segment);
        let is_complete = self.segments.is_complete(scan.segment);
        let found = &mut self.segments.get_mut(scan.segment).found;
        found.entries = found.entries.max(scanned.entries);
        found.end = found.end.max(scanned.end);
        for at in &scanned.harmless {
            damages.note_unreadable("a block of a segment", at);
        }
        let settled = scanned.settled.iter().map(|at| (at, true));
        let others = scanned.unreadable.iter().map(|at| (at, is_complete));
        for (at, is_settled) in settled.chain(others) {
            // What is settled counts only if it is named.
            if is_settled && found.named >= named {
                damages.note_unreadable("a block of a segment", at);
            } else {
                damages.leave_out("a block of a segment that was filled", at)?;
            }
        }
        Ok(())
    }

    fn add_slot(&mut self, scan: &Scan, slot: &SlotView<'_>) -> Result<(), Error> {
        let segment = scan.segment;
        let first = slot.header.first_entry.get();
        self.index.extend(segment, first.saturating_add(slot.entry_numbers()))?;
        // Those below are known from the table.
        let known = self.segments.get(segment).found.entries;
        if let Some(tombstone) = slot.tombstone_entry()
            && first >= known
        {
            self.add(Place { segment, number: first }, &tombstone, slot.tombstones());
        }
        let most = if Mutant::OnlyFirstObjectOfSlotFound.is_on() { 1 } else { usize::MAX };
        let entries = (first..).zip(slot.entries()).take(most);
        for (number, entry) in entries.filter(|(number, _)| *number >= known) {
            self.add(Place { segment, number }, entry, None);
        }
        Ok(())
    }

    /// Adds an entry, if it counts. `key_hashes` are those of a tombstone slot, if they are known.
    fn add(&mut self, place: Place, entry: &Entry, key_hashes: Option<&[KeyHash]>) {
        let sequence = entry.sequence.get();
        let is_named = self.segments.is_named(place);
        if !is_named && !self.segments.counts_unnamed(place, sequence) {
            return;
        }
        let known = self.segments.get_mut(place.segment);
        known.found.named += u32::from(is_named);
        let located = Located { place, entry: *entry };
        if entry.is_object() {
            let unverified = !is_named || known.unverified;
            self.claims.add(&located, unverified);
            return;
        }
        self.tombstones.push(located);
        match key_hashes {
            Some(key_hashes) => self.claims.add_tombstones(key_hashes, sequence),
            None => self.unread_tombstones.push(located),
        }
    }

    fn read_tombstones(&mut self, damages: &mut Damages<'_>) -> Result<(), Error> {
        let slots = std::mem::take(&mut self.unread_tombstones);
        let (dispatcher, layout, segments) = (self.dispatcher, self.layout, &self.segments);
        tombstones::read(dispatcher, layout, segments, &slots, damages, |sequence, key_hashes| {
            self.claims.add_tombstones(key_hashes, sequence);
        })
    }
}
