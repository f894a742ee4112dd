//! Memory that keeps its pages, for backends to register.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::Error;

/// Ranges of memory whose pages stay the same while this exists, for a backend to register: the
/// memory of a [`BufferPool`](crate::BufferPool) or of a [`Region`](crate::Region), or the caller's
/// own.
///
/// The memory of a pool of 64 KiB or more is in whole huge pages of 2 MiB where the system grants
/// them. The memory of no pool is inherited by forked children (`MADV_DONTFORK`): a child that
/// accesses a buffer of a pool, other than to drop it, is killed by a signal.
#[derive(Debug)]
pub struct Arena {
    ranges: Vec<(NonNull<u8>, usize)>,
    _keeper: Keeper,
}

/// The owner of memory that an arena names: while it exists, the memory keeps its pages.
pub(super) trait Owner: fmt::Debug + Send + Sync + UnwindSafe + RefUnwindSafe {}

/// What keeps the memory valid while the arena exists.
#[derive(Debug)]
enum Keeper {
    /// The arena's own mapping.
    Mapping(#[expect(dead_code, reason = "held for its drop, which unmaps it")] Mapping),
    /// The owner of the memory.
    Owner(#[expect(dead_code, reason = "held for its drop")] Arc<dyn Owner>),
    /// The caller.
    Caller,
}

// SAFETY: the addresses are valid from any thread, and the arena itself never accesses the bytes.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `len` zeroed bytes.
    pub(super) fn map(len: NonZeroUsize) -> Result<Self, Error> {
        let mapping = Mapping::new(len)?;
        let ranges = vec![(mapping.start, len.get())];
        Ok(Self { ranges, _keeper: Keeper::Mapping(mapping) })
    }

    /// The arena over memory of the caller, which it does not own.
    pub(super) fn borrowed(ranges: &[(NonNull<u8>, usize)]) -> Self {
        Self { ranges: ranges.to_vec(), _keeper: Keeper::Caller }
    }

    /// The arena over memory that `owner` keeps.
    pub(super) fn of(ranges: &[(NonNull<u8>, usize)], owner: Arc<dyn Owner>) -> Self {
        Self { ranges: ranges.to_vec(), _keeper: Keeper::Owner(owner) }
    }

    /// The ranges: an address and a number of bytes each.
    #[must_use]
    pub fn ranges(&self) -> &[(NonNull<u8>, usize)] {
        &self.ranges
    }

    /// The first address.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.ranges.first().map_or(NonNull::dangling(), |&(start, _)| start)
    }
}

/// The length in bytes of a huge page, and what one starts at a multiple of: on x86-64, and on ARM
/// with pages of 4 KiB (`Documentation/admin-guide/mm/transhuge.rst`).
const HUGE_PAGE: usize = 2 << 20;
/// From this length in bytes on, an arena is whole huge pages. The memory of a smaller one is not
/// worth one.
const HUGE_FROM: usize = 64 << 10;

/// An anonymous mapping of an arena.
#[derive(Debug)]
struct Mapping {
    /// What was mapped.
    base: NonNull<u8>,
    mapped: NonZeroUsize,
    /// Where the arena begins in it: at a huge page, if it is long enough for that.
    start: NonNull<u8>,
    /// The process that mapped it: in a forked child something else may have these addresses.
    process: u32,
}

impl Mapping {
    fn new(len: NonZeroUsize) -> Result<Self, Error> {
        let failed = |errno: nix::Error| {
            Error::os("map an arena", errno.into())
                .with_rule(format!("the system gives no {len} bytes"))
        };
        // Addresses cost nothing: there are enough of them to begin and to end with a whole huge
        // page.
        let mapped = if len.get() >= HUGE_FROM {
            let whole = len.get().checked_next_multiple_of(HUGE_PAGE);
            whole.and_then(|whole| NonZeroUsize::new(whole.checked_add(HUGE_PAGE)?))
        } else {
            Some(len)
        };
        let mapped = mapped.ok_or_else(|| failed(nix::Error::ENOMEM))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so the new mapping replaces nothing.
        let base = unsafe { mmap_anonymous(None, mapped, protection, MapFlags::MAP_PRIVATE) };
        let base: NonNull<u8> = base.map_err(failed)?.cast();
        let skipped = if mapped > len { base.align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: less than a huge page is skipped, and the mapping has one more than the arena
        // needs.
        let start = unsafe { base.add(skipped) };
        let mapping = Self { base, mapped, start, process: std::process::id() };
        // Huge pages are optional: a kernel without them still serves the arena.
        let _ = mapping.advise(MmapAdvise::MADV_HUGEPAGE);
        mapping.advise(MmapAdvise::MADV_DONTFORK).map_err(failed)?;
        Ok(mapping)
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is this mapping's own, and the two kinds of advice that are given here
        // change neither its contents nor its addresses in this process.
        unsafe { madvise(self.base.cast(), self.mapped.get(), advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            return;
        }
        // SAFETY: this process has the mapping, it is the arena's own, and everything that points
        // into it holds a reference to the arena.
        let unmapped = unsafe { munmap(self.base.cast(), self.mapped.get()) };
        debug_assert!(unmapped.is_ok());
    }
}
