//! The setup flags of a ring.

use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::Builder;
use raw_block_core::{Error, ErrorKind};

use crate::ring::width::Width;

/// What errors name as the action that failed.
pub(crate) const SET_UP: &str = "set up io_uring";

/// A setup flag of `io_uring_setup(2)`.
///
/// `COOP_TASKRUN` is not among them: with it, a completion waits until the submitting thread enters
/// the kernel, and another thread that waits for the completion cannot make it do so.
/// `DEFER_TASKRUN` does not need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// Linux 6.6: the kernel takes submission entries in order, without an index array.
    NoSqarray,
    /// Linux 6.1: the system call that waits for completions reaps all of them at once. The thread
    /// is woken only when the requested number has arrived.
    DeferTaskrun,
    /// Linux 6.0: one thread uses the ring; the kernel refuses all others (`EEXIST`).
    SingleIssuer,
    /// Linux 5.18: an entry that fails does not stop the entries after it.
    SubmitAll,
    /// Linux 5.6: a depth above the kernel's limit is lowered instead of refused.
    Clamp,
    /// A kernel thread polls for submissions.
    Sqpoll,
    /// The thread that waits for completions polls the device for them.
    Iopoll,
}

impl Flag {
    /// In the order in which they are dropped when the kernel refuses them, newest first. The last
    /// two are never dropped, because the caller asked for them.
    pub(crate) const ALL: [Self; 7] = [
        Self::NoSqarray,
        Self::DeferTaskrun,
        Self::SingleIssuer,
        Self::SubmitAll,
        Self::Clamp,
        Self::Sqpoll,
        Self::Iopoll,
    ];

    /// Whether a ring for `usage` has this flag, if the kernel grants it.
    pub(crate) fn suits(self, usage: Usage) -> bool {
        match self {
            Self::NoSqarray | Self::SubmitAll | Self::Clamp => true,
            // The polling thread submits and completes, so these two do not help it.
            Self::DeferTaskrun | Self::SingleIssuer => {
                usage.local && usage.submission_polling.is_none()
            }
            Self::Sqpoll => usage.submission_polling.is_some(),
            Self::Iopoll => usage.completion_polling,
        }
    }

    /// Whether the ring works without it.
    pub(crate) fn is_optional(self) -> bool {
        !matches!(self, Self::Sqpoll | Self::Iopoll)
    }

    /// Sets the flag on a ring that is about to be made.
    pub(crate) fn set<W: Width>(
        self,
        builder: &mut Builder<W::Entry, W::Completion>,
        usage: Usage,
    ) {
        match (self, usage.submission_polling) {
            (Self::NoSqarray, _) => builder.setup_no_sqarray(),
            (Self::DeferTaskrun, _) => builder.setup_defer_taskrun(),
            (Self::SingleIssuer, _) => builder.setup_single_issuer(),
            (Self::SubmitAll, _) => builder.setup_submit_all(),
            (Self::Clamp, _) => builder.setup_clamp(),
            (Self::Iopoll, _) => builder.setup_iopoll(),
            (Self::Sqpoll, Some(SubmissionPolling { idle_ms, thread_of: Some(ring) })) => {
                builder.setup_sqpoll(idle_ms).setup_attach_wq(ring)
            }
            (Self::Sqpoll, Some(SubmissionPolling { idle_ms, thread_of: None })) => {
                builder.setup_sqpoll(idle_ms)
            }
            (Self::Sqpoll, None) => builder,
        };
    }

    const fn name(self) -> &'static str {
        match self {
            Self::NoSqarray => "NO_SQARRAY",
            Self::DeferTaskrun => "DEFER_TASKRUN",
            Self::SingleIssuer => "SINGLE_ISSUER",
            Self::SubmitAll => "SUBMIT_ALL",
            Self::Clamp => "CLAMP",
            Self::Sqpoll => "SQPOLL",
            Self::Iopoll => "IOPOLL",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The setup flags that the kernel granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GrantedFlags(u8);

impl GrantedFlags {
    pub(crate) fn new(flags: &[Flag]) -> Self {
        Self(flags.iter().fold(0, |bits, flag| bits | flag.bit()))
    }

    /// Their names, as in `io_uring_setup(2)` without the prefix.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flag::ALL.into_iter().filter(move |flag| self.0 & flag.bit() != 0).map(Flag::name)
    }

    /// Whether only the thread that made the ring may use it.
    pub(crate) fn is_local(self) -> bool {
        self.0 & Flag::SingleIssuer.bit() != 0
    }
}

impl fmt::Debug for GrantedFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// How a ring is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Whether only the thread that makes the ring uses it; otherwise one thread at a time does.
    pub(crate) local: bool,
    /// The kernel thread that polls for submissions.
    pub(crate) submission_polling: Option<SubmissionPolling>,
    /// Whether the thread that waits for completions polls the device for them.
    pub(crate) completion_polling: bool,
}

/// A kernel thread that polls for submissions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubmissionPolling {
    /// The idle time after which it sleeps, in milliseconds.
    idle_ms: u32,
    /// The ring whose thread is used; `None`: a new thread.
    thread_of: Option<RawFd>,
}

impl SubmissionPolling {
    /// A new thread, which sleeps after the idle time `idle`.
    pub(crate) fn new_thread(idle: Duration) -> Result<Self, Error> {
        let rule = "the idle time of the kernel's polling thread is 1 to 4294967295 milliseconds: \
                    choose a time in that range";
        match u32::try_from(idle.as_millis()) {
            Ok(idle_ms @ 1..) => Ok(Self { idle_ms, thread_of: None }),
            _ => Err(Error::new(ErrorKind::InvalidInput, SET_UP, rule)),
        }
    }

    /// The thread of the ring with this descriptor.
    pub(crate) fn thread_of(self, ring: RawFd) -> Self {
        Self { thread_of: Some(ring), ..self }
    }
}
