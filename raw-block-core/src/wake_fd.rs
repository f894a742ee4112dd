//! A descriptor that a waker makes readable.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::Error;

/// A descriptor for event loops (`epoll(7)`), which becomes readable when one of its wakers is
/// used.
///
/// One of these serves any number of [tickets](crate::Ticket) and other futures: poll them with
/// [`waker`](Self::waker). When the descriptor is readable, call [`clear`](Self::clear), and then
/// poll the futures again.
///
/// # Examples
/// ```
/// use std::os::fd::AsFd;
/// use std::pin::Pin;
/// use std::sync::Arc;
/// use std::task::{Context, Poll};
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use raw_block_core::{AlignedBuf, Dispatcher, MemoryBackend, OwnedTransfer, WakeFd};
///
/// let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let batch = vec![OwnedTransfer::new(0, AlignedBuf::zeroed(4096)?)];
/// let mut ticket = device.batched_read(batch).map_err(|refused| refused.error)?;
/// let event = WakeFd::new()?;
/// let waker = event.waker();
/// let finished = loop {
///     let polled = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
///     if let Poll::Ready(finished) = polled {
///         break finished;
///     }
///     poll(&mut [PollFd::new(event.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
///     event.clear();
/// };
/// assert!(finished[0].result.is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WakeFd {
    event: Arc<Event>,
}

#[derive(Debug)]
struct Event(EventFd);

impl WakeFd {
    /// A descriptor that is not readable.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfResources`](crate::ErrorKind::OutOfResources) when the process has no
    /// descriptor left.
    pub fn new() -> Result<Self, Error> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags)
            .map_err(|error| Error::os("make a descriptor for an event loop", error.into()))?;
        Ok(Self { event: Arc::new(Event(event)) })
    }

    /// A waker that makes the descriptor readable. It may be used at any time, also when this was
    /// dropped.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.event))
    }

    /// Makes the descriptor unreadable until the next wake. Returns whether it was readable.
    pub fn clear(&self) -> bool {
        self.event.0.read().is_ok()
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.0.as_fd()
    }
}

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        // Fails only at the maximum of the counter, and then it is readable.
        let _ = self.0.write(1);
    }
}
