//! The asynchronous front of a store: requests wait in bounded queues for worker threads, which
//! execute the blocking calls.
//!
//! ```text
//!   AsyncStore, CompletionQueue        handles: submit a Batch
//!      operation -> shared.submit      one lock, nothing is looked up
//!      request_queue                   three queues: look-ups, gets, changes
//!      worker -> execute               joins small requests, calls the Store
//!      job::Reply -> slot              a future
//!                 -> completion_list   an id, and the eventfd
//!   worker::watch                      the timer: deadlines, slow calls, probes
//! ```

mod async_store;
mod batch;
mod catch;
mod close;
mod completion_list;
mod completions;
mod evidence;
mod execute;
mod future;
mod health;
mod job;
mod operation;
mod options;
mod owned;
mod request_queue;
mod shared;
mod slot;
mod state;
mod stats;
mod worker;

pub use async_store::AsyncStore;
pub use batch::{Batch, Finished, Refused};
pub use close::CloseReport;
pub use completion_list::{Completion, Outcome, RequestId};
pub use completions::CompletionQueue;
pub use future::Pending;
pub use health::FrontHealth;
pub use options::AsyncOptions;
pub use owned::{OwnedGet, OwnedPut};
pub use stats::AsyncStats;
