//! Batches that own their memory, and run while the caller does other work.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::dispatcher::Dispatcher;
use super::driver::{Job, Outcome};
use super::lane::WaitMode;
use super::ticket::{Finished, Refused, Ticket};
use crate::OwnedTransfer;
use crate::backend::OpKind;

impl Dispatcher {
    /// Starts a batch of writes, and returns at once. If the process may start no thread, the batch
    /// runs in this call.
    ///
    /// # Errors
    /// The error and the batch when the batch cannot be started:
    /// [`ErrorKind::WritesStopped`](crate::ErrorKind::WritesStopped) after a failed flush. An
    /// invalid transfer does not fail the batch: it has its own result.
    pub fn batched_write(&self, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        self.start_owned(OpKind::Write, batch)
    }

    /// Starts a batch of reads, and returns at once.
    ///
    /// # Errors
    /// As [`batched_write`](Self::batched_write).
    pub fn batched_read(&self, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        self.start_owned(OpKind::Read, batch)
    }

    fn start_owned(&self, kind: OpKind, batch: Vec<OwnedTransfer>) -> Result<Ticket, Refused> {
        let accepted = self.check_batch(kind, batch.len());
        if let Err(error) = accepted.and_then(|()| self.pool.check_process()) {
            return Err(Refused { error, batch });
        }
        let stats = self.pool.backend.stats();
        stats.update(|stats| stats.tickets_in_flight += 1);
        let outcome = Arc::new(Outcome::new(batch.len()));
        let job = Job { kind, transfers: batch, outcome: Arc::clone(&outcome) };
        if let Err((error, job)) = self.driver.add(job) {
            let engine = self.pool.backend.engine();
            tracing::warn!(engine, %error, "a batch runs in the thread that started it");
            let done = self.run_owned(kind, job.transfers);
            stats.update(|stats| stats.tickets_in_flight -= 1);
            outcome.publish(done?, || {});
        }
        let id = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Ticket::new(id, outcome))
    }

    /// Runs a batch to its end in the calling thread, because no other can be started.
    fn run_owned(
        &self,
        kind: OpKind,
        transfers: Vec<OwnedTransfer>,
    ) -> Result<Vec<Finished>, Refused> {
        let mut lane = match self.lane(kind, transfers.len()) {
            Ok(lane) => lane,
            Err(error) => return Err(Refused { error, batch: transfers }),
        };
        let backend = &*self.pool.backend;
        lane.batch.add_owned(transfers, self.geometry());
        lane.begin(backend);
        lane.drive(backend, WaitMode::All);
        Ok(lane.batch.take_finished(backend))
    }
}
