//! How another thread ends the wait of a ring.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The user data of the entry that polls for wakes. No slot has this index.
pub(crate) const WAKE_SLOT: u32 = u32::MAX;

/// A request to end a wait. Any thread makes it; the ring takes it.
///
/// `requested` is authoritative. The descriptor only ends the system call of the ring.
///
/// **Invariant:** while a request is not taken, the descriptor is readable, or the thread that made
/// the request is about to make it readable. So a ring that polls the descriptor misses no request.
#[derive(Debug)]
struct WakeRequest {
    requested: AtomicBool,
    event: EventFd,
}

impl Wake for WakeRequest {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.requested.swap(true, Ordering::AcqRel) {
            // Fails only at the maximum of the counter. Each request adds 1, and the ring resets
            // the counter before it accepts another request.
            let _ = self.event.write(1);
        }
    }
}

/// The side of the ring: takes requests, and makes the entry that polls for them.
#[derive(Debug)]
pub(crate) struct WakePoll {
    request: Arc<WakeRequest>,
    /// Whether an entry in the ring polls the descriptor.
    armed: bool,
    /// Whether that entry has completed since the descriptor was last reset.
    fired: bool,
}

impl WakePoll {
    pub(crate) fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let request = WakeRequest { requested: AtomicBool::new(false), event };
        Ok(Self { request: Arc::new(request), armed: false, fired: false })
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.request))
    }

    /// Takes the request, if there is one.
    pub(crate) fn take(&mut self) -> bool {
        if !std::mem::take(&mut self.fired) && !self.request.requested.load(Ordering::Acquire) {
            return false;
        }
        // In this order: a request made between the two lines is taken by the second one. In the
        // other order, the reset could hide it.
        let _ = self.request.event.read();
        self.request.requested.swap(false, Ordering::AcqRel)
    }

    /// The entry that completes when there is a request, unless the ring has one already.
    pub(crate) fn arm(&mut self) -> Option<Entry> {
        if std::mem::replace(&mut self.armed, true) {
            return None;
        }
        let descriptor = types::Fd(self.request.event.as_fd().as_raw_fd());
        Some(opcode::PollAdd::new(descriptor, libc::POLLIN as u32).build())
    }

    /// Records that the entry has completed.
    pub(crate) fn note_fired(&mut self) {
        self.armed = false;
        self.fired = true;
    }

    /// Sleeps until this moment, or until there is a request.
    pub(crate) fn sleep_until(&self, end: Instant) {
        // The timeout has whole milliseconds. A fraction must not become a wait of 0.
        let left = end.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // If it fails or is interrupted, the caller looks at the clock and calls again.
        let _ = poll(&mut [PollFd::new(self.request.event.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_before_one_is_taken_count_once() {
        let mut wake = WakePoll::new().unwrap();
        let wakers = [wake.waker(), wake.waker().clone()];
        assert!(!wake.take());
        wakers.iter().for_each(Waker::wake_by_ref);
        assert!(wake.take());
        assert!(!wake.take());
        assert!(wake.request.event.read().is_err(), "the descriptor is not readable any more");
    }

    #[test]
    fn a_late_signal_of_a_taken_request_is_reset() {
        let mut wake = WakePoll::new().unwrap();
        // As if the thread that made the request were late.
        wake.request.event.write(1).unwrap();
        assert!(wake.arm().is_some() && wake.arm().is_none());
        wake.note_fired();
        assert!(!wake.take());
        assert!(wake.request.event.read().is_err(), "it would end each wait");
        assert!(wake.arm().is_some());
    }

    #[test]
    fn a_request_ends_a_sleep() {
        let wake = WakePoll::new().unwrap();
        wake.waker().wake();
        wake.sleep_until(Instant::now() + Duration::from_secs(3600));
    }
}
