//! Writes that take effect after their op has ended: those that a fault made late, and those that a
//! killed process left in flight.

use super::change::{Change, Leftover};
use super::fate::Mood;
use super::state::State;

/// The longest time after a kill at which a write takes effect, as a power of two, counted as in
/// [`State::stirs`].
const LONGEST_DELAY: u32 = 12;

impl State {
    /// Lets the ops take effect that failed and are due.
    pub(super) fn execute_late(&mut self) {
        while let Some(due) = self.late.iter().position(|(effects, _)| *effects <= self.effects) {
            let (_, change) = self.late.remove(due);
            self.store(change, |_| true);
            self.effects += 1;
            self.cut_when_due();
        }
    }

    /// Kills the process as [`process_kill`](Self::process_kill) does, but what is to happen of the
    /// ops in flight happens later.
    pub(super) fn process_kill_leaving_writes(&mut self) {
        if self.over.is_some() {
            return;
        }
        let mood = Mood::seeded(&mut self.rng);
        for change in self.take_unfinished() {
            let fate = self.fate_of(mood, &change);
            match change {
                Change::Nothing | Change::Flush { .. } => {}
                Change::Erase { .. } if fate.spares(0) => self.leave(change),
                Change::Erase { .. } => {}
                Change::Store { blocks, atomic } => {
                    let blocks = blocks.into_iter().enumerate();
                    let mut first: Vec<_> = blocks
                        .filter(|(position, _)| fate.spares(*position))
                        .map(|(_, block)| block)
                        .collect();
                    // The system may have made several requests of one write.
                    if !atomic && first.len() > 1 && self.rng.bool() {
                        let second = first.split_off(self.rng.usize(1..first.len()));
                        self.leave(Change::Store { blocks: second, atomic });
                    }
                    if !first.is_empty() {
                        self.leave(Change::Store { blocks: first, atomic });
                    }
                }
            }
        }
        self.end_by_kill();
    }

    fn leave(&mut self, change: Change) {
        let longest = 1 << self.rng.u32(..=LONGEST_DELAY);
        let due = self.stirs + self.rng.u64(..longest);
        self.leftovers.push(Leftover { change, due });
    }

    /// Lets the writes of a killed process take effect that are due.
    pub(super) fn land_leftovers(&mut self) {
        while self.over.is_none()
            && let Some(due) = self.leftovers.iter().position(|left| left.due <= self.stirs)
        {
            let Leftover { change, .. } = self.leftovers.remove(due);
            let write = self.store(change, |_| true);
            // The device acknowledges it, though no process listens: later flushes cover it.
            self.acknowledge(write);
            self.effects += 1;
            self.cut_when_due();
        }
    }

    /// Takes what a killed process left and has not taken effect.
    pub(super) fn take_leftovers(&mut self) -> impl Iterator<Item = Change> + use<> {
        std::mem::take(&mut self.leftovers).into_iter().map(|left| left.change)
    }
}
