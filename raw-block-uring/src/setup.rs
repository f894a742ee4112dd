//! Making a ring: the best setup flags that the kernel grants, and clear words where it refuses.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{Builder, IoUring, opcode};
use raw_block_core::{Error, ErrorKind};

use crate::width::{RawRing, Standard, Width};

/// A setup flag of `io_uring_setup(2)`.
///
/// `COOP_TASKRUN` is left out: a completion then waits until the submitting thread enters the kernel, which
/// another thread that waits for it cannot bring about, and `DEFER_TASKRUN` does not need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// Linux 6.6: submission entries are taken in order, without an index array.
    NoSqarray,
    /// Linux 6.1: completions are taken in by the system call that waits for them, all at once, and the
    /// thread is woken only when there are as many as it waits for.
    DeferTaskrun,
    /// Linux 6.0: one thread uses the ring, all others are refused (`EEXIST`).
    SingleIssuer,
    /// Linux 5.18: an entry that fails does not stop those behind it.
    SubmitAll,
    /// Linux 5.6: a depth above the kernel's limit is lowered instead of refused.
    Clamp,
    /// A thread of the kernel looks for submissions.
    Sqpoll,
    /// Who waits for completions asks the device for them, instead of being interrupted.
    Iopoll,
}

impl Flag {
    /// Newest first, which is the order in which they are given up, but for the last two: those were asked
    /// for.
    const ALL: [Self; 7] = [
        Self::NoSqarray,
        Self::DeferTaskrun,
        Self::SingleIssuer,
        Self::SubmitAll,
        Self::Clamp,
        Self::Sqpoll,
        Self::Iopoll,
    ];

    /// Whether a ring for `usage` is better with it.
    fn suits(self, usage: Usage) -> bool {
        match self {
            Self::NoSqarray | Self::SubmitAll | Self::Clamp => true,
            // The kernel's thread does that work.
            Self::DeferTaskrun | Self::SingleIssuer => usage.local && usage.submissions.is_none(),
            Self::Sqpoll => usage.submissions.is_some(),
            Self::Iopoll => usage.completions,
        }
    }

    /// Whether it may be given up.
    fn is_wish(self) -> bool {
        !matches!(self, Self::Sqpoll | Self::Iopoll)
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
    /// Their names, as in `io_uring_setup(2)` without the prefix.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flag::ALL.into_iter().filter(move |flag| self.0 & flag.bit() != 0).map(Flag::name)
    }
}

impl GrantedFlags {
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
    /// By the thread that makes it and no other, or by one thread at a time.
    pub(crate) local: bool,
    /// The thread of the kernel that looks for submissions.
    pub(crate) submissions: Option<Polling>,
    /// Whether the device is asked for completions.
    pub(crate) completions: bool,
}

/// The kernel's thread that looks for submissions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polling {
    /// After how long without any it sleeps, in milliseconds.
    idle_ms: u32,
    /// The ring whose thread is to be used; otherwise there will be another one.
    of: Option<RawFd>,
}

impl Polling {
    /// A new thread, which sleeps when there was nothing to do for `idle`.
    pub(crate) fn start(idle: Duration) -> Result<Self, Error> {
        let rule = "the kernel counts the idle time of its polling thread in milliseconds, from 1 to \
                    4294967295: choose such a time";
        match u32::try_from(idle.as_millis()) {
            Ok(idle_ms @ 1..) => Ok(Self { idle_ms, of: None }),
            _ => Err(Error::new(ErrorKind::InvalidInput, SET_UP, rule)),
        }
    }

    /// The thread of the ring with this descriptor.
    pub(crate) fn joined(self, ring: RawFd) -> Self {
        Self { of: Some(ring), ..self }
    }
}

const SET_UP: &str = "set up io_uring";

/// Whether this process may use io_uring: makes a ring, registers with it, and carries out an operation that does
/// nothing. A seccomp profile may allow some of the system calls and refuse others.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when the kernel has no io_uring, [`ErrorKind::PermissionDenied`] when a
/// sysctl, a seccomp profile or a security module forbids it, [`ErrorKind::OutOfResources`] when
/// lockable memory or the limit of processes is used up. The text names the system call that was refused, and says what
/// to do.
pub fn probe() -> Result<(), Error> {
    try_out(&mut ring::<Standard>(1, Usage::default())?.0)
}

/// Calls what a ring is used through, each system call once. The ring is a new one.
pub(crate) fn try_out(ring: &mut IoUring) -> Result<(), Error> {
    // No file: it only reserves a place for one.
    let registered =
        ring.submitter().register_files(&[-1]).and_then(|()| ring.submitter().unregister_files());
    registered.map_err(|error| explain(error, "io_uring_register", Usage::default(), false))?;
    // SAFETY: an operation that does nothing names no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    debug_assert!(pushed.is_ok(), "a new ring has an entry");
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(explain(error, "io_uring_enter", Usage::default(), false));
        }
    }
    match ring.completion().next().map_or(-libc::EIO, |completion| completion.result()) {
        0.. => Ok(()),
        error => Err(Error::os(SET_UP, io::Error::from_raw_os_error(-error))),
    }
}

