//! The number of the calling process, which distinguishes a forked child from its parent.
//!
//! Not an interface of this crate: it is here for the crates of this workspace. Every batch asks
//! for the number, and `getpid` is a system call.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The number of this process, 0 until it is known. Private memory that the kernel clears in a
/// forked child.
struct Cache(NonNull<AtomicU32>);

// SAFETY: it points to an atomic, which any thread may use, in memory that is never unmapped.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

/// Returns the number of the calling process.
///
/// It is kept in a page that the kernel clears in a forked child (`MADV_WIPEONFORK`, Linux 4.14).
/// Where that fails, every call asks the kernel.
#[must_use]
pub fn id() -> u32 {
    static CACHE: OnceLock<Option<Cache>> = OnceLock::new();
    let Some(Cache(number)) = CACHE.get_or_init(Cache::map) else { return std::process::id() };
    // SAFETY: the page is mapped, never unmapped, and was cleared, which is a valid value.
    let number = unsafe { number.as_ref() };
    match number.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            number.store(id, Ordering::Relaxed);
            id
        }
        id => id,
    }
}

impl Cache {
    fn map() -> Option<Self> {
        let len = NonZeroUsize::new(size_of::<AtomicU32>())?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so the new mapping replaces nothing.
        let page = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }.ok()?;
        // SAFETY: the page is this mapping's own, and the advice changes nothing in this process.
        let advised = unsafe { madvise(page, len.get(), MmapAdvise::MADV_WIPEONFORK) };
        if advised.is_err() {
            // SAFETY: the page is this mapping's own, and nothing points into it.
            let _ = unsafe { munmap(page, len.get()) };
            return None;
        }
        Some(Self(page.cast()))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_forked_child_has_another_number() {
        let parent = id();
        assert_eq!(parent, std::process::id());
        // SAFETY: the child calls only what is async-signal-safe: it loads and stores a number, and
        // exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let differs = id() != parent && id() == std::process::id();
                // SAFETY: it ends the child without running anything of this process.
                unsafe { libc::_exit(i32::from(!differs)) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
                assert_eq!(id(), parent);
            }
        }
    }
}
