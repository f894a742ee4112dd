//! Which process and which thread may use a ring.

use std::thread::{self, ThreadId};

use raw_block_core::process;

/// The process that made a ring and, for a local ring, the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    process: u32,
    thread: Option<ThreadId>,
}

impl Owner {
    /// This process, and if the ring is local, this thread only.
    pub(crate) fn new(is_local: bool) -> Self {
        Self { process: process::id(), thread: is_local.then(|| thread::current().id()) }
    }

    /// Whether this process made the ring. A forked child has none of its memory.
    pub(crate) fn is_this_process(self) -> bool {
        process::id() == self.process
    }

    /// Whether only one thread may use the ring.
    pub(crate) fn is_local(self) -> bool {
        self.thread.is_some()
    }

    /// Whether the calling thread may use the ring.
    pub(crate) fn is_this_thread(self) -> bool {
        self.is_this_process() && self.thread.is_none_or(|owner| owner == thread::current().id())
    }
}
