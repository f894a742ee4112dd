//! Commands that rest before they are issued again, in a ring without timers.

use std::time::{Duration, Instant};

/// InFlightTable whose commands rest, each until its time. The queue has to look after them.
#[derive(Debug, Default)]
pub(crate) struct Resting(Vec<(Instant, u32)>);

impl Resting {
    pub(crate) fn add(&mut self, slot: u32, pause: Duration) {
        self.0.push((Instant::now() + pause, slot));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first rest ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|&(end, _)| end).min()
    }

    /// Takes a slot whose rest ends by `now`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u32> {
        let index = self.0.iter().position(|&(end, _)| end <= now)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Takes any slot.
    pub(crate) fn take_any(&mut self) -> Option<u32> {
        self.0.pop().map(|(_, slot)| slot)
    }
}
