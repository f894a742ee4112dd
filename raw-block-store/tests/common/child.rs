//! Forked children.

use std::panic::{UnwindSafe, catch_unwind};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};
use raw_block_core::ErrorKind;
use raw_block_store::Error;

/// Runs a child, and asserts that `child` returns true there. The calling test is the only one of
/// its process, and the other threads of the process sleep.
pub(crate) fn in_a_child(child: impl FnOnce() -> bool + UnwindSafe) {
    // SAFETY: the child runs only code that uses no lock which another thread of this process may
    // hold: the other threads of this process sleep.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // A child that waits for a thread of its parent waits forever.
            alarm::set(60);
            std::process::exit(i32::from(!catch_unwind(child).unwrap_or(false)));
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

/// Whether a call was refused because this is a forked child.
pub(crate) fn is_forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Device { error, .. }) if error.kind() == ErrorKind::Forked)
}
