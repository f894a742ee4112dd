//! How a backend opens its namespace.

use std::time::Duration;

/// How an [`NvmeBackend`](crate::NvmeBackend) opens its namespace.
///
/// # Examples
/// ```
/// use raw_block_nvme::NvmeOptions;
///
/// // The second GiB of the namespace, in commands of at most 256 KiB.
/// let options = NvmeOptions::new()
///     .offset(1 << 30)
///     .len(Some(1 << 30))
///     .max_command(Some(256 << 10));
/// assert!(!options.force);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NvmeOptions {
    /// The first byte of the namespace to use; a multiple of its logical block. 0 by default. The
    /// character device spans the whole namespace and has no partitions.
    pub offset: u64,
    /// The number of bytes to use, a multiple of the logical block. `None`, the default: all bytes
    /// to the end of the namespace.
    pub len: Option<u64>,
    /// The longest command, in bytes, even where the device and the kernel would accept more.
    pub max_command: Option<u64>,
    /// The timeout of a command, in whole milliseconds. When it expires, the driver resets the
    /// controller, for all users. `None`, the default: the timeout of the driver
    /// (`nvme_core.io_timeout`, 30 seconds unless changed).
    pub timeout: Option<Duration>,
    /// Whether the thread that waits for completions polls the controller for them instead of
    /// sleeping until an interrupt (`IOPOLL`). This has the lowest latency and keeps a processor
    /// busy while commands are in flight. Needs Linux 6.1 and a driver with queues for polling: the
    /// module parameter `poll_queues` of nvme. Off by default.
    pub completion_polling: bool,
    /// Whether to open a namespace whose block device cannot be held, because there is none or its
    /// node is missing, as in a container. Then nothing prevents that it is mounted in the
    /// meantime. A block device that another process holds is refused all the same. Off by default.
    pub force: bool,
}

impl NvmeOptions {
    /// Default options: the whole namespace, with the limits and the timeout of its driver, and no
    /// polling.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            offset: 0,
            len: None,
            max_command: None,
            timeout: None,
            completion_polling: false,
            force: false,
        }
    }

    /// Sets the first byte of the namespace to use.
    #[must_use]
    pub const fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the number of bytes to use; `None`: all bytes to the end of the namespace.
    #[must_use]
    pub const fn len(mut self, len: Option<u64>) -> Self {
        self.len = len;
        self
    }

    /// Sets the longest command, in bytes; `None`: the limits of the device and the kernel.
    #[must_use]
    pub const fn max_command(mut self, max_command: Option<u64>) -> Self {
        self.max_command = max_command;
        self
    }

    /// Sets the timeout of a command; `None`: the timeout of the driver.
    #[must_use]
    pub const fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets whether the thread that waits for completions polls the controller for them.
    #[must_use]
    pub const fn completion_polling(mut self, completion_polling: bool) -> Self {
        self.completion_polling = completion_polling;
        self
    }

    /// Sets whether to open a namespace whose block device cannot be held.
    #[must_use]
    pub const fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

impl Default for NvmeOptions {
    fn default() -> Self {
        Self::new()
    }
}
