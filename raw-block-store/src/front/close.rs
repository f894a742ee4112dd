//! Closing a front in order.

use std::time::{Duration, Instant};

use super::async_store::AsyncStore;
use super::job::QueueKind;
use super::state::{Phase, State, StoreClosing};
use crate::Error;

/// What a front left when it was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Whether the store is closed.
    pub is_closed: bool,
    /// Requests that waited, and completed with [`Error::Closed`](crate::Error::Closed).
    pub turned_away: usize,
    /// Requests that are still in progress. They complete when the device answers.
    pub running: usize,
    /// Bytes of memory that these own. It is released when they have completed.
    pub running_bytes: u64,
}

impl AsyncStore {
    /// Ends the front in order: refuses new requests, executes those that were accepted, and closes
    /// the store. Waits for at most `limit`.
    ///
    /// Requests that still wait at the limit complete with [`Error::Closed`]. Those in progress
    /// keep their threads and their memory until the device answers. While there are any, the
    /// store is not closed; another call of this waits for them again.
    ///
    /// Calls of the store itself that are in progress are waited for, too.
    ///
    /// # Errors
    /// Those of [`Store::close`](crate::Store::close); another call tries again. [`Error::Device`]
    /// in a forked child.
    pub fn close(&self, limit: Duration) -> Result<CloseReport, Error> {
        let shared = self.shared();
        shared.check_process()?;
        let until = Instant::now().checked_add(limit);
        shared.with(|state| {
            if state.phase == Phase::Open {
                state.phase = Phase::Closing;
            }
        });
        let is_idle = shared.wait_until(until, State::is_idle);
        let (waiting, error) = shared.with(|state| (state.turn_away(), state.closed()));
        let turned_away = waiting.len();
        waiting.into_iter().for_each(|request| request.job.fail(&error));
        if is_idle {
            shared.with(State::want_store_closed);
            shared.wait_until(until, |state| !state.is_store_closing());
        }
        shared.with(|state| {
            let running = |kind| state.queue(kind).running();
            let bytes = |kind| state.queue(kind).running_bytes();
            let mut report = CloseReport {
                is_closed: false,
                turned_away,
                running: QueueKind::ALL.into_iter().map(running).sum(),
                running_bytes: QueueKind::ALL.into_iter().map(bytes).sum(),
            };
            match &state.closing {
                StoreClosing::Done(Ok(())) => {
                    state.phase = Phase::Ended;
                    report.is_closed = true;
                    Ok(report)
                }
                StoreClosing::Done(Err(error)) => Err(error.clone()),
                _ => Ok(report),
            }
        })
    }
}
