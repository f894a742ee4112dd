//! The thread of a driver.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::thread::{Builder, ThreadId};
use std::time::{Duration, Instant};

use super::Device;
use super::batches::{Batches, CompletedJob};
use super::inbox::Inbox;
use crate::backend::{Completion, IoQueue, Stats};
use crate::{Error, sync};

/// The name of the thread, at the longest length that the kernel stores.
const THREAD_NAME: &str = "raw-block-drive";

/// How long the thread sleeps without a job before it ends: rarer starts cost nothing.
const LINGER: Duration = Duration::from_secs(10);

/// How often the thread checks whether a backend that breaks its contract has dropped its ops.
const RELEASE_POLL: Duration = Duration::from_millis(1);

/// A queue, and the handle that wakes this thread in it.
struct OpenQueue {
    queue: Box<dyn IoQueue>,
    waker: Waker,
}

pub(super) struct Worker {
    inbox: Arc<Inbox>,
    device: Device,
    /// Opened when there are ops for it; `None` again once it broke.
    queue: Option<OpenQueue>,
    batches: Batches,
    done: Vec<Completion>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(inbox: Arc<Inbox>, device: Device) -> io::Result<ThreadId> {
        let run = move || {
            let (queue, batches, done) = (None, Batches::default(), Vec::new());
            Self { inbox, device, queue, batches, done }.run();
        };
        let started = sync::spawn(Builder::new().name(THREAD_NAME.to_owned()), run)?;
        Ok(started.thread().id())
    }

    fn run(mut self) {
        loop {
            for job in self.inbox.take() {
                self.batches.add(job, &self.device.geometry, &*self.device.backend);
            }
            if !self.batches.is_empty() {
                self.advance_or_recover();
            }
            let idle = self.batches.is_empty();
            // The last results of a driver that closes are published when it has ended.
            let mut ends = idle && self.inbox.is_closing();
            if !ends {
                let completed = self.batches.take_completed();
                self.inbox.note_completed(completed.len());
                publish(completed, self.device.backend.stats());
                ends = idle && self.inbox.sleep(LINGER);
            }
            if ends {
                match self.end() {
                    Some(worker) => self = worker,
                    None => return,
                }
            }
        }
    }

    /// Advances the batches. A panic of the backend must not leave tickets waiting.
    fn advance_or_recover(&mut self) {
        let has_queue = self.queue.is_some();
        if catch_unwind(AssertUnwindSafe(|| self.advance())).is_err() {
            tracing::error!(engine = self.device.backend.engine(), "a backend panicked");
            self.replace_queue(!has_queue);
        }
    }

    /// Releases the queue and the backend, and then publishes the last results: a caller that has
    /// them may open the device again. Returns `None` unless a job has arrived.
    fn end(mut self) -> Option<Self> {
        self.drop_queue();
        let completed = self.batches.take_completed();
        self.inbox.note_completed(completed.len());
        let Self { inbox, device, batches, done, .. } = self;
        let uncounted = completed.len() as u64;
        device.backend.stats().update(|stats| stats.tickets_in_flight -= uncounted);
        let kept = inbox.end(device).err();
        completed.into_iter().for_each(|of| of.outcome.publish(of.finished, || {}));
        kept.map(|device| Self { inbox, device, queue: None, batches, done })
    }

    /// Submits ops, and waits for completions or a job.
    fn advance(&mut self) {
        if self.batches.in_flight() == 0 && !self.batches.has_waiting() {
            // A backend keeps memory of ops that it completed.
            self.inbox.sleep(RELEASE_POLL);
        }
        let (geometry, backend) = (&self.device.geometry, &*self.device.backend);
        self.batches.retry_unreleased(geometry, backend);
        if self.queue.is_none() && self.batches.has_waiting() {
            match open(&self.device) {
                Ok(open) => self.queue = Some(open),
                Err(error) => return self.batches.fail_all(&error, geometry, backend),
            }
        }
        let Some(OpenQueue { queue, waker }) = &mut self.queue else { return };
        self.batches.fill(&mut **queue);
        if self.batches.in_flight() == 0 && self.batches.has_waiting() {
            tracing::error!(engine = backend.engine(), "an idle queue accepts no op");
            return self.replace_queue(true);
        }
        let waits = self.inbox.announce_wait(waker);
        let min = if waits { self.batches.awaited(queue.depth()) } else { 0 };
        let deadline = self.batches.has_unreleased().then(|| Instant::now() + RELEASE_POLL);
        queue.reap(min, deadline, &mut self.done);
        let (left, broken) = (queue.in_flight(), queue.depth() == 0);
        self.batches.settle(&mut self.done, geometry, backend);
        if left != self.batches.in_flight() {
            tracing::error!(engine = backend.engine(), device = backend.name(), "a queue lost ops");
            self.replace_queue(false);
        } else if broken && left == 0 {
            // It has returned the ops that it failed. The others go to another queue.
            self.drop_queue();
        }
    }

    /// Drops the queue, and fails the ops that it has not returned; with `all`, fails all ops.
    fn replace_queue(&mut self, all: bool) {
        self.drop_queue();
        let (geometry, backend) = (&self.device.geometry, &*self.device.backend);
        self.batches.settle(&mut self.done, geometry, backend);
        self.batches.abandon(all, geometry, backend);
    }

    /// Drops the queue, which waits for its ops.
    fn drop_queue(&mut self) {
        let queue = self.queue.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(queue)));
    }
}

fn publish(completed: Vec<CompletedJob>, stats: &Stats) {
    for CompletedJob { outcome, finished } in completed {
        outcome.publish(finished, || stats.update(|stats| stats.tickets_in_flight -= 1));
    }
}

/// Opens a queue of this thread. Where that fails, closes idle queues of blocking calls and tries
/// again.
fn open(device: &Device) -> Result<OpenQueue, Error> {
    loop {
        let opened = device.backend.open_local_queue(device.depth).and_then(|mut queue| {
            let waker = queue.waker()?;
            Ok(OpenQueue { queue, waker })
        });
        match opened {
            Err(_) if device.lanes.close_idle() => {}
            opened => return opened,
        }
    }
}
