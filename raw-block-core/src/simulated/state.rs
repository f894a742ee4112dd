//! What the device has been asked to do, and how far it came.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::change::{Change, Leftover, PlannedEnd, Progress, Write};
use super::fate::CutReport;
use super::fault::{self, DeviceFault, Effect, Hit};
use super::image::{Bytes, Image};
use super::options::SimulatedOptions;
use crate::Geometry;
use crate::backend::{Op, OpKind};

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    pub(super) shuffle: bool,
    geometry: Geometry,
    /// See [`SimulatedOptions::atomic_write_unit`].
    atomic_write_unit: u64,
    /// See [`SimulatedOptions::torn_blocks`].
    pub(super) torn_blocks: bool,
    pub(super) image: Image,
    /// The writes that a power cut may take back, by their number.
    pub(super) volatile: BTreeMap<u64, Write>,
    /// The ops in flight, by their number, which is another one.
    pub(super) accepted: BTreeMap<u64, Progress>,
    /// Those that are held back.
    pub(super) held: BTreeSet<u64>,
    /// What ops do that have failed already, and after how many effects.
    pub(super) late: Vec<(u64, Change)>,
    /// What a killed process left in flight.
    pub(super) leftovers: Vec<Leftover>,
    /// How often a queue of the device was used.
    pub(super) stirs: u64,
    pub(super) faults: Vec<DeviceFault>,
    last_op: u64,
    last_write: u64,
    completions: u64,
    /// How many ops took effect that changed something.
    pub(super) effects: u64,
    pub(super) cut_after: Option<u64>,
    /// What happens then.
    pub(super) planned: PlannedEnd,
    /// Set when the power was cut or the process killed.
    pub(super) over: Option<CutReport>,
}

