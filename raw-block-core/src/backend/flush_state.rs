//! The flushes of one open device: group commit, and whether writes are stopped.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};

use super::op_kind::OpKind;
use crate::stats::Stats;
use crate::{Error, ErrorClass, ErrorKind, sync};

/// The flushes of one open device, shared by all dispatchers on one backend.
///
/// A backend has one, next to its [`Stats`], and returns it from
/// [`IoBackend::flush_state`](crate::backend::IoBackend::flush_state). It holds two things:
///
/// - **Group commit.** One flush is in flight at a time, because the kernel reports a failure to
///   one flush only. Callers that arrive in the meantime wait for the next flush, which one of them
///   performs for all of them. A flush that was submitted before a call never serves that call.
/// - **Whether writes are stopped.** After a failed flush it is unknown what is durable, so every
///   dispatcher on the backend refuses writes and flushes from then on. A program that depends on a
///   write whose outcome is unknown [stops them too](Self::stop_writes).
///
/// # Examples
/// ```
/// use raw_block_core::backend::FlushState;
/// use raw_block_core::{Error, ErrorClass, ErrorKind};
///
/// let flushes = FlushState::new();
/// assert!(flushes.failure().is_none());
/// let lost = Error::new(ErrorKind::Io, "write", "no answer").with_class(ErrorClass::Unknown);
/// flushes.stop_writes(&lost);
/// assert_eq!(flushes.failure().unwrap().class(), ErrorClass::Unknown);
/// ```
#[derive(Default)]
pub struct FlushState {
    state: Mutex<State>,
    /// Signalled when a flush has ended, and when a caller that was about to submit one returns
    /// without it.
    changed: Condvar,
    /// Set once writes are stopped. Not in `state`, so that a batch of writes checks it without a
    /// lock.
    stopped: OnceLock<Stopped>,
}

/// Flushes are numbered from 1 in the order of their submission.
#[derive(Default)]
struct State {
    /// The number of the last flush that was submitted.
    submitted: u64,
    /// The number of the last flush that succeeded.
    succeeded: u64,
    in_flight: bool,
    /// Whether a caller takes a queue to submit the next flush.
    preparing: bool,
}

struct Stopped {
    /// The number of the flush that failed; none if a write stopped them.
    flush: Option<u64>,
    error: Error,
}

