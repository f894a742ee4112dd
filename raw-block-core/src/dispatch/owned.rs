//! Batches that own their memory, and run while the caller does other work.

use std::sync::atomic::Ordering;

use super::dispatcher::Dispatcher;
use super::lane::WaitMode;
use super::ticket::{Refused, Ticket};
use crate::OwnedTransfer;
use crate::backend::OpKind;

impl Dispatcher {
    /// Starts a batch of writes, and returns at once.
    ///
    /// # Errors
    /// The error and the batch when the batch cannot be started:
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) when too many tickets exist,
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
        let lane = self.check_batch(kind, batch.len()).and_then(|()| self.pool.lend_to_ticket());
        let mut lane = match lane {
            Ok(lane) => lane,
            Err(error) => return Err(Refused { error, batch }),
        };
        let backend = &*self.pool.backend;
        lane.batch.start(kind, batch.len());
        lane.batch.add_owned(batch, self.geometry());
        lane.begin(backend);
        lane.drive(backend, WaitMode::Poll);
        let id = self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Ticket::new(id, lane))
    }
}
