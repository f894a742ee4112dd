//! Allocation: which segment a slot is taken from, and what becomes of it.

use std::ops::Range;

use super::in_flight::Change;
use super::segment::{Fill, HeaderState, Live, Segment, SegmentState, Stream};
use super::shape::Demand;
use super::{RESERVE, Shape, Space};
use crate::segments::mutant::Mutant;
use crate::segments::state::index::{Located, Place};

/// Media errors in a generation of a segment that put it into quarantine.
const QUARANTINE_ERRORS: u32 = 2;

/// Where a run of objects goes: one header block, then their payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    /// The block of the header within the segment.
    pub(crate) block: u32,
    /// Blocks of the slot, header included.
    pub(crate) blocks: u32,
    /// The number of its first entry within the segment.
    pub(crate) first_number: u32,
    /// Whether it holds a tombstone instead of objects.
    pub(crate) tombstone: bool,
    /// Which objects of the [`Allocation`] it has.
    pub(crate) objects: Range<usize>,
    /// Whether the segment's header is on the device; if not, publishing waits for it.
    pub(crate) header: HeaderState,
    /// What the header of the segment says, if the caller has to write it.
    pub(crate) opened: Option<OpenedSegment>,
    /// What it has of the sequences in flight; none if its objects are moved.
    pub(super) change: Option<Change>,
    /// Its position in the queue of its segment.
    pub(super) position: u64,
}

/// The header of a segment that was opened, which the caller writes before or while it writes slots, and then reports
/// with [`Space::header_written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenedSegment {
    pub(crate) segment: u32,
    pub(crate) generation: u64,
    pub(crate) stream: Stream,
    /// The number of the committed checkpoint.
    pub(crate) checkpoint: u64,
}

/// Where one object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocated {
    pub(crate) demand: Demand,
    /// Which object of the batch it is.
    pub(crate) index: u32,
    /// The number of its entry within the segment.
    pub(crate) number: u32,
    pub(crate) sequence: u64,
    /// The block of its payload within the segment; that of the header if it takes no block.
    pub(crate) block: u32,
    /// Blocks from there back to the header.
    pub(crate) blocks_back: u32,
    /// Whether its payload lies in the header block.
    pub(crate) inline: bool,
}

/// What was allocated. It can be cleared and used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) slots: Vec<Slot>,
    pub(crate) objects: Vec<Allocated>,
}

impl Allocation {
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.objects.clear();
    }

    /// The objects of a slot.
    pub(crate) fn objects_of(&self, slot: &Slot) -> &[Allocated] {
        self.objects.get(slot.objects.clone()).unwrap_or(&[])
    }
}

/// A batch of objects to be put, as far as they are not allocated yet. All keys of a batch are different: objects get
/// their sequences in the order in which they are allocated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// The objects that share slots, then the others. Each has its index in the batch, and its sequence once it has
    /// one.
    objects: Vec<(u32, Demand, u64)>,
    next: usize,
}

impl Batch {
    /// Fills the batch with these objects. Call it without a lock.
    pub(crate) fn fill(&mut self, shape: &Shape, demands: impl IntoIterator<Item = Demand>) {
        self.objects.clear();
        self.next = 0;
        self.objects.extend((0..).zip(demands).map(|(index, demand)| (index, demand, 0)));
        if self.objects.iter().any(|&(_, demand, _)| !shape.is_shared(demand)) {
            self.objects.sort_by_key(|&(_, demand, _)| !shape.is_shared(demand));
        }
    }

    /// The objects that are not allocated.
    pub(crate) fn rest(&self) -> impl Iterator<Item = u32> {
        self.left().iter().map(|&(index, _, _)| index)
    }

    fn left(&self) -> &[(u32, Demand, u64)] {
        self.objects.get(self.next..).unwrap_or(&[])
    }
}

/// An object whose write failed, to be written elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) index: u32,
    pub(crate) demand: Demand,
    pub(crate) sequence: u64,
}

/// Why nothing was allocated, and what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Run a reclaim, or wait for the one that runs. If it makes no progress, the store is full.
    Reclaim,
    /// Wait for changes in flight, or for a segment that drains.
    Wait,
    /// Nothing helps.
    Full,
}

/// What became of an object of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The index shows it.
    Shown,
    /// It is written, and a newer change of its key completed first.
    Superseded,
    /// Its write failed. It stays in flight, until it is [written elsewhere](Space::allocate_again) or
    /// [given up](Space::give_up).
    Failed,
}

/// From which streams a slot is taken, the last one of which may open a segment if more than `spare` are free.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) streams: &'static [Stream],
    pub(super) spare: usize,
}

pub(super) const PUTS: Source = Source { streams: &[Stream::New], spare: RESERVE };

