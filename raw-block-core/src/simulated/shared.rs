//! What the handles and queues of one simulated device share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::options::SimulatedOptions;
use super::state::State;
use crate::Geometry;
use crate::backend::{FlushState, Stats};

pub(super) struct Device {
    pub(super) geometry: Geometry,
    pub(super) options: SimulatedOptions,
    pub(super) stats: Stats,
    pub(super) flush_state: FlushState,
    pub(super) state: Mutex<State>,
    /// Signalled when ops that were held are so no longer.
    pub(super) released: Condvar,
}

impl Device {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
