//! The dispatcher, which all I/O passes.
//!
//! A batch on its way from the caller to a queue:
//!
//! ```text
//! caller         transfer     transfer     transfer    WriteAt, ReadAt, OwnedTransfer
//! requests.rs        │            │            │       checked, and sorted by offset
//!                ┌───┴───┐        │        ┌───┴───┐
//! layout.rs   direct   staged   direct   direct  padding    pieces: parts of a transfer
//!                └───┬───┘        │        └───┬───┘
//! plan.rs            └─────┬──────┘            │       neighbours are merged
//! wave.rs                 run                 run      a wave: the ops in flight at one time
//!                          │                   │
//! lane.rs                 op                  op       backend::Op, in one submission
//! ```
//!
//! A *transfer* is what the caller describes; accepted by a batch it is a *request*. A *piece* is a
//! part of it that moves directly or through staging memory. A *run* is the requests that one *op*
//! carries: the unit that a queue accepts and completes. A *wave* is the runs of a batch that are
//! in flight at one time. A batch has one wave, or more if it needs much staging memory or repeats
//! requests ([`batch`]).
//!
//! The path of a batch of a blocking call: [`Dispatcher::write_buffers`] > `run` > `Lane::drive` >
//! `pump` > [`IoQueue::submit`](crate::backend::IoQueue::submit). The lane comes from a [`pool`]
//! and returns to it when its guard is dropped. `drive` waits for the whole batch, or, in
//! `read_buffers_with`, for parts of 256 KiB. While more ops wait than the queue accepts, it waits
//! for a quarter of its depth: the queue is refilled well before it is empty.
//!
//! The batches of [tickets](Ticket) run on a [`driver`]: one thread, and one queue for all.

mod bare;
mod batch;
mod blocking;
mod check;
mod dispatcher;
mod driver;
mod lane;
mod lanes;
mod layout;
mod options;
mod owned;
mod plan;
mod pool;
mod requests;
mod result;
mod reuse;
mod ticket;
mod wave;

pub use check::can_batch;
pub use dispatcher::Dispatcher;
pub use options::DispatcherOptions;
pub use result::BatchResult;
pub use ticket::{Finished, Refused, Ticket};
