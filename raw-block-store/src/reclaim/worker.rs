//! The background thread: it does what calls would have to wait for otherwise.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use raw_block_core::backend::OpKind;

use super::discard::discard_free;
use super::run::run_ahead;
use crate::Error;
use crate::checkpoint;
use crate::io::segment_header;
use crate::state::StoreState;
use crate::state::backoff::{self, Backoff};
use crate::state::space::CheckpointPurpose;
use crate::state::unwind::OnPanic;

/// The background thread of a store. It sleeps until calls
/// [wake](crate::state::signal::Signal::wake) it, and ends when this is dropped.
///
/// It keeps a segment of each stream open ahead, reclaims space before a put needs it, takes
/// checkpoints, and discards free segments.
pub(crate) struct Worker {
    state: Arc<StoreState>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. `None` when the system has no thread to give: then calls do its work when
    /// they need it.
    pub(crate) fn start(state: &Arc<StoreState>) -> Option<Self> {
        state.worker.begin();
        let its_state = Arc::clone(state);
        let thread = thread::Builder::new()
            .name("raw-block-store".to_owned())
            .spawn(move || run(&its_state))
            .inspect_err(|error| {
                let device = state.device_name();
                tracing::warn!(device, %error, "the background thread of the store cannot be started");
                state.worker.end();
            })
            .ok()?;
        Some(Self { state: Arc::clone(state), thread: Some(thread) })
    }
}

fn run(state: &StoreState) {
    // Calls do its work from then on.
    let _end = OnPanic(|| state.worker.end());
    let mut backoff = Backoff::default();
    while state.worker.wait() {
        while !state.worker.has_ended() {
            let wait = backoff::wait_after(state.failed_probations());
            if state.refuses_writes() && !state.worker.pause(wait) {
                return;
            }
            match work(state) {
                Ok(true) => drop(backoff.succeeded()),
                Ok(false) => break,
                Err(error) if state.dispatcher.check_accepted(OpKind::Write).is_err() => {
                    let device = state.device_name();
                    tracing::error!(device, %error, "the background thread of the store ends: writes are refused");
                    return;
                }
                Err(error) => {
                    // Callers that need space try as well, and get the error.
                    let (device, wait) = (state.device_name(), backoff.failed());
                    tracing::warn!(device, %error, ?wait, "background work of the store failed: it is tried again");
                    if !state.worker.pause(wait) {
                        return;
                    }
                }
            }
        }
    }
}

/// Does the most urgent work. Returns whether there may be more.
///
/// # Errors
/// [`Error::Device`], [`Error::OutOfMemory`]: it is to be tried again later.
pub(crate) fn work(state: &StoreState) -> Result<bool, Error> {
    checkpoint::empty_unpinned(state);
    if state.refuses_writes() {
        // A checkpoint shows when the device accepts writes again.
        checkpoint::take(state, CheckpointPurpose::Period)?;
        return Ok(true);
    }
    if segment_header::open_ahead(state) || run_ahead(state)? {
        return Ok(true);
    }
    let objects = state.index.len();
    let taken = checkpoint::take_if(state, CheckpointPurpose::Period, |space| {
        space.needs_checkpoint(objects)
    });
    Ok(taken? || discard_free(state))
}

impl Drop for Worker {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.state.is_inherited() {
            // The thread is not in this process, and may have held any lock when it was forked.
            std::mem::forget(thread);
            return;
        }
        let _unthrottled = self.state.throttle.suspend();
        self.state.worker.end();
        if let Some(thread) = thread {
            // If it panicked, the message was printed.
            let _ = thread.join();
        }
    }
}
