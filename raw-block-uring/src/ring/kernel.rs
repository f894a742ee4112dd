//! The system call of a ring, replaceable in tests.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types;

use crate::ring::width::{RawRing, Width};

// Flags of `io_uring_enter(2)`, from `linux/io_uring.h`.
const GETEVENTS: u32 = 1;
const SQ_WAKEUP: u32 = 1 << 1;
const SQ_WAIT: u32 = 1 << 2;
const EXT_ARG: u32 = 1 << 3;

/// The arguments of one `io_uring_enter(2)`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Enter {
    /// The number of entries to take from the submission queue.
    pub to_submit: u32,
    /// The number of completions to wait for.
    pub want: u32,
    /// When to stop waiting.
    pub deadline: Option<Instant>,
}

/// The kernel as a ring sees it: [`Linux`] in production, a script of failures in tests.
///
/// Each system call that moves I/O, each result, and the space in the submission queue pass through
/// it. A ring is generic over it, so that [`Linux`] costs nothing.
///
/// # Examples
/// A kernel whose first system call is interrupted:
/// ```
/// use std::io;
/// use std::time::Duration;
/// use raw_block_uring::ring::{Enter, Kernel};
///
/// struct Interrupted(bool);
///
/// impl Kernel for Interrupted {
///     const PAUSE: Duration = Duration::ZERO;
///
///     fn enter(
///         &mut self,
///         enter: Enter,
///         call: impl FnOnce(Enter) -> io::Result<usize>,
///     ) -> io::Result<usize> {
///         if std::mem::take(&mut self.0) {
///             return Err(io::ErrorKind::Interrupted.into());
///         }
///         call(enter)
///     }
///
///     fn free_entries(&mut self, free: usize) -> usize {
///         free
///     }
///
///     fn result(&mut self, result: i32) -> i32 {
///         result
///     }
/// }
/// ```
pub trait Kernel: Send {
    /// The pause before the ring repeats a system call that failed for lack of memory.
    const PAUSE: Duration;

    /// Makes the system call through `call`, or fails instead.
    ///
    /// # Errors
    /// Those of `io_uring_enter(2)`.
    fn enter(
        &mut self,
        enter: Enter,
        call: impl FnOnce(Enter) -> io::Result<usize>,
    ) -> io::Result<usize>;

    /// The number of free entries that the ring sees in the submission queue; `free` is the true
    /// number.
    fn free_entries(&mut self, free: usize) -> usize;

    /// The result that the ring sees in a completion; `result` is the true one.
    fn result(&mut self, result: i32) -> i32;
}

/// The real kernel.
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

    fn free_entries(&mut self, free: usize) -> usize {
        free
    }

    fn result(&mut self, result: i32) -> i32 {
        result
    }
}

/// Calls `io_uring_enter(2)`. `wake`: wakes the kernel's polling thread. `wait_for_space`: waits
/// until that thread has freed an entry of the submission queue.
pub(crate) fn system_call<W: Width>(
    raw: &RawRing<W>,
    enter: Enter,
    wake: bool,
    wait_for_space: bool,
) -> io::Result<usize> {
    let wake = if wake { SQ_WAKEUP } else { 0 };
    let wait_for_space = if wait_for_space { SQ_WAIT } else { 0 };
    let flags = GETEVENTS | wake | wait_for_space;
    let Enter { to_submit, want, deadline } = enter;
    let Some(deadline) = deadline else {
        // SAFETY: the entries in the submission queue are valid (the contract of `Ring::push`), and
        // the call has no argument in memory.
        return unsafe { raw.submitter().enter::<libc::sigset_t>(to_submit, want, flags, None) };
    };
    let left = types::Timespec::from(deadline.saturating_duration_since(Instant::now()));
    let arguments = types::SubmitArgs::new().timespec(&left);
    // SAFETY: as above; the argument has the type that `EXT_ARG` requires, and outlives the call.
    unsafe { raw.submitter().enter(to_submit, want, flags | EXT_ARG, Some(&arguments)) }
}
