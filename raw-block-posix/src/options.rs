//! How a backend opens its device.

use raw_block_core::Direct;

/// How a [`PosixBackend`](crate::PosixBackend) opens and uses its device.
///
/// # Examples
/// ```
/// use raw_block_posix::{Direct, PosixOptions};
///
/// let through_the_page_cache = PosixOptions::new().direct(Direct::Off);
/// assert_eq!(through_the_page_cache.threads, 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PosixOptions {
    /// Whether transfers bypass the page cache. [`Direct::Preferred`] by default.
    pub direct: Direct,
    /// The number of transfers that run in parallel, over all queues of the backend: 1 to 1024, 32
    /// by default.
    ///
    /// The thread that waits for a batch is one of them. So 1 starts no thread and is the plain
    /// serial reference. With more, the other threads are started on first use.
    pub threads: usize,
}

impl PosixOptions {
    /// [`Direct::Preferred`] and 32 threads.
    ///
    /// The throughput of a disk depends on the number of transfers in flight, and here each of them
    /// takes a thread. A batch of 32 needs 32. On the virtual disk where this was measured, such
    /// batches of random 4 KiB transfers ran at least three times as fast as with one thread, and
    /// at nine tenths of the speed of `io_uring` at depth 32; 8 threads reached seven tenths, and
    /// 64 were no faster. An idle thread costs only its stack.
    #[must_use]
    pub const fn new() -> Self {
        Self { direct: Direct::Preferred, threads: 32 }
    }

    /// Sets whether transfers bypass the page cache.
    #[must_use]
    pub const fn direct(mut self, direct: Direct) -> Self {
        self.direct = direct;
        self
    }

    /// Sets the number of transfers that run in parallel.
    #[must_use]
    pub const fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

impl Default for PosixOptions {
    fn default() -> Self {
        Self::new()
    }
}
