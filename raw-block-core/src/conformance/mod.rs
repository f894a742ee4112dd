//! One test suite for every backend: what [`IoQueue`] promises, what a
//! [`Dispatcher`] makes of it, and random batches against a plain array of bytes.
//!
//! The author of a backend adds this crate with the feature `conformance` to the dev-dependencies
//! and calls [`conformance_suite!`](crate::conformance_suite) in an integration test:
//!
//! ```
//! # fn main() {}
//! use std::sync::Arc;
//! use raw_block_core::{Direct, MemoryBackend};
//! use raw_block_core::backend::DeviceFile;
//! use raw_block_core::conformance::{Skipped, Subject};
//!
//! raw_block_core::conformance_suite!(memory, || {
//!     Ok(Subject::new(Arc::new(MemoryBackend::new(16 << 20).unwrap())))
//! });
//!
//! # struct MyBackend;
//! # impl MyBackend {
//! #     fn new(_: DeviceFile) -> MemoryBackend { MemoryBackend::new(16 << 20).unwrap() }
//! # }
//! raw_block_core::conformance_suite!(temporary_file, || {
//!     let file = tempfile::NamedTempFile::new().map_err(Skipped::because)?;
//!     file.as_file().set_len(16 << 20).unwrap();
//!     let device = DeviceFile::open(file.path(), Direct::Preferred).unwrap();
//!     Ok(Subject::new(Arc::new(MyBackend::new(device))).keeping(file))
//! });
//! ```
//!
//! Each statement is one test with a fresh [`Subject`]. Where there can be none (no root, no loop
//! device), the test prints one line, `skipped: <reason>`, and returns. `PROPTEST_CASES` sets how
//! many random cases are tried.
//!
//! The suite overwrites the device.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "this is test code: it panics to fail, and its numbers are small"
)]

mod bytes;
mod dispatcher;
mod driver;
mod model;
mod queue;
mod run;
mod secret;
#[macro_use]
mod statements;

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::backend::{IoBackend, IoQueue};
use crate::{Dispatcher, DispatcherOptions, Geometry, StatsSnapshot};
#[doc(hidden)]
pub use statements::statement;

/// A backend under test on its own device, whose contents do not matter, and values that must live
/// as long.
pub struct Subject {
    // The order matters: the device goes away after its backend.
    backend: Arc<dyn IoBackend>,
    local: bool,
    // Never locked: it lets threads share a subject though a guard may be tied to one at a time.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Subject {
    /// The smallest device that the suite runs on, in bytes.
    pub const MIN_CAPACITY: u64 = 8 << 20;
    /// The fewest blocks (the unit of transfers) that the device has.
    pub const MIN_BLOCKS: u64 = 2048;

    /// A subject that needs nothing besides its backend.
    ///
    /// # Panics
    /// When the device is smaller than [`MIN_CAPACITY`](Self::MIN_CAPACITY) or
    /// [`MIN_BLOCKS`](Self::MIN_BLOCKS).
    #[must_use]
    pub fn new(backend: Arc<dyn IoBackend>) -> Self {
        let subject = Self { backend, local: false, kept: Mutex::default() };
        let (capacity, block) = (subject.geometry().capacity, subject.block());
        assert!(
            capacity >= Self::MIN_CAPACITY.max(Self::MIN_BLOCKS * block as u64),
            "a device of {capacity} bytes in blocks of {block} is too small"
        );
        subject
    }

    /// The same subject; what is tried on a queue by itself is tried on one of a single thread.
    #[must_use]
    pub fn with_local_queues(self) -> Self {
        Self { local: true, ..self }
    }

    /// The same subject; `guard`, a temporary file for example, is dropped after the backend.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send) -> Self {
        self.kept.get_mut().unwrap().push(Box::new(guard));
        self
    }

    fn geometry(&self) -> &Geometry {
        self.backend.geometry()
    }

    /// The unit of most transfers of the suite, in bytes: a logical block, or what the device
    /// demands if that is more.
    fn block(&self) -> usize {
        let Geometry { logical_block, transfer_alignment, .. } = *self.geometry();
        logical_block.max(transfer_alignment) as usize
    }

    /// Offsets and lengths that the device takes are multiples of this many bytes.
    fn alignment(&self) -> usize {
        self.geometry().transfer_alignment as usize
    }

    /// Byte offset of block `number`.
    fn at(&self, number: usize) -> u64 {
        number as u64 * self.block() as u64
    }

    /// How many blocks the device has.
    fn blocks(&self) -> usize {
        self.geometry().capacity as usize / self.block()
    }

    fn stats(&self) -> StatsSnapshot {
        self.backend.stats().snapshot()
    }

    fn queue(&self, depth: usize) -> Box<dyn IoQueue> {
        let queue = if self.local {
            self.backend.open_local_queue(depth).unwrap()
        } else {
            self.backend.open_queue(depth).unwrap()
        };
        assert!(queue.depth() > 0, "a queue without depth takes nothing");
        assert_eq!(queue.in_flight(), 0, "a new queue has nothing in flight");
        queue
    }

    fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(Arc::clone(&self.backend)).unwrap()
    }

    fn dispatcher_with(&self, queue_depth: usize, max_queues: usize) -> Dispatcher {
        let options = DispatcherOptions::new().queue_depth(queue_depth).max_queues(max_queues);
        Dispatcher::with_options(Arc::clone(&self.backend), options).unwrap()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("engine", &self.backend.engine())
            .field("device", &self.backend.name())
            .field("geometry", self.geometry())
            .finish_non_exhaustive()
    }
}

/// Why a test cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped(String);

impl Skipped {
    /// The test needs something that is not there: `reason` says what.
    #[must_use]
    pub fn because(reason: impl fmt::Display) -> Self {
        let reason = reason.to_string();
        Self(reason.lines().map(str::trim).collect::<Vec<_>>().join(" "))
    }

    /// Prints the one line, also where the test harness captures the output of tests that pass.
    pub fn report(&self) {
        let line = format!("skipped: {self}\n");
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
