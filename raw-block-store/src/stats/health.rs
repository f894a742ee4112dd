//! Health: whether a store works, and the reason if not.

use std::sync::{Mutex, PoisonError};

/// Whether a store works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HealthState {
    /// It works.
    #[default]
    Healthy,
    /// It works, but needs attention: a segment is in quarantine, a checkpoint failed, a container
    /// is out of use, or calls of the asynchronous front take long.
    Degraded,
    /// Gets work. Puts and deletes are refused until the device accepts writes again.
    ReadOnly,
    /// Nothing works.
    Failed,
}

/// The state of a store's health, and the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it works.
    pub state: HealthState,
    /// Why it is not healthy; empty if it is.
    pub reason: String,
}

/// The subject of a reason for bad health. Each can be set and cleared independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// Segments in quarantine.
    Quarantine,
    /// Checkpoints fail, or a container is out of use.
    Checkpoint,
    /// Calls of the asynchronous front take long.
    Slow,
    /// The device refuses writes.
    Writes,
    /// Calls of the asynchronous front fail.
    Device,
}

impl Concern {
    const ALL: [Self; 5] =
        [Self::Quarantine, Self::Checkpoint, Self::Slow, Self::Writes, Self::Device];

    fn state(self) -> HealthState {
        match self {
            Self::Quarantine | Self::Checkpoint | Self::Slow => HealthState::Degraded,
            Self::Writes => HealthState::ReadOnly,
            Self::Device => HealthState::Failed,
        }
    }
}

/// The health of an open store. Each change is logged.
#[derive(Debug, Default)]
pub(crate) struct HealthMonitor {
    reasons: Mutex<[Option<String>; Concern::ALL.len()]>,
}

impl HealthMonitor {
    /// Sets a reason.
    pub(crate) fn raise(&self, concern: Concern, device: &str, reason: String) {
        self.change(device, |reasons| reasons[concern as usize] = Some(reason));
    }

    /// Clears the reason.
    pub(crate) fn clear(&self, concern: Concern, device: &str) {
        self.change(device, |reasons| reasons[concern as usize] = None);
    }

    /// The worst reason.
    pub(crate) fn get(&self) -> Health {
        worst(&self.reasons.lock().unwrap_or_else(PoisonError::into_inner)[..])
    }

    fn change(&self, device: &str, act: impl FnOnce(&mut [Option<String>; Concern::ALL.len()])) {
        let (before, after) = {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            let before = worst(&reasons[..]);
            act(&mut reasons);
            (before, worst(&reasons[..]))
        };
        if before.state < after.state {
            tracing::warn!(device, state = ?after.state, reason = after.reason, "the store's health is worse");
        } else if before.state > after.state {
            tracing::info!(device, state = ?after.state, reason = after.reason, "the store's health is better");
        }
    }
}

fn worst(reasons: &[Option<String>]) -> Health {
    let given = Concern::ALL.iter().zip(reasons).rev();
    let worst = given.filter_map(|(concern, reason)| Some((concern, reason.as_ref()?))).next();
    worst.map_or_else(Health::default, |(concern, reason)| Health {
        state: concern.state(),
        reason: reason.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_reason_counts_until_it_is_taken_back() {
        let health = HealthMonitor::default();
        assert_eq!(health.get(), Health::default());
        health.raise(Concern::Writes, "device", "no space".to_owned());
        health.raise(Concern::Quarantine, "device", "segment 3".to_owned());
        let expected = Health { state: HealthState::ReadOnly, reason: "no space".to_owned() };
        assert_eq!(health.get(), expected);
        health.clear(Concern::Writes, "device");
        assert_eq!(health.get().state, HealthState::Degraded);
        health.raise(Concern::Device, "device", "gone".to_owned());
        assert_eq!(health.get().state, HealthState::Failed);
        health.clear(Concern::Device, "device");
        health.clear(Concern::Quarantine, "device");
        assert_eq!(health.get(), Health::default());
    }
}
