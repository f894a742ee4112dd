//! Making a ring: the best setup flags that the kernel grants, and clear words where it refuses.

use std::fmt;
use std::fs;
use std::io;

use io_uring::{Builder, IoUring, cqueue, squeue};
use raw_block_core::{Error, ErrorKind};

/// A setup flag: its name, and the call that asks for it.
type Flag = (&'static str, fn(&mut Builder<squeue::Entry, cqueue::Entry>));

/// Flags that make a ring better but not different, newest first, which is the order in which they are
/// given up. All of them allow a ring that is lent from thread to thread; `SINGLE_ISSUER` and
/// `DEFER_TASKRUN` do not, so they are not here.
const FLAGS: [Flag; 4] = [
    // Linux 6.6: submission entries are taken in order, without an index array.
    ("NO_SQARRAY", |builder| _ = builder.setup_no_sqarray()),
    // Linux 5.19: completions do not interrupt the thread; a flag in the ring tells that some are due.
    ("COOP_TASKRUN", |builder| _ = builder.setup_coop_taskrun().setup_taskrun_flag()),
    // Linux 5.18: an entry that fails does not stop those behind it.
    ("SUBMIT_ALL", |builder| _ = builder.setup_submit_all()),
    // Linux 5.6: a depth above the kernel's limit is lowered instead of refused.
    ("CLAMP", |builder| _ = builder.setup_clamp()),
];

/// The setup flags that the kernel granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GrantedFlags {
    /// How many of `FLAGS` it refused.
    refused: usize,
}

impl GrantedFlags {
    /// Their names, as in `io_uring_setup(2)` without the prefix.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAGS[self.refused..].iter().map(|(name, _)| *name)
    }
}

impl fmt::Debug for GrantedFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Whether this process may use io_uring: makes a ring and lets it go.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when the kernel has no io_uring, [`ErrorKind::PermissionDenied`] when a
/// sysctl, a seccomp profile or a security module forbids it, [`ErrorKind::OutOfResources`] when
/// lockable memory is used up. The text tells which, and what to do.
pub fn probe() -> Result<(), Error> {
    ring(1).map(drop)
}

/// Makes a ring of `depth` submission entries and, as the kernel does it, twice as many completion
/// entries.
pub(crate) fn ring(depth: u32) -> Result<(IoUring, GrantedFlags), Error> {
    let mut refused = 0;
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork();
        for (_, set) in &FLAGS[refused..] {
            set(&mut builder);
        }
        match builder.build(depth) {
            Ok(ring) => return Ok((ring, GrantedFlags { refused })),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && refused < FLAGS.len() => {
                refused += 1;
            }
            Err(error) => return Err(explain(error)),
        }
    }
}

/// Tells apart the ways in which io_uring is refused, and what to do about each.
fn explain(error: io::Error) -> Error {
    const ACTION: &str = "set up io_uring";
    let (kind, advice) = match error.raw_os_error() {
        Some(libc::ENOSYS) => (
            ErrorKind::Unsupported,
            "this kernel has no io_uring, or a seccomp profile hides it: use the posix backend",
        ),
        Some(libc::EPERM) if is_disabled() => (
            ErrorKind::PermissionDenied,
            "the sysctl kernel.io_uring_disabled forbids it: set it to 0, or use the posix backend",
        ),
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::PermissionDenied,
            "a seccomp profile or security module forbids it, as containers do by default: allow the \
             io_uring system calls, or use the posix backend",
        ),
        Some(libc::ENOMEM) => (
            ErrorKind::OutOfResources,
            "there is no lockable memory left for the ring: raise RLIMIT_MEMLOCK, or open fewer queues",
        ),
        _ => return Error::os(ACTION, error),
    };
    Error::new(kind, ACTION, advice).caused_by(error)
}

/// Whether the administrator switched io_uring off: 1 for processes without the right group, 2 for all
/// (Linux 6.6, `Documentation/admin-guide/sysctl/kernel.rst`).
fn is_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0")
}
