//! The steps of clients, and how often they are taken.

use super::focus::Focus;

/// A step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Put,
    PutAbsent,
    Delete,
    Get,
    Flush,
    Checkpoint,
    Pin,
    Unpin,
    List,
    Scrub,
    Fault,
    Clear,
    /// A step of the background thread.
    Work,
}

const STEPS: [(Step, u32); 13] = [
    (Step::Put, 60),
    (Step::PutAbsent, 10),
    (Step::Delete, 22),
    (Step::Get, 26),
    (Step::Flush, 18),
    (Step::Checkpoint, 9),
    (Step::Pin, 7),
    (Step::Unpin, 7),
    (Step::List, 3),
    (Step::Scrub, 2),
    (Step::Fault, 14),
    (Step::Clear, 1),
    (Step::Work, 9),
];

/// The steps of one client, with their weights.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    weights: [(Step, u32); STEPS.len()],
    total: u32,
}

impl Steps {
    /// Draws how often a client takes each step.
    pub(super) fn draw(focus: Focus, faults: bool, random: &mut fastrand::Rng) -> Self {
        let weights = STEPS.map(|(step, weight)| {
            let weight = weight * [1, 4, 4, 10][random.usize(..4)] * times(step, focus);
            (step, if step == Step::Fault && !faults { 0 } else { weight })
        });
        Self { weights, total: weights.iter().map(|(_, weight)| weight).sum() }
    }

    pub(super) fn next(&self, random: &mut fastrand::Rng) -> Step {
        let mut drawn = random.u32(..self.total);
        for (step, weight) in self.weights {
            if drawn < weight {
                return step;
            }
            drawn -= weight;
        }
        Step::Put
    }
}

/// The factor of a step's weight.
fn times(step: Step, focus: Focus) -> u32 {
    match (focus, step) {
        (Focus::Checkpoints | Focus::Headers, Step::Checkpoint | Step::Fault) => 6,
        (Focus::Races, Step::Put | Step::Delete | Step::Get) => 3,
        (Focus::Races, Step::Checkpoint) => 2,
        (Focus::Space, Step::Put) => 3,
        (Focus::Space, Step::Delete | Step::Pin) => 2,
        (Focus::Slow, Step::Delete | Step::Flush) => 2,
        (Focus::Slow, Step::Checkpoint) => 6,
        (
            Focus::Slow | Focus::Readers | Focus::Retries | Focus::BitRot,
            Step::Pin | Step::List | Step::Scrub,
        ) => 0,
        (Focus::Readers, Step::Put) => 5,
        (Focus::Retries, Step::Fault) => 5,
        (Focus::Retries, Step::Delete | Step::Flush | Step::Checkpoint) => 2,
        (Focus::Filling, Step::Put) => 5,
        (Focus::Filling, Step::Get) => 1,
        (Focus::Filling, _) => 0,
        (Focus::Tables, Step::Put) => 3,
        (Focus::Tables, Step::Checkpoint) => 4,
        (Focus::Tables, Step::Flush) => 0,
        (Focus::Refilling, Step::Put | Step::Checkpoint) => 3,
        (Focus::Moves, Step::Put) => 4,
        (Focus::Moves, Step::Checkpoint) => 6,
        (Focus::Reserve, Step::Delete | Step::Flush) => 4,
        (Focus::Reserve, Step::Checkpoint | Step::Fault) => 2,
        (Focus::Reserve, Step::Clear) => 0,
        (Focus::Opened, Step::Fault | Step::Flush | Step::Put) => 3,
        (Focus::Opened, Step::Checkpoint | Step::Work | Step::Delete) => 0,
        (Focus::Misreads, Step::Get | Step::Delete | Step::Fault | Step::Flush) => 2,
        (Focus::BitRot, Step::Delete) => 2,
        (Focus::BitRot, Step::Clear) => 12,
        (Focus::BitRot, Step::Checkpoint | Step::Work) => 6,
        _ => 1,
    }
}