/// Makes a ring of `depth` submission entries and, as the kernel does it, twice as many completion
/// entries.
pub(crate) fn ring<W: Width>(
    depth: u32,
    usage: Usage,
) -> Result<(RawRing<W>, GrantedFlags), Error> {
    let mut flags: Vec<_> = Flag::ALL.into_iter().filter(|flag| flag.suits(usage)).collect();
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork();
        for flag in &flags {
            request::<W>(&mut builder, *flag, usage);
        }
        match builder.build(depth) {
            Ok(ring) => {
                let granted = flags.iter().fold(0, |bits, flag| bits | flag.bit());
                return Ok((ring, GrantedFlags(granted)));
            }
            Err(error) => {
                let wish = flags.iter().position(|flag| flag.is_wish());
                match wish.filter(|_| error.raw_os_error() == Some(libc::EINVAL)) {
                    Some(newest) => _ = flags.remove(newest),
                    None => return Err(explain(error, "io_uring_setup", usage, is_disabled())),
                }
            }
        }
    }
}

fn request<W: Width>(builder: &mut Builder<W::Entry, W::Completion>, flag: Flag, usage: Usage) {
    match (flag, usage.submissions) {
        (Flag::NoSqarray, _) => builder.setup_no_sqarray(),
        (Flag::DeferTaskrun, _) => builder.setup_defer_taskrun(),
        (Flag::SingleIssuer, _) => builder.setup_single_issuer(),
        (Flag::SubmitAll, _) => builder.setup_submit_all(),
        (Flag::Clamp, _) => builder.setup_clamp(),
        (Flag::Iopoll, _) => builder.setup_iopoll(),
        (Flag::Sqpoll, Some(Polling { idle_ms, of: Some(ring) })) => {
            builder.setup_sqpoll(idle_ms).setup_attach_wq(ring)
        }
        (Flag::Sqpoll, Some(Polling { idle_ms, of: None })) => builder.setup_sqpoll(idle_ms),
        (Flag::Sqpoll, None) => builder,
    };
}

/// Says why the kernel refuses `call`, and what to do about it.
/// `disabled` says whether the administrator switched io_uring off.
fn explain(error: io::Error, call: &str, usage: Usage, disabled: bool) -> Error {
    let (kind, advice) = match error.raw_os_error() {
        Some(libc::ENOSYS) => (
            ErrorKind::Unsupported,
            "this kernel has no io_uring, or a seccomp profile hides it: use the posix backend",
        ),
        Some(libc::EPERM) if disabled => (
            ErrorKind::PermissionDenied,
            "the sysctl kernel.io_uring_disabled forbids it: set it to 0, or use the posix backend",
        ),
        Some(libc::EPERM) if usage.submissions.is_some() && probe().is_ok() => (
            ErrorKind::PermissionDenied,
            "this kernel starts no polling thread for a process without CAP_SYS_NICE (before Linux 5.11 \
             CAP_SYS_ADMIN): grant it, or open the device without polling",
        ),
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::PermissionDenied,
            "a seccomp profile or security module forbids it, as containers do by default: allow \
             io_uring_setup, io_uring_enter and io_uring_register, or use the posix backend",
        ),
        Some(libc::ENOMEM) => (
            ErrorKind::OutOfResources,
            "there is no lockable memory left for the ring: raise RLIMIT_MEMLOCK, or open fewer queues",
        ),
        Some(libc::EAGAIN) => (
            ErrorKind::OutOfResources,
            "the kernel can start no thread for this user: raise the limit of processes (RLIMIT_NPROC, the pids \
             cgroup), or open the device without polling for submissions",
        ),
        _ => return Error::os(SET_UP, error).with_rule(format!("{call} failed")),
    };
    Error::new(kind, SET_UP, format!("{call} is refused: {advice}")).with_source(error)
}

/// Whether the administrator switched io_uring off: 1 for processes without the right group, 2 for all
/// (Linux 6.6, `Documentation/admin-guide/sysctl/kernel.rst`).
fn is_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, disabled: bool) -> Error {
        explain(io::Error::from_raw_os_error(errno), "io_uring_setup", Usage::default(), disabled)
    }

    #[test]
    fn the_ways_in_which_io_uring_is_refused_are_told_apart() {
        for (errno, disabled, kind, words) in [
            (libc::ENOSYS, false, ErrorKind::Unsupported, "has no io_uring"),
            (libc::EPERM, true, ErrorKind::PermissionDenied, "kernel.io_uring_disabled"),
            (libc::EPERM, false, ErrorKind::PermissionDenied, "seccomp"),
            (libc::ENOMEM, false, ErrorKind::OutOfResources, "RLIMIT_MEMLOCK"),
            (libc::EAGAIN, false, ErrorKind::OutOfResources, "RLIMIT_NPROC"),
        ] {
            let error = explained(errno, disabled);
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(!explained(libc::EPERM, true).to_string().contains("seccomp"));
    }
}
