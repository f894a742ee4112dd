//! The options of the asynchronous front.

use std::time::Duration;

/// How many threads the front has, what it accepts, and when it finds the device slow.
///
/// # Examples
/// ```
/// use raw_block_store::AsyncOptions;
///
/// let options = AsyncOptions::new().load_threads(8).max_store_bytes(256 << 20);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AsyncOptions {
    /// Threads that get objects: as many calls are in flight. At least 1.
    pub load_threads: usize,
    /// Threads that put and delete objects and flush. At least 1.
    pub store_threads: usize,
    /// The most requests of each kind that wait: of gets, of changes, and of look-ups.
    pub max_queued: usize,
    /// The most bytes of memory that puts and deletes own which wait or run.
    pub max_store_bytes: u64,
    /// While gets wait or run, the most bytes of puts that run. One request runs even if it is
    /// longer, so puts do not starve.
    pub store_window: u64,
    /// The front finds the device slow when a call has been in progress for this long. A put that
    /// waits for space and a flush of much data count, so this should be longer than they take.
    pub slow_after: Duration,
    /// The front finds the device failed when this many calls in a row failed. At least 1.
    pub failed_after: u32,
    /// How long the front waits between two reads that find out whether a slow or failed device
    /// works again.
    pub probe_interval: Duration,
}

impl AsyncOptions {
    /// The default options: 4 threads for gets and 2 for changes, up to 1024 requests of each kind
    /// and 256 MiB of puts queued, a window of 4 MiB for puts, slow after 5 s, failed after 8
    /// calls, and a probe every 500 ms.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            load_threads: 4,
            store_threads: 2,
            max_queued: 1024,
            max_store_bytes: 256 << 20,
            store_window: 4 << 20,
            slow_after: Duration::from_secs(5),
            failed_after: 8,
            probe_interval: Duration::from_millis(500),
        }
    }

    /// The same options with this [number](Self#structfield.load_threads).
    #[must_use]
    pub const fn load_threads(mut self, threads: usize) -> Self {
        self.load_threads = threads;
        self
    }

    /// The same options with this [number](Self#structfield.store_threads).
    #[must_use]
    pub const fn store_threads(mut self, threads: usize) -> Self {
        self.store_threads = threads;
        self
    }

    /// The same options with this [limit](Self#structfield.max_queued).
    #[must_use]
    pub const fn max_queued(mut self, requests: usize) -> Self {
        self.max_queued = requests;
        self
    }

    /// The same options with this [limit](Self#structfield.max_store_bytes), in bytes.
    #[must_use]
    pub const fn max_store_bytes(mut self, bytes: u64) -> Self {
        self.max_store_bytes = bytes;
        self
    }

    /// The same options with this [window](Self#structfield.store_window), in bytes.
    #[must_use]
    pub const fn store_window(mut self, bytes: u64) -> Self {
        self.store_window = bytes;
        self
    }

    /// The same options with this [threshold](Self#structfield.slow_after).
    #[must_use]
    pub const fn slow_after(mut self, time: Duration) -> Self {
        self.slow_after = time;
        self
    }

    /// The same options with this [number](Self#structfield.failed_after).
    #[must_use]
    pub const fn failed_after(mut self, calls: u32) -> Self {
        self.failed_after = calls;
        self
    }

    /// The same options with this [interval](Self#structfield.probe_interval).
    #[must_use]
    pub const fn probe_interval(mut self, time: Duration) -> Self {
        self.probe_interval = time;
        self
    }
}

impl Default for AsyncOptions {
    fn default() -> Self {
        Self::new()
    }
}
