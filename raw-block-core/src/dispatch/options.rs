//! How a dispatcher uses the queues of its backend.

/// How a [`Dispatcher`](crate::Dispatcher) uses the queues of its backend.
///
/// # Examples
/// ```
/// use raw_block_core::DispatcherOptions;
///
/// let options = DispatcherOptions::new().queue_depth(32).max_queues(8);
/// assert_eq!((options.queue_depth, options.max_queues), (32, 8));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DispatcherOptions {
    /// The requested depth of each queue, in ops.
    pub queue_depth: usize,
    /// The most queues that are open at once for blocking calls: as many of them run concurrently,
    /// and others wait. A thread that calls the dispatcher from within
    /// [`Dispatcher::read_buffers_with`](crate::Dispatcher::read_buffers_with) or
    /// [`Dispatcher::write_buffers_while`](crate::Dispatcher::write_buffers_while) may open one
    /// more. All tickets share one further queue.
    pub max_queues: usize,
}

impl DispatcherOptions {
    /// Queues of depth 128, at most 64 of them.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue_depth: 128, max_queues: 64 }
    }

    /// The same options with this [queue depth](Self#structfield.queue_depth).
    #[must_use]
    pub const fn queue_depth(mut self, ops: usize) -> Self {
        self.queue_depth = ops;
        self
    }

    /// The same options with [at most](Self#structfield.max_queues) this many queues.
    #[must_use]
    pub const fn max_queues(mut self, queues: usize) -> Self {
        self.max_queues = queues;
        self
    }
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self::new()
    }
}
