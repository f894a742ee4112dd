//! Making a ring with the best setup flags that the kernel grants, and explaining refusals.

use std::fs;
use std::io;

use io_uring::{IoUring, opcode};
use raw_block_core::{Error, ErrorKind};

use crate::ring::flags::{Flag, GrantedFlags, SET_UP, Usage};
use crate::ring::width::{RawRing, Standard, Width};

/// Checks whether this process may use io_uring.
///
/// It makes a ring, registers with it, and executes an operation that does nothing, because a
/// seccomp profile may allow some of the system calls and refuse others.
///
/// # Errors
/// - [`ErrorKind::Unsupported`]: the kernel has no io_uring.
/// - [`ErrorKind::PermissionDenied`]: a sysctl, a seccomp profile or a security module forbids it.
/// - [`ErrorKind::OutOfResources`]: lockable memory or the limit of processes is used up.
///
/// The message names the system call that was refused, and what to do.
///
/// # Examples
/// ```
/// match raw_block_uring::probe() {
///     Ok(()) => println!("io_uring is available"),
///     Err(error) => println!("use the posix backend: {error}"),
/// }
/// ```
pub fn probe() -> Result<(), Error> {
    try_out(&mut ring::<Standard>(1, Usage::default())?.0)
}

/// Makes each system call that a ring needs once, with a new ring.
pub(crate) fn try_out(ring: &mut IoUring) -> Result<(), Error> {
    // -1 reserves a place in the table without a file.
    let registered =
        ring.submitter().register_files(&[-1]).and_then(|()| ring.submitter().unregister_files());
    registered.map_err(|error| explain(error, "io_uring_register", Usage::default(), false))?;
    // SAFETY: a no-op names no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    debug_assert!(pushed.is_ok(), "a new ring has a free entry");
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

/// Makes a ring of `depth` submission entries. The kernel makes twice as many completion entries.
pub(crate) fn ring<W: Width>(
    depth: u32,
    usage: Usage,
) -> Result<(RawRing<W>, GrantedFlags), Error> {
    let mut flags: Vec<_> = Flag::ALL.into_iter().filter(|flag| flag.suits(usage)).collect();
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork();
        for flag in &flags {
            flag.set::<W>(&mut builder, usage);
        }
        match builder.build(depth) {
            Ok(ring) => return Ok((ring, GrantedFlags::new(&flags))),
            Err(error) => {
                let optional = flags.iter().position(|flag| flag.is_optional());
                match optional.filter(|_| error.raw_os_error() == Some(libc::EINVAL)) {
                    Some(newest) => _ = flags.remove(newest),
                    None => return Err(explain(error, "io_uring_setup", usage, is_disabled())),
                }
            }
        }
    }
}

/// Explains why the kernel refuses `call`, and what to do about it. `disabled`: whether the
/// administrator disabled io_uring.
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
        Some(libc::EPERM) if usage.submission_polling.is_some() && probe().is_ok() => (
            ErrorKind::PermissionDenied,
            "a process without CAP_SYS_NICE (before Linux 5.11 CAP_SYS_ADMIN) gets no polling thread: grant it, or \
             open the device without polling for submissions",
        ),
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::PermissionDenied,
            "a seccomp profile or security module forbids it, as containers do by default: allow \
             io_uring_setup, io_uring_enter and io_uring_register, or use the posix backend",
        ),
        Some(libc::ENOMEM) => (
            ErrorKind::OutOfResources,
            "no lockable memory is left for the ring: raise RLIMIT_MEMLOCK, or open fewer queues",
        ),
        Some(libc::EAGAIN) => (
            ErrorKind::OutOfResources,
            "the kernel cannot start a thread for this user: raise the limit of processes (RLIMIT_NPROC, the pids \
             cgroup), or open the device without polling for submissions",
        ),
        _ => return Error::os(SET_UP, error).with_rule(format!("{call} failed")),
    };
    Error::new(kind, SET_UP, format!("{call} was refused: {advice}")).with_source(error)
}

/// Whether the administrator disabled io_uring: 1 for processes outside the group, 2 for all (Linux
/// 6.6, `Documentation/admin-guide/sysctl/kernel.rst`).
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
    fn each_refusal_of_io_uring_has_its_kind_and_advice() {
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
