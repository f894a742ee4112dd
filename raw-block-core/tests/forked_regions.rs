//! A region in a forked child. Alone in its file, because a process should fork while no other
//! thread holds a lock.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use raw_block_core::{ErrorKind, Region};

/// An owner that counts its drops.
struct Owner(#[expect(dead_code, reason = "it keeps the memory")] Vec<u8>, Arc<AtomicUsize>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_forked_child_leases_nothing_and_drops_no_owner() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut memory = vec![0; 4096];
    let (start, len) = (NonNull::from(&mut memory[..]).cast(), memory.len());
    let owner = Owner(memory, Arc::clone(&dropped));
    // SAFETY: the vector keeps the memory until it is dropped, and nothing else accesses it.
    let region = unsafe { Region::new(start, len, owner) }.unwrap();
    let lease = region.lease(..100).unwrap();
    // SAFETY: the child takes no lock, and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = region.lease(200..300).map_err(|error| error.kind());
            let refused = matches!(refused, Err(ErrorKind::Forked)) && region.leases() == 0;
            drop((lease, region));
            let kept = dropped.load(Ordering::Relaxed) == 0;
            // SAFETY: it ends the child without running anything of this process.
            unsafe { libc::_exit(i32::from(!(refused && kept))) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
    assert_eq!(region.leases(), 1);
    drop((lease, region));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}