impl Space {
    /// Allocates space and sequences for what is left of a batch, as far as it goes, and appends it to `out`. From here
    /// on it is in flight: the caller submits it before it waits for anything.
    ///
    /// # Errors
    /// Something is left of the batch.
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

    /// Allocates space elsewhere for objects of a slot whose writes failed, with their old sequences, and appends it to
    /// `out`. What does not fit stays in `objects`.
    ///
    /// # Errors
    /// Something is left of `objects`. A failed write is no reason to reclaim, so the caller gives it up.
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

    /// So many objects of a slot, whose last attempt failed, are in flight no more.
    pub(crate) fn give_up(&mut self, failed: &Slot, objects: u32) {
        if let Some(change) = failed.change {
            self.changes.end(change, objects);
        }
        self.changed();
    }

    /// Allocates a slot for tombstones, and the sequence of all of them. Call it after its last key was added: a put
    /// that was acknowledged before is older.
    ///
    /// # Errors
    /// There is no space: [ask](Self::ask_for_tombstones) for it.
    pub(crate) fn allocate_tombstones(&mut self, out: &mut Allocation) -> Result<(), Shortage> {
        self.take_tombstone(Purpose::Put, 0, out)
    }

    /// Notes that a delete waits for space. Reclaims serve those first.
    pub(crate) fn ask_for_tombstones(&mut self) -> u64 {
        self.next_delete += 1;
        self.waiting_deletes.push_back((self.next_delete, None));
        self.next_delete
    }

    /// What a delete that waits was granted. It waits no more if it was granted something.
    pub(crate) fn take_granted(&mut self, delete: u64) -> Option<Allocation> {
        let at = self.waiting_deletes.iter().position(|&(id, _)| id == delete)?;
        self.waiting_deletes[at].1.as_ref()?;
        self.waiting_deletes.remove(at)?.1
    }

    /// A delete waits no more. If it was granted something, that is returned, and has to be used.
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

    /// The write of a segment's header ended. If it failed, nothing in the segment counts: the slots in it fail.
    pub(crate) fn header_written(&mut self, opened: &OpenedSegment, written: bool) {
        let Some(segment) = self.segments.get_mut(opened.segment as usize) else { return };
        if segment.generation != opened.generation || segment.header != HeaderState::Writing {
            return;
        }
        segment.header = if written { HeaderState::Written } else { HeaderState::Failed };
        if !written {
            self.seal(opened.segment);
        }
        self.changed();
    }

    /// Whether the header of the segment of a slot is on the device.
    pub(crate) fn header_of(&self, slot: &Slot) -> HeaderState {
        let segment = self.segment(slot.segment).filter(|of| of.generation == slot.generation);
        segment.map_or(HeaderState::Failed, |segment| segment.header)
    }

    /// The objects of a slot are published, or failed. `objects` are those of the slot, `outcomes` what became of each,
    /// `dropped` what the index shows no more because of them.
    pub(crate) fn published(
        &mut self,
        slot: &Slot,
        objects: &[Allocated],
        outcomes: impl IntoIterator<Item = Outcome>,
        dropped: &[Located],
    ) {
        let (mut ended, mut failed, mut dead) = (0, false, Live::default());
        for (object, outcome) in objects.iter().zip(outcomes) {
            ended += u32::from(outcome != Outcome::Failed);
            failed |= outcome == Outcome::Failed;
            if outcome != Outcome::Shown && !slot.tombstone {
                dead.add(&Live::of(object.demand, &self.shape));
            }
        }
        if let Some(segment) = self.segments.get_mut(slot.segment as usize)
            && segment.generation == slot.generation
        {
            segment.live.subtract(&dead);
            segment.slots.settle(slot.position);
        }
        if failed {
            self.slot_failed(slot, objects);
        }
        if let Some(change) = slot.change
            && ended > 0
        {
            self.changes.end(change, ended);
        }
        self.drop_objects(dropped);
        self.changed();
    }

    fn slot_failed(&mut self, slot: &Slot, objects: &[Allocated]) {
        if !Mutant::FilledPastFailedSlot.is_on() {
            self.seal(slot.segment);
        }
        if slot.tombstone
            && let Some(object) = objects.first()
            && let Ok(at) = self.tombstones.binary_search_by_key(&object.sequence, |&(seq, _)| seq)
        {
            self.tombstones.remove(at);
            self.count_tombstones(slot.segment, -1);
        }
    }

    /// Objects that the index shows no more.
    pub(crate) fn drop_objects(&mut self, dropped: &[Located]) {
        for object in dropped {
            let live = Live::of(Demand::of(&object.entry), &self.shape);
            if let Some(segment) = self.segments.get_mut(object.place.segment as usize) {
                segment.live.subtract(&live);
                segment.futile = false;
            }
            self.replace_pinned(object.place);
        }
    }

