//! Allocation of slots: how many objects share one; their blocks, entry numbers and sequences.

use super::Space;
use super::allocation::{
    AllocatedObject, Allocation, Batch, OpenedSegment, PUTS, Purpose, Retry, Run, Shortage, Slot,
    Source,
};
use super::segment::{Fill, Live};
use super::shape::Demand;
use crate::mutant::Mutant;

impl Space {
    /// Allocates space and sequences for the rest of a batch, as far as possible, and appends them
    /// to `out`. From here on the objects are in flight: the caller submits them before it waits
    /// for anything.
    ///
    /// # Errors
    /// A part of the batch is not allocated.
    pub(crate) fn allocate(
        &mut self,
        batch: &mut Batch,
        out: &mut Allocation,
    ) -> Result<(), Shortage> {
        while !batch.left().is_empty() {
            let taken = self.take(batch.left(), PUTS, Purpose::Put, out)?;
            batch.next += taken;
        }
        Ok(())
    }

    /// Allocates other space for objects of a slot whose writes failed, with their old sequences,
    /// and appends it to `out`. Objects without space stay in `objects`.
    ///
    /// # Errors
    /// Some `objects` have no space. A failed write is no reason to reclaim, so the caller fails
    /// them.
    pub(crate) fn allocate_again(
        &mut self,
        failed: &Slot,
        objects: &mut Vec<Retry>,
        out: &mut Allocation,
    ) -> Result<(), Shortage> {
        let Some(change) = failed.change else { return Ok(()) };
        if failed.tombstone {
            let Some(object) = objects.first() else { return Ok(()) };
            self.take_tombstone(Purpose::Again(change), object.sequence, out)?;
            objects.clear();
            return Ok(());
        }
        let mut left: Vec<(u32, Demand, u64)> =
            objects.iter().map(|retry| (retry.index, retry.demand, retry.sequence)).collect();
        left.sort_by_key(|&(_, demand, _)| !self.shape.is_shared(demand));
        let mut result = Ok(());
        while result.is_ok() && !left.is_empty() {
            match self.take(&left, PUTS, Purpose::Again(change), out) {
                Ok(taken) => drop(left.drain(..taken)),
                Err(shortage) => result = Err(shortage),
            }
        }
        objects.retain(|retry| left.iter().any(|&(index, _, _)| index == retry.index));
        result
    }

    /// Allocates a slot for the first of these objects and for those after it that may share it;
    /// returns their number. Objects without a sequence get one.
    pub(super) fn take(
        &mut self,
        objects: &[(u32, Demand, u64)],
        source: Source,
        purpose: Purpose,
        out: &mut Allocation,
    ) -> Result<usize, Shortage> {
        let Some(&(_, first, _)) = objects.first() else { return Ok(0) };
        let (number, opened) = self.fit(self.shape.blocks_alone(first), source, purpose)?;
        let segment = &self.segments[number as usize];
        let run = if purpose == Purpose::Move && Mutant::MovesShareNoSlots.is_on() {
            Run { objects: 1, blocks: self.shape.blocks_alone(first) }
        } else {
            self.share(objects, segment.fill)
        };
        let objects = &objects[..run.objects as usize];
        let mut slot = self.take_run(number, run, purpose, opened);
        let start = out.objects.len();
        slot.objects = start..start + objects.len();
        let (mut live, mut block, mut highest) = (Live::default(), slot.block + 1, 0);
        for (number, &(index, demand, sequence)) in (slot.first_number..).zip(objects) {
            let fit = self.shape.fit(demand);
            let at = if fit.blocks == 0 { slot.block } else { block };
            block += fit.blocks;
            let sequence = if sequence == 0 { self.give_sequence() } else { sequence };
            highest = sequence.max(highest);
            live.add(&Live::of_fit(demand, fit));
            out.objects.push(AllocatedObject {
                demand,
                index,
                number,
                sequence,
                block: at,
                blocks_back: at - slot.block,
                inline: fit.inline,
            });
        }
        let segment = &mut self.segments[number as usize];
        segment.live.add(&live);
        segment.highest = segment.highest.max(highest);
        out.slots.push(slot);
        Ok(objects.len())
    }

    /// How many of these objects share the slot of the first one, which begins at `fill`.
    fn share(&self, objects: &[(u32, Demand, u64)], fill: Fill) -> Run {
        let shape = &self.shape;
        let mut run = Run { objects: 0, blocks: 1 };
        let mut header_bytes = 0_u32;
        for &(_, demand, _) in objects {
            let object = shape.fit(demand);
            let blocks = run.blocks + object.blocks;
            header_bytes = header_bytes.saturating_add(object.header_bytes);
            let fits = run.objects == 0
                || object.shared
                    && header_bytes <= shape.header_capacity
                    && blocks <= 1 + shape.shared_blocks
                    && blocks <= fill.left(run.objects + 1, shape);
            if !fits {
                break;
            }
            run = Run { objects: run.objects + 1, blocks };
            if !object.shared {
                break;
            }
        }
        run
    }

    /// Allocates a run of blocks and entry numbers in a segment that has them.
    pub(super) fn take_run(
        &mut self,
        number: u32,
        run: Run,
        purpose: Purpose,
        opened: Option<OpenedSegment>,
    ) -> Slot {
        let change = match purpose {
            Purpose::Put => Some(self.changes.begin(self.next_sequence, run.objects)),
            Purpose::Again(change) => Some(change),
            Purpose::Move => None,
        };
        if purpose == Purpose::Put {
            self.clock += u64::from(run.blocks);
            self.budget.earn(run.blocks);
        }
        self.entries_since_choice += u64::from(run.objects);
        let segment = &mut self.segments[number as usize];
        let Fill { next_block: block, entries: first_number } = segment.fill;
        segment.fill = Fill { next_block: block + run.blocks, entries: first_number + run.objects };
        segment.table = 0;
        let position = segment.slots.add(block, first_number);
        let slot = Slot {
            segment: number,
            generation: segment.generation,
            block,
            blocks: run.blocks,
            first_number,
            tombstone: false,
            objects: 0..0,
            header: segment.header,
            opened,
            change,
            position,
        };
        if segment.fill.left(1, &self.shape) < 1 {
            self.seal(number);
        }
        slot
    }

    pub(super) fn give_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }
}
