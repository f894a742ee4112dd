//! How a device comes to its end: the power is cut, or the process that used it is killed.

use std::mem;

use super::change::Change;
use super::fate::{CutReport, Fate, Mood};
use super::fault::DeviceFault;
use super::state::State;

impl State {
    /// What is in flight and has not taken effect, in a seeded order.
    pub(super) fn take_unfinished(&mut self) -> Vec<Change> {
        self.held.clear();
        let accepted = mem::take(&mut self.accepted).into_values();
        let mut unfinished: Vec<_> = accepted.filter_map(|progress| progress.change).collect();
        unfinished.extend(mem::take(&mut self.late).into_iter().map(|(_, change)| change));
        unfinished.extend(self.take_leftovers());
        self.rng.shuffle(&mut unfinished);
        unfinished
    }

    /// Cuts the power: what is durable from then on is all there is.
    ///
    /// Flushes in flight have no effect. That hides nothing: any outcome that they could have is
    /// one of those without them.
    pub(super) fn power_cut(&mut self) -> CutReport {
        if let Some(report) = self.over {
            return report;
        }
        for change in self.take_unfinished() {
            self.store(change, |_| true);
        }
        let mood = Mood::seeded(&mut self.rng);
        // Now and then all are torn, in their first blocks.
        let all_torn = self.torn_blocks && self.rng.u8(..4) == 0;
        let mut report = CutReport::default();
        for write in mem::take(&mut self.volatile).into_values() {
            let fate = mood.decide(&mut self.rng, write.blocks.len(), write.atomic);
            fate.count(&mut report);
            let may_tear = self.torn_blocks
                && !write.atomic
                && !write.blocks.is_empty()
                && matches!(mood, Mood::Mixed);
            let torn = match may_tear {
                true if all_torn => Some(0),
                true if self.rng.u8(..4) == 0 => Some(self.rng.usize(..write.blocks.len())),
                _ => None,
            };
            for (position, (block, version)) in write.blocks.into_iter().enumerate() {
                if torn == Some(position) {
                    self.image.make_durable(block, version.torn(&mut self.rng));
                } else if fate.spares(position) {
                    self.image.make_durable(block, version);
                }
            }
        }
        self.image.lose_cache();
        self.over = Some(report);
        report
    }

    /// Kills the process: what is in flight happens or does not, the device itself goes on.
    pub(super) fn process_kill(&mut self) {
        if self.over.is_some() {
            return;
        }
        let mood = Mood::seeded(&mut self.rng);
        for change in self.take_unfinished() {
            let fate = self.fate_of(mood, &change);
            self.store(change, |position| fate.spares(position));
        }
        self.end_by_kill();
    }

    /// What becomes of a change that is in flight when the process is killed.
    pub(super) fn fate_of(&mut self, mood: Mood, change: &Change) -> Fate {
        // How many blocks an erasure has is known only when it takes effect: it happens as a whole.
        let (blocks, atomic) = match change {
            Change::Store { blocks, atomic } => (blocks.len(), *atomic),
            _ => (1, true),
        };
        mood.decide(&mut self.rng, blocks, atomic)
    }

    pub(super) fn end_by_kill(&mut self) {
        self.complete_all();
        self.over = Some(CutReport::default());
    }

    /// The device as the next opener finds it.
    pub(super) fn successor(&self) -> Self {
        let mut next = self.clone();
        next.over = None;
        next.cut_after = None;
        next.effects = 0;
        next.faults.retain(DeviceFault::is_permanent);
        next
    }
}
