//! The seam between a ring and the kernel.

use std::io;
use std::time::{Duration, Instant};

/// One `io_uring_enter`, as a ring asks for it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Enter {
    /// How many entries the kernel is to take from the submission queue.
    pub to_submit: u32,
    /// How many completions to wait for.
    pub want: u32,
    /// Until when to wait.
    pub deadline: Option<Instant>,
}

/// What stands between a ring and the kernel: nothing in production, a script of failures in tests.
///
/// Every system call that moves I/O and every result passes here. A ring is generic over it, so that
/// [`Linux`] costs nothing.
pub trait Kernel: Send {
    /// The pause before a system call is repeated that failed for want of memory.
    const PAUSE: Duration;

    /// Makes the system call, by `call`, or fails in its place.
    ///
    /// # Errors
    /// Those of `io_uring_enter(2)`.
    fn enter(
        &mut self,
        enter: Enter,
        call: impl FnOnce(Enter) -> io::Result<usize>,
    ) -> io::Result<usize>;

    /// The result of a completion, as the ring is to see it.
    fn result(&mut self, result: i32) -> i32;
}

/// The kernel as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Kernel for Linux {
    const PAUSE: Duration = Duration::from_millis(1);

    fn enter(
        &mut self,
        enter: Enter,
        call: impl FnOnce(Enter) -> io::Result<usize>,
    ) -> io::Result<usize> {
        call(enter)
    }

    fn result(&mut self, result: i32) -> i32 {
        result
    }
}