    /// A write to a segment failed with a media error, and one elsewhere succeeded. The second time in a generation
    /// puts the segment into quarantine; returns whether this did.
    pub(crate) fn confirm_error(&mut self, slot: &Slot) -> bool {
        let Some(segment) = self.segments.get_mut(slot.segment as usize) else { return false };
        if segment.generation != slot.generation || segment.bad {
            return false;
        }
        segment.errors += 1;
        segment.bad = segment.errors >= QUARANTINE_ERRORS;
        segment.bad
    }

    /// The device may still carry out a write to a slot that failed, so its segment is in quarantine: what is written
    /// there next would not be safe. Returns whether it was not before.
    pub(crate) fn quarantine(&mut self, slot: &Slot) -> bool {
        self.seal(slot.segment);
        let Some(segment) = self.segments.get_mut(slot.segment as usize) else { return false };
        segment.generation == slot.generation && !std::mem::replace(&mut segment.bad, true)
    }
}

/// What a slot is taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new change.
    Put,
    /// A further attempt of this change.
    Again(Change),
    /// A move, which is no change.
    Move,
}

/// How many objects share a slot, and its blocks.
#[derive(Clone, Copy)]
struct Run {
    objects: u32,
    blocks: u32,
}

/// Taking slots.
impl Space {
    /// Takes a slot for the first of these objects and those after it that may share it; returns how many it has.
    /// Objects without a sequence get one.
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
            let blocks = self.shape.payload_blocks(demand);
            let at = if blocks == 0 { slot.block } else { block };
            block += blocks;
            let sequence = if sequence == 0 { self.give_sequence() } else { sequence };
            highest = if Mutant::ReleasedByFirstSequence.is_on() && highest > 0 {
                highest
            } else {
                sequence.max(highest)
            };
            live.add(&Live::of(demand, &self.shape));
            out.objects.push(Allocated {
                demand,
                index,
                number,
                sequence,
                block: at,
                blocks_back: at - slot.block,
                inline: self.shape.is_inline(demand),
            });
        }
        let segment = &mut self.segments[number as usize];
        segment.live.add(&live);
        segment.highest = segment.highest.max(highest);
        out.slots.push(slot);
        Ok(objects.len())
    }

    fn take_tombstone(
        &mut self,
        purpose: Purpose,
        sequence: u64,
        out: &mut Allocation,
    ) -> Result<(), Shortage> {
        let (number, opened) = self.fit(1, self.source_of_tombstones(), purpose)?;
        let mut slot = self.take_run(number, Run { objects: 1, blocks: 1 }, purpose, opened);
        slot.tombstone = true;
        slot.objects = out.objects.len()..out.objects.len() + 1;
        let sequence = if sequence == 0 { self.give_sequence() } else { sequence };
        let segment = &mut self.segments[number as usize];
        segment.highest = segment.highest.max(sequence);
        let place = Place { segment: number, number: slot.first_number };
        let at = self.tombstones.partition_point(|&(other, _)| other < sequence);
        self.tombstones.insert(at, (sequence, place));
        self.count_tombstones(number, 1);
        out.objects.push(Allocated {
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

    /// A tombstone may take the last free segment, if all others that count lie in segments that stay open: then what
    /// the next checkpoint releases includes that segment.
    fn source_of_tombstones(&self) -> Source {
        let open = self.open_in(Stream::New).iter().chain(self.open_in(Stream::Kept));
        let in_open: usize =
            open.map(|&segment| self.segments[segment as usize].tombstones as usize).sum();
        let held = self.open_in(Stream::Tombstones).is_empty() && in_open == self.tombstones.len();
        Source { streams: &[Stream::New, Stream::Tombstones], spare: usize::from(!held) }
    }

    /// A segment with space for a slot of so many blocks: the fullest that is open, or a new one.
    fn fit(
        &mut self,
        blocks: u32,
        source: Source,
        purpose: Purpose,
    ) -> Result<(u32, Option<OpenedSegment>), Shortage> {
        let mut beyond_window = false;
        for &stream in source.streams {
            let mut best: Option<(u32, u32)> = None;
            for &number in self.open_in(stream) {
                let segment = &self.segments[number as usize];
                let left = segment.fill.left(1, &self.shape);
                if left < blocks {
                    continue;
                }
                if purpose != Purpose::Move && !self.is_within_window(segment, blocks) {
                    beyond_window = true;
                } else if best.is_none_or(|(least, _)| left < least) {
                    best = Some((left, number));
                }
            }
            if let Some((_, number)) = best {
                return Ok((number, None));
            }
        }
        if blocks > self.shape.largest_slot() {
            return Err(Shortage::Full);
        }
        let stream = source.streams[source.streams.len() - 1];
        if stream == Stream::New
            && let Some(ahead) = self.ahead.take()
        {
            self.seal_at_limit(stream);
            self.open[stream as usize].push(ahead);
            return Ok((ahead, None));
        }
        let is_at_limit = self.open_in(stream).len() >= self.shape.open_limit();
        if beyond_window && (is_at_limit || self.free.len() <= source.spare) {
            return Err(Shortage::Wait);
        }
        if self.free.len() <= source.spare {
            return Err(self.shortage());
        }
        self.open_segment(stream).ok_or(Shortage::Wait)
    }

    /// Whether a slot may begin at the next block, so that a search for headers ends soon.
    ///
    /// Moves need no window. Nothing else goes to their segments, what is in them counts only if a checkpoint names it,
    /// and that waits for all moves: so no search passes a missing header to find what counts.
    fn is_within_window(&self, segment: &Segment, blocks: u32) -> bool {
        let Some(lowest) = segment.slots.lowest_block() else { return true };
        let past = segment.fill.next_block - lowest;
        let within = past <= self.shape.window && blocks <= self.shape.window;
        within || Mutant::AllocatedPastWindow.is_on()
    }

    /// Opens a segment for puts ahead of need, if there are enough free ones. The caller writes its header.
    pub(crate) fn open_ahead(&mut self) -> Option<OpenedSegment> {
        let is_ample = self.free.len() > self.wanted_free() as usize;
        if !self.is_large() || self.ahead.is_some() || !is_ample {
            return None;
        }
        let number = self.free.pop_front()?;
        self.ahead = Some(number);
        self.changed();
        Some(self.open_free(number, Stream::New))
    }

    /// Opens a free segment, and seals the fullest of its stream if as many are open as may be.
    fn open_segment(&mut self, stream: Stream) -> Option<(u32, Option<OpenedSegment>)> {
        let number = self.free.pop_front()?;
        self.seal_at_limit(stream);
        self.open[stream as usize].push(number);
        Some((number, Some(self.open_free(number, stream))))
    }

    fn seal_at_limit(&mut self, stream: Stream) {
        let shape = self.shape;
        if self.open_in(stream).len() >= shape.open_limit() {
            let left = |&&open: &&u32| self.segments[open as usize].fill.left(1, &shape);
            if let Some(&fullest) = self.open_in(stream).iter().min_by_key(left) {
                self.seal(fullest);
            }
        }
    }

    fn open_free(&mut self, number: u32, stream: Stream) -> OpenedSegment {
        let generation = self.give_sequence();
        let segment = &mut self.segments[number as usize];
        *segment = Segment {
            state: SegmentState::Open,
            stream,
            generation,
            previous_generation: segment.generation,
            highest: generation,
            header: HeaderState::Writing,
            opened_at: self.clock,
            released_by: segment.released_by,
            ..Segment::free()
        };
        self.opened_since_choice += 1;
        self.readers.open(number, generation);
        let checkpoint = self.committed.number;
        OpenedSegment { segment: number, generation, stream, checkpoint }
    }

    /// Allocates nothing more in a segment.
    pub(super) fn seal(&mut self, number: u32) {
        for open in &mut self.open {
            open.retain(|&other| other != number);
        }
        self.ahead.take_if(|ahead| *ahead == number);
        if let Some(segment) = self.segment_mut(number)
            && segment.state == SegmentState::Open
        {
            segment.state = SegmentState::Full;
        }
    }

    /// How many of these objects share the slot of the first one, with `fill` in front of it.
    fn share(&self, objects: &[(u32, Demand, u64)], fill: Fill) -> Run {
        let shape = &self.shape;
        let mut run = Run { objects: 0, blocks: 1 };
        let mut header_bytes = 0_u32;
        for &(_, demand, _) in objects {
            let blocks = run.blocks + shape.payload_blocks(demand);
            header_bytes = header_bytes.saturating_add(shape.header_bytes(demand));
            let fits = run.objects == 0
                || shape.is_shared(demand)
                    && header_bytes <= shape.header_capacity
                    && blocks <= 1 + shape.shared_blocks
                    && blocks <= fill.left(run.objects + 1, shape);
            if !fits {
                break;
            }
            run = Run { objects: run.objects + 1, blocks };
            if !shape.is_shared(demand) {
                break;
            }
        }
        run
    }

    /// Takes a run of blocks and entry numbers from a segment that has them.
    fn take_run(
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
        }
        self.entries_since_choice += u64::from(run.objects);
        let segment = &mut self.segments[number as usize];
        let Fill { next_block: block, entries: first_number } = segment.fill;
        segment.fill = Fill { next_block: block + run.blocks, entries: first_number + run.objects };
        if !Mutant::TableKeptWhenFilled.is_on() {
            segment.table = 0;
        }
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

    fn give_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    pub(super) fn count_tombstones(&mut self, segment: u32, by: i32) {
        if let Some(segment) = self.segment_mut(segment) {
            segment.tombstones = segment.tombstones.saturating_add_signed(by);
        }
    }
}
