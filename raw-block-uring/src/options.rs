//! How a backend opens its device.

use std::time::Duration;

use raw_block_core::Direct;

/// How a [`UringBackend`](crate::UringBackend) opens its device.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use raw_block_uring::{Direct, UringOptions};
///
/// let options = UringOptions::new()
///     .direct(Direct::Required)
///     .kernel_polling(Some(Duration::from_millis(50)));
/// assert!(!options.completion_polling);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UringOptions {
    /// Whether transfers bypass the page cache. [`Direct::Preferred`] by default.
    pub direct: Direct,
    /// Whether a kernel thread, one for the device, polls for submissions (`SQPOLL`), so that
    /// starting a batch needs no system call while the thread is awake. The thread keeps a
    /// processor busy, and sleeps after this idle time, in whole milliseconds. Needs privileges
    /// before Linux 5.11. Off by default.
    pub kernel_polling: Option<Duration>,
    /// Whether the thread that waits for completions polls the device for them instead of sleeping
    /// until an interrupt (`IOPOLL`). This has the lowest latency and keeps a processor busy while
    /// ops are in flight. Needs `O_DIRECT` and a driver with queues for polling; the NVMe driver
    /// creates them if its module parameter `poll_queues` is set. Off by default.
    pub completion_polling: bool,
}

impl UringOptions {
    /// Default options: [`Direct::Preferred`], and no polling.
    #[must_use]
    pub const fn new() -> Self {
        Self { direct: Direct::Preferred, kernel_polling: None, completion_polling: false }
    }

    /// Sets whether transfers bypass the page cache.
    #[must_use]
    pub const fn direct(mut self, direct: Direct) -> Self {
        self.direct = direct;
        self
    }

    /// Sets the idle time after which the kernel thread that polls for submissions sleeps; `None`:
    /// there is no such thread.
    #[must_use]
    pub const fn kernel_polling(mut self, idle: Option<Duration>) -> Self {
        self.kernel_polling = idle;
        self
    }

    /// Sets whether the thread that waits for completions polls the device for them.
    #[must_use]
    pub const fn completion_polling(mut self, completion_polling: bool) -> Self {
        self.completion_polling = completion_polling;
        self
    }
}

impl Default for UringOptions {
    fn default() -> Self {
        Self::new()
    }
}
