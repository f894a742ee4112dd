//! The driver: one thread that runs any number of owned batches over one queue.
//!
//! ```text
//! Ticket            Ticket            Ticket
//!   │ Job             │                 │       inbox.rs     jobs that the thread has not taken
//!   └────────┬────────┴─────────────────┘
//!          thread                               thread.rs    one thread, one local queue
//!            │
//!          Batches                              batches.rs   a Batch for each job: waves, repeats
//!            │                                  order.rs     whose ops are submitted next
//!          queue                                backend::IoQueue
//!            │
//!          Outcome                              outcome.rs   the results, which wake the ticket
//! ```
//!
//! The thread starts with the first job, and ends when it has had none for a while. It opens a
//! local queue, which costs less than a shared one. The queue bounds what is in flight; the other
//! ops wait in their batches. While ops are in flight the thread waits in the queue, and a job
//! [wakes](crate::backend::IoQueue::waker) it there. Otherwise it sleeps at the inbox.
//!
//! A driver never waits for a submitter, and a submitter only for the lock of the inbox.

mod batches;
mod inbox;
mod order;
mod outcome;
mod thread;

use std::sync::Arc;

use self::inbox::Inbox;
pub(super) use self::inbox::Job;
pub(super) use self::outcome::Outcome;
use self::thread::Worker;
use super::lanes::Lanes;
use super::pool::LanePool;
use crate::backend::IoBackend;
use crate::{Error, ErrorKind, Geometry, process};

/// A driver, which has a thread while it has jobs.
pub(super) struct Driver {
    process: u32,
    inbox: Arc<Inbox>,
    device: Device,
}

/// What the thread needs of its dispatcher, which it may outlive.
#[derive(Clone)]
struct Device {
    backend: Arc<dyn IoBackend>,
    geometry: Geometry,
    depth: usize,
    /// The lanes of blocking calls.
    lanes: Arc<Lanes>,
}

impl Driver {
    /// A driver without a thread, over the backend of a pool.
    pub(super) fn new(pool: &LanePool, depth: usize) -> Self {
        let (backend, lanes) = (Arc::clone(&pool.backend), Arc::clone(&pool.lanes));
        let device = Device { backend, geometry: pool.geometry, depth, lanes };
        Self { process: process::id(), inbox: Arc::default(), device }
    }

    /// Hands a job to the thread, and starts the thread if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`] and the job when no thread can be started.
    pub(super) fn add(&self, job: Job) -> Result<(), (Error, Job)> {
        let start = || {
            Worker::start(Arc::clone(&self.inbox), self.device.clone()).map_err(|error| {
                let rule = "no thread can be started for batches in flight: raise the limit of \
                            threads, or use blocking calls";
                let failed = Error::new(ErrorKind::OutOfResources, "start a batch", rule);
                failed.with_source(error).on(self.device.backend.name())
            })
        };
        self.inbox.add(job, start)
    }
}

impl Drop for Driver {
    /// Ends the thread once all jobs have completed. Waits for its end only if there is no job.
    fn drop(&mut self) {
        if process::id() == self.process {
            self.inbox.close();
        }
    }
}