impl FlushState {
    /// The state of a device without any flush.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The error of the flush or the write that stopped writes, once they are stopped.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.stopped.get().map(|stopped| &stopped.error)
    }

    /// Stops writes because of `error`, which is that of a write whose outcome is
    /// [unknown](ErrorClass::Unknown). For programs that could not go on without writing to its
    /// range.
    ///
    /// From then on every dispatcher on the backend refuses writes and flushes with
    /// [`ErrorKind::WritesStopped`], until the device is opened again. What is in flight may still
    /// succeed.
    pub fn stop_writes(&self, error: &Error) {
        self.stop(None, error.clone());
    }

    /// Whether an operation of this kind may change the device.
    ///
    /// # Errors
    /// [`ErrorKind::WritesStopped`] once writes are stopped.
    pub(crate) fn check(&self, kind: OpKind) -> Result<(), Error> {
        let Some(Stopped { flush, error }) = self.stopped.get() else { return Ok(()) };
        let rule = if flush.is_some() {
            format!(
                "an earlier flush failed ({error}), so it is unknown what is durable: open the device again"
            )
        } else {
            format!(
                "an earlier write failed ({error}) and may still take effect: open the device again"
            )
        };
        Err(Error::new(ErrorKind::WritesStopped, kind.name(), rule))
    }

    /// Returns when a flush that was submitted after this call has succeeded: one that another
    /// caller performs, or the caller's own, which is `flush` with what `prepare` returned.
    ///
    /// With `holds_queue` the caller has a queue that others may wait for, so it does not wait for
    /// a caller that waits for a queue.
    ///
    /// # Errors
    /// Those of the flush; [`ErrorKind::WritesStopped`] when an earlier one failed in the meantime.
    /// An error of class [`ErrorClass::NotStarted`] stops no writes, and fails only the caller that
    /// performs the flush: the others try again.
    ///
    /// # Panics
    /// When `flush` does, which stops writes, or `prepare`, which does not.
    pub(crate) fn flush<Q>(
        &self,
        stats: &Stats,
        holds_queue: bool,
        prepare: impl FnOnce() -> Result<Q, Error>,
        flush: impl FnOnce(Q) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let state = sync::lock(&self.state);
        stats.update(|stats| stats.flush_calls += 1);
        let wanted = state.submitted + 1;
        let may_prepare = |state: &State| !state.in_flight && (holds_queue || !state.preparing);
        let mut state = match self.wait_until(state, wanted, may_prepare) {
            Ok(state) => state,
            Err(result) => return result,
        };
        state.preparing = true;
        drop(state);
        let preparing = Preparing(self);
        let queue = prepare()?;
        // Another caller may have submitted a flush in the meantime.
        let number = match self.wait_until(sync::lock(&self.state), wanted, |s| !s.in_flight) {
            Ok(mut state) => {
                state.submitted += 1;
                state.in_flight = true;
                state.submitted
            }
            Err(result) => return result,
        };
        drop(preparing);
        stats.update(|stats| stats.flushes += 1);
        let in_flight = InFlight { flushes: self, number, result: Err(panicked()) };
        in_flight.end(flush(queue))
    }

    /// Waits until `proceed`. Gives the result instead, once flush `wanted` or a later one has
    /// ended.
    fn wait_until<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        wanted: u64,
        proceed: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, Result<(), Error>> {
        loop {
            if state.succeeded >= wanted {
                return Err(Ok(()));
            }
            if let Some(stopped) = self.stopped.get() {
                let served = stopped.flush.is_some_and(|number| number >= wanted);
                let refused = || self.check(OpKind::Flush);
                return Err(if served { Err(stopped.error.clone()) } else { refused() });
            }
            if proceed(&state) {
                return Ok(state);
            }
            state = sync::wait(&self.changed, &self.state, state);
        }
    }

    /// Stops writes after flush number `flush`, or a write, failed.
    fn stop(&self, flush: Option<u64>, error: Error) {
        match flush {
            Some(_) => tracing::error!(%error, "a flush failed: writes are refused from now on"),
            None => tracing::error!(
                %error,
                "a write may still take effect: writes are refused from now on"
            ),
        }
        let _ = self.stopped.set(Stopped { flush, error });
    }
}

fn panicked() -> Error {
    let rule = "the backend panicked; what is durable is unknown";
    Error::new(ErrorKind::Io, OpKind::Flush.name(), rule).with_class(ErrorClass::Unknown)
}

/// A caller that takes a queue to submit the next flush.
struct Preparing<'a>(&'a FlushState);

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        sync::lock(&self.0.state).preparing = false;
        self.0.changed.notify_all();
    }
}

/// A flush in flight. It has failed if this is dropped without a result.
struct InFlight<'a> {
    flushes: &'a FlushState,
    number: u64,
    result: Result<(), Error>,
}

impl InFlight<'_> {
    fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        self.result = result.clone();
        result
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        let succeeded = result.is_ok();
        if let Err(error) = result
            && error.class() != ErrorClass::NotStarted
        {
            // Before the flush is seen to have ended.
            self.flushes.stop(Some(self.number), error);
        }
        let mut state = sync::lock(&self.flushes.state);
        state.in_flight = false;
        if succeeded {
            state.succeeded = self.number;
        }
        drop(state);
        self.flushes.changed.notify_all();
    }
}

impl fmt::Debug for FlushState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushState").field("failure", &self.failure()).finish_non_exhaustive()
    }
}
