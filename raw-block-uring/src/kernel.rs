//! The seam between a ring and the kernel.

use std::io;
use std::time::{Duration, Instant};

use io_uring::types;

use crate::width::{RawRing, Width};

// Flags of `io_uring_enter(2)`, from `linux/io_uring.h`.
const GETEVENTS: u32 = 1;
const SQ_WAKEUP: u32 = 1 << 1;
const SQ_WAIT: u32 = 1 << 2;
const EXT_ARG: u32 = 1 << 3;

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
/// Every system call that moves I/O, every result and the space in the submission queue pass here. A ring is generic over it, so that
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

    /// How many entries the submission queue has space for, as the ring is to see it; `free` in truth.
    fn free_entries(&mut self, free: usize) -> usize;

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

    fn free_entries(&mut self, free: usize) -> usize {
        free
    }

    fn result(&mut self, result: i32) -> i32 {
        result
    }
}

/// `io_uring_enter(2)`. May wake the kernel's polling thread, and may wait until that has freed an entry of
/// the submission queue.
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
        // SAFETY: the entries in the submission queue are valid (the contract of `Ring::push`), and there is
        // no argument to point to.
        return unsafe { raw.submitter().enter::<libc::sigset_t>(to_submit, want, flags, None) };
    };
    let left = types::Timespec::from(deadline.saturating_duration_since(Instant::now()));
    let arguments = types::SubmitArgs::new().timespec(&left);
    // SAFETY: as above; the argument is what `EXT_ARG` says it is, and outlives the call.
    unsafe { raw.submitter().enter(to_submit, want, flags | EXT_ARG, Some(&arguments)) }
}