impl State {
    pub(super) fn new(geometry: Geometry, options: SimulatedOptions) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(options.seed),
            shuffle: options.shuffle,
            geometry,
            atomic_write_unit: options.atomic_write_unit,
            torn_blocks: options.torn_blocks,
            image: Image::new(geometry.logical_block as usize),
            volatile: BTreeMap::new(),
            accepted: BTreeMap::new(),
            held: BTreeSet::new(),
            late: Vec::new(),
            leftovers: Vec::new(),
            stirs: 0,
            faults: Vec::new(),
            last_op: 0,
            last_write: 0,
            completions: 0,
            effects: 0,
            cut_after: None,
            planned: PlannedEnd::PowerCut,
            over: None,
        }
    }

    fn block_len(&self) -> u64 {
        u64::from(self.geometry.logical_block)
    }

    /// The blocks that a range of bytes touches.
    fn blocks(&self, offset: u64, len: u64) -> Range<u64> {
        offset / self.block_len()..(offset + len).div_ceil(self.block_len())
    }

    /// Takes an op on. Returns its number and what goes wrong with it.
    pub(super) fn accept(&mut self, op: &Op) -> (u64, Vec<Hit>) {
        self.last_op += 1;
        if self.over.is_some() {
            return (self.last_op, Vec::new());
        }
        let hits: Vec<_> = self.faults.iter_mut().filter_map(|fault| fault.hit(op)).collect();
        if hits.iter().any(|hit| hit.effect == Effect::Hold) {
            self.held.insert(self.last_op);
        }
        let change = Some(self.change(op, &hits));
        let late = fault::late(&hits);
        self.accepted.insert(self.last_op, Progress { change, write: None, late });
        (self.last_op, hits)
    }

    fn change(&self, op: &Op, hits: &[Hit]) -> Change {
        if fault::prevented(hits, op.kind()) {
            return Change::Nothing;
        }
        let is_bad = hits.iter().any(|hit| hit.effect == Effect::Bad);
        let blocks = self.blocks(op.offset(), op.len());
        match op.kind() {
            OpKind::Read => Change::Nothing,
            OpKind::Flush => Change::Flush { covers: self.completions },
            OpKind::Discard | OpKind::WriteZeroes => Change::Erase { blocks, kind: op.kind() },
            OpKind::Write => {
                let bytes: Vec<u8> =
                    op.source().iter().flat_map(|segment| segment.iter().copied()).collect();
                let parts = bytes.chunks_exact(self.geometry.logical_block as usize);
                let blocks: Vec<_> = blocks
                    .zip(parts)
                    .filter_map(|(block, part)| Some((self.place(block, hits)?, part.into())))
                    .collect();
                if is_bad && blocks.is_empty() {
                    return Change::Nothing;
                }
                let atomic =
                    op.len() <= self.atomic_write_unit && op.offset().is_multiple_of(op.len());
                Change::Store { blocks, atomic }
            }
        }
    }

    /// Where a block of a write ends up: nowhere when it is lost.
    fn place(&self, block: u64, hits: &[Hit]) -> Option<u64> {
        let mut place = Some(block);
        for hit in hits.iter().filter(|hit| hit.concerns(block, self.block_len())) {
            place = match hit.effect {
                Effect::Lost | Effect::Bad => None,
                Effect::Misdirected(to) => hit.moved(block, to, self.block_len()),
                _ => place,
            };
        }
        place.filter(|&block| block < self.geometry.capacity / self.block_len())
    }

    /// Lets each of the ops in flight take effect, or not yet.
    pub(super) fn stir(&mut self) {
        self.stirs += 1;
        self.land_leftovers();
        if !self.shuffle || self.accepted.is_empty() {
            return;
        }
        let waiting: Vec<_> = self
            .accepted
            .iter()
            .filter(|(op, progress)| progress.change.is_some() && !self.held.contains(op))
            .map(|(&op, _)| op)
            .collect();
        for op in waiting {
            if self.rng.u8(..8) == 0 {
                self.execute(op);
            }
        }
    }

    /// Lets an op take effect, unless it did already or is to do so late.
    pub(super) fn execute(&mut self, op: u64) {
        let Some(progress) = self.accepted.get_mut(&op) else { return };
        if progress.late.is_some() {
            return;
        }
        let write = match progress.change.take() {
            None | Some(Change::Nothing) => return,
            Some(Change::Flush { covers }) => {
                self.flush(covers);
                None
            }
            Some(change) => self.store(change, |_| true),
        };
        if let Some(progress) = self.accepted.get_mut(&op) {
            progress.write = write;
        }
        self.effects += 1;
        self.cut_when_due();
        self.execute_late();
    }

    /// Cuts the power, or kills the process, if that is to happen by now.
    pub(super) fn cut_when_due(&mut self) {
        if self.cut_after.is_some_and(|effects| effects <= self.effects) {
            match self.planned {
                PlannedEnd::PowerCut => {
                    self.power_cut();
                }
                PlannedEnd::Kill => self.process_kill(),
                PlannedEnd::KillLeavingWrites => self.process_kill_leaving_writes(),
            }
        }
    }

    /// Puts a change into the cache, or those parts of it that `keeps` chooses by their position.
    /// Returns its number.
    pub(super) fn store(&mut self, change: Change, keeps: impl Fn(usize) -> bool) -> Option<u64> {
        let (blocks, atomic) = match change {
            Change::Nothing | Change::Flush { .. } => return None,
            Change::Store { blocks, atomic } => (blocks, atomic),
            Change::Erase { blocks, kind } => (self.erased(blocks, kind), false),
        };
        self.last_write += 1;
        let write = self.last_write;
        let mut stored = Vec::with_capacity(blocks.len());
        for (position, (block, bytes)) in blocks.into_iter().enumerate() {
            if keeps(position) {
                stored.push((block, self.image.put(block, bytes, write)));
            }
        }
        self.volatile.insert(write, Write { blocks: stored, atomic, completed: None });
        Some(write)
    }

    /// The blocks of a range that change when it is erased, of those that were ever written: all
    /// become zeroes, or, since a discarded block may read as anything, each becomes zeroes or
    /// garbage or stays as it is, as the seed says.
    fn erased(&mut self, range: Range<u64>, kind: OpKind) -> Vec<(u64, Bytes)> {
        let mut erased = Vec::new();
        for block in self.image.written(range) {
            let fate = if kind == OpKind::WriteZeroes { 0 } else { self.rng.u8(..4) };
            match fate {
                0 => erased.push((block, Arc::clone(self.image.zeroes()))),
                1 => {
                    let mut garbage = vec![0; self.image.zeroes().len()];
                    self.rng.fill(&mut garbage);
                    erased.push((block, garbage.into()));
                }
                _ => {}
            }
        }
        erased
    }

    fn flush(&mut self, covers: u64) {
        let covered = |write: &Write| write.completed.is_some_and(|at| at <= covers);
        let covered: Vec<_> = self
            .volatile
            .iter()
            .filter(|(_, write)| covered(write))
            .map(|(&number, _)| number)
            .collect();
        for write in covered {
            self.persist(write);
        }
    }

    fn persist(&mut self, write: u64) {
        for (block, version) in
            self.volatile.remove(&write).into_iter().flat_map(|write| write.blocks)
        {
            self.image.make_durable(block, version);
        }
    }

    /// Acknowledges an op, which takes effect now if it has not yet. Returns `false` when the
    /// device has stopped, before or by this very op.
    pub(super) fn complete(&mut self, op: u64) -> bool {
        self.held.remove(&op);
        self.execute(op);
        if self.over.is_some() {
            return false;
        }
        self.completions += 1;
        let progress = self.accepted.remove(&op);
        if let Some(Progress { change: Some(change), late: Some(ops), .. }) = progress {
            self.late.push((self.effects.saturating_add(ops), change));
            self.execute_late();
            return self.over.is_none();
        }
        self.note_acknowledged(progress.and_then(|progress| progress.write));
        true
    }

    /// Acknowledges a write outside of an op.
    pub(super) fn acknowledge(&mut self, write: Option<u64>) {
        self.completions += 1;
        self.note_acknowledged(write);
    }

    /// Notes that the last completion acknowledged this write.
    fn note_acknowledged(&mut self, write: Option<u64>) {
        if let Some((number, write)) =
            write.and_then(|number| Some((number, self.volatile.get_mut(&number)?)))
        {
            write.completed = Some(self.completions);
            if !self.geometry.volatile_write_cache {
                self.persist(number);
            }
        }
    }

    /// Acknowledges everything that took effect.
    pub(super) fn complete_all(&mut self) {
        let completed = Some(self.completions);
        self.volatile.values_mut().for_each(|write| write.completed = completed);
        if !self.geometry.volatile_write_cache {
            self.flush(self.completions);
        }
    }

    /// What a read of these bytes finds.
    pub(super) fn read(&mut self, offset: u64, len: u64, hits: &[Hit]) -> Vec<u8> {
        let block_len = self.block_len();
        let mut bytes = Vec::new();
        for block in self.blocks(offset, len) {
            let start = bytes.len();
            bytes.extend_from_slice(self.image.now(block));
            for hit in hits.iter().filter(|hit| hit.concerns(block, block_len)) {
                let found = &mut bytes[start..];
                match hit.effect {
                    Effect::FlipBit(bit) => {
                        let bits = self.geometry.logical_block.saturating_mul(8);
                        let bit = bit.unwrap_or_else(|| self.rng.u32(..bits)) % bits;
                        found[bit as usize / 8] ^= 1 << (bit % 8);
                    }
                    Effect::Zeroed => found.fill(0),
                    Effect::OldVersion => {
                        found.copy_from_slice(self.image.before(block));
                    }
                    Effect::OtherBlock(from) => {
                        let other = hit.moved(block, from, block_len);
                        found.copy_from_slice(match other {
                            Some(other) => self.image.now(other),
                            None => self.image.zeroes(),
                        });
                    }
                    _ => {}
                }
            }
        }
        bytes
    }

    /// Overwrites one block in what is durable and in what reads find.
    pub(super) fn poke(&mut self, block: u64, bytes: Bytes) {
        self.last_write += 1;
        let version = self.image.put(block, bytes, self.last_write);
        self.image.make_durable(block, version);
    }
}
