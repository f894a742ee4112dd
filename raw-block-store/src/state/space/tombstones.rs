//! Slots of tombstones, and the deletes that wait for one.

use super::Space;
use super::allocation::{AllocatedObject, Allocation, Purpose, Run, Shortage, Source};
use super::segment::Stream;
use super::shape::Demand;
use crate::mutant::Mutant;
use crate::state::index::Place;

impl Space {
    /// Allocates a slot for tombstones, and the sequence of all of them. Call it after its last key
    /// was added: a put that was acknowledged before is older.
    ///
    /// # Errors
    /// There is no space: [ask](Self::ask_for_tombstones) for it.
    pub(crate) fn allocate_tombstones(&mut self, out: &mut Allocation) -> Result<(), Shortage> {
        self.take_tombstone(Purpose::Put, 0, out)
    }

    /// The sequence of a delete without a tombstone, whose caller takes a checkpoint. `None` after
    /// as many as there are segments since the committed checkpoint was chosen: a recovery expects
    /// no more sequences.
    pub(crate) fn take_sequence_of_delete(&mut self) -> Option<u64> {
        let is_at_limit = self.deletes_without_tombstone >= self.shape.segments;
        if is_at_limit && !Mutant::DeletesWithoutLimit.is_on() {
            return None;
        }
        self.deletes_without_tombstone += 1;
        Some(self.give_sequence())
    }

    /// Records that a delete waits for space. Reclaims serve waiting deletes first.
    pub(crate) fn ask_for_tombstones(&mut self) -> u64 {
        self.next_delete += 1;
        self.waiting_deletes.push_back((self.next_delete, None));
        self.next_delete
    }

    /// The slot that a waiting delete was granted, if any. Then it no longer waits.
    pub(crate) fn take_granted(&mut self, delete: u64) -> Option<Allocation> {
        let at = self.waiting_deletes.iter().position(|&(id, _)| id == delete)?;
        self.waiting_deletes[at].1.as_ref()?;
        self.waiting_deletes.remove(at)?.1
    }

    /// Whether a delete that waits was granted something, and has not taken it.
    pub(crate) fn is_anything_granted(&self) -> bool {
        self.waiting_deletes.iter().any(|(_, granted)| granted.is_some())
    }

    /// A delete no longer waits. If it was granted a slot, that is returned and must be used.
    pub(crate) fn stop_asking(&mut self, delete: u64) -> Option<Allocation> {
        let at = self.waiting_deletes.iter().position(|&(id, _)| id == delete)?;
        self.waiting_deletes.remove(at)?.1
    }

    /// Grants space to the deletes that wait.
    pub(super) fn serve_deletes(&mut self) {
        if Mutant::WaitingDeletesNotServedFirst.is_on() {
            return;
        }
        for at in 0..self.waiting_deletes.len() {
            if self.waiting_deletes[at].1.is_some() {
                continue;
            }
            let mut out = Allocation::default();
            if self.allocate_tombstones(&mut out).is_err() {
                return;
            }
            self.waiting_deletes[at].1 = Some(out);
            self.changed();
        }
    }

    pub(super) fn take_tombstone(
        &mut self,
        purpose: Purpose,
        sequence: u64,
        out: &mut Allocation,
    ) -> Result<(), Shortage> {
        let (number, opened) = self.fit(1, self.source_of_tombstones(), purpose)?;
        let mut slot = self.take_run(number, Run { objects: 1, blocks: 1 }, purpose, opened);
        slot.tombstone = true;
        if Mutant::DeletesNotCountedInFlight.is_on() {
            self.end_early(&mut slot, 1);
        }
        slot.objects = out.objects.len()..out.objects.len() + 1;
        let sequence = if sequence == 0 { self.give_sequence() } else { sequence };
        let segment = &mut self.segments[number as usize];
        segment.highest = segment.highest.max(sequence);
        let place = Place { segment: number, number: slot.first_number };
        let at = self.tombstones.partition_point(|&(other, _)| other < sequence);
        self.tombstones.insert(at, (sequence, place));
        self.count_tombstones(number, 1);
        out.objects.push(AllocatedObject {
            demand: Demand::default(),
            index: 0,
            number: slot.first_number,
            sequence,
            block: slot.block,
            blocks_back: 0,
            inline: false,
        });
        out.slots.push(slot);
        Ok(())
    }

    /// A tombstone may take the last free segment, if all others that count lie in segments that
    /// stay open: then what the next checkpoint releases includes that segment.
    fn source_of_tombstones(&self) -> Source {
        let open = self.open_in(Stream::New).iter().chain(self.open_in(Stream::Kept));
        let in_open: usize =
            open.map(|&segment| self.segments[segment as usize].tombstones as usize).sum();
        let held = self.open_in(Stream::Tombstones).is_empty() && in_open == self.tombstones.len();
        Source { streams: &[Stream::New, Stream::Tombstones], spare: usize::from(!held) }
    }

    pub(super) fn count_tombstones(&mut self, segment: u32, by: i32) {
        if let Some(segment) = self.segment_mut(segment) {
            segment.tombstones = segment.tombstones.saturating_add_signed(by);
        }
    }
}
