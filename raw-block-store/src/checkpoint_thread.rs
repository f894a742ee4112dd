//! The thread that takes checkpoints before anyone has to wait for one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::shared::Shared;

/// The thread that takes checkpoints. It sleeps until it is [woken](Self::wake), and ends when this is
/// dropped.
pub(crate) struct CheckpointThread {
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    over: bool,
}

impl CheckpointThread {
    /// Starts the thread. `None` when the system has no thread to give: then those take the checkpoints
    /// who need them.
    pub(crate) fn start(shared: &Arc<Shared>) -> Option<Self> {
        let signal = Arc::new(Signal::default());
        let device = shared.device.backend().device();
        let (its_shared, its_signal) = (Arc::clone(shared), Arc::clone(&signal));
        let thread = thread::Builder::new()
            .name("raw-block-ckpt".to_owned())
            .spawn(move || run(&its_shared, &its_signal))
            .inspect_err(
                |error| tracing::warn!(device, %error, "there is no thread for checkpoints"),
            )
            .ok()?;
        Some(Self { shared: Arc::clone(shared), signal, thread: Some(thread) })
    }

    /// Lets the thread see whether a checkpoint is wanted.
    pub(crate) fn wake(&self) {
        self.signal.lock().woken = true;
        self.signal.changed.notify_one();
    }
}

fn run(shared: &Shared, signal: &Signal) {
    while signal.wait() {
        if let Err(error) = shared.checkpoint_in_time() {
            // From now on whoever needs a checkpoint takes it, and is told why it fails.
            tracing::error!(%error, "a checkpoint failed");
            return;
        }
    }
}

impl Signal {
    /// Waits until woken; `false` when it is all over.
    fn wait(&self) -> bool {
        let sleeps = |state: &mut State| !state.woken && !state.over;
        let mut state =
            self.changed.wait_while(self.lock(), sleeps).unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        !state.over
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CheckpointThread {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.shared.is_inherited() {
            // The thread is not in this process, and may have held any lock when it was forked.
            std::mem::forget(thread);
            return;
        }
        let _hurry = self.shared.pace.hurry();
        self.signal.lock().over = true;
        self.signal.changed.notify_one();
        if let Some(thread) = thread {
            // What it panicked of, if it did, was printed.
            let _ = thread.join();
        }
    }
}
