//! Pauses before retries, for a ring without timers.

use std::time::{Duration, Instant};

/// The slots of commands that pause before they are issued again, and when each pause ends. The
/// queue has to check them.
#[derive(Debug, Default)]
pub(crate) struct RetryPauses(Vec<(Instant, u32)>);

impl RetryPauses {
    pub(crate) fn add(&mut self, slot: u32, pause: Duration) {
        self.0.push((Instant::now() + pause, slot));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first pause ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.0.iter().map(|&(end, _)| end).min()
    }

    /// Removes a slot whose pause ends by `now`.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Option<u32> {
        let index = self.0.iter().position(|&(end, _)| end <= now)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Removes any slot.
    pub(crate) fn take_any(&mut self) -> Option<u32> {
        self.0.pop().map(|(_, slot)| slot)
    }
}
