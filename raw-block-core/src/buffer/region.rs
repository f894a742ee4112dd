//! Memory of another owner, and leases of its parts.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::aligned::AlignedBuf;
use super::arena::{Arena, Owner};
use super::registration::Registration;
use crate::backend::IoBackend;
use crate::{Error, ErrorKind, process};

/// Memory of another owner: a shared mapping, pinned host memory of a GPU runtime, a buffer of
/// another language, or one large [`AlignedBuf`]. Transfers use it through a [`Lease`].
///
/// A clone is another handle of the same region. The owner is dropped with the last handle, lease
/// and [`Registration`] of the region, by the thread that drops it.
///
/// A forked child has copies of these. In it, [`lease`](Self::lease) fails with
/// [`ErrorKind::Forked`], and the owner is not dropped.
///
/// # Examples
/// ```
/// use std::ptr::NonNull;
/// use std::sync::Arc;
/// use raw_block_core::{Dispatcher, ErrorKind, MemoryBackend, OwnedTransfer, Region};
///
/// // Memory of another owner; here, of a vector.
/// let mut memory = vec![0_u8; 1 << 20];
/// let (start, len) = (NonNull::from(&mut memory[..]).cast(), memory.len());
/// // SAFETY: the vector keeps the memory until it is dropped, and nothing else accesses it.
/// let region = unsafe { Region::new(start, len, memory) }?;
///
/// let mut lease = region.lease(4096..8192)?;
/// lease.fill(7);
/// assert_eq!(region.lease(..).unwrap_err().kind(), ErrorKind::Overlap);
///
/// let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let write = OwnedTransfer::new(0, lease);
/// let ticket = device.batched_write(vec![write]).map_err(|refused| refused.error)?;
/// drop(ticket.wait()); // returns the lease
/// assert!(region.lease(..).is_ok());
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Region(Arc<Foreign>);

/// The memory of a region, and which parts of it are leased.
struct Foreign {
    start: NonNull<u8>,
    len: usize,
    /// The leased ranges: where each begins, and where it ends.
    leased: Mutex<BTreeMap<usize, usize>>,
    /// The process that made the region.
    process: u32,
    /// Not dropped in a forked child.
    owner: ManuallyDrop<Box<dyn Send>>,
}

// SAFETY: the memory is valid in any thread (the contract of `Region::new`), this type never
// accesses it, and the owner is `Send`.
unsafe impl Send for Foreign {}
// SAFETY: as above; the owner is never accessed through a shared reference.
unsafe impl Sync for Foreign {}

// No panic leaves the owner in a broken state, because only its drop uses it.
impl UnwindSafe for Foreign {}
impl RefUnwindSafe for Foreign {}

impl Owner for Foreign {}

impl Region {
    /// The `len` bytes from `start` on, which `owner` keeps valid until it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `len` is 0, or the memory exceeds the address space or
    /// `isize::MAX` bytes. The owner is dropped then.
    ///
    /// # Safety
    /// Until the owner is dropped:
    /// - The bytes are initialised, and any thread may read and write them.
    /// - They stay mapped to the same pages: they are not unmapped, remapped, or given other pages
    ///   by `madvise(2)`, and a file that is mapped there is not truncated.
    /// - While a lease exists, its bytes obey the rules of `&mut [u8]`: in this process nothing
    ///   but the lease accesses them, neither the owner nor another region. Other processes and
    ///   devices that share the memory do not write them. They may read them, and find what a
    ///   transfer has moved so far.
    ///
    /// Bytes that are not leased may be accessed in any way.
    pub unsafe fn new(
        start: NonNull<u8>,
        len: usize,
        owner: impl Send + 'static,
    ) -> Result<Self, Error> {
        let end = start.addr().checked_add(len);
        if len == 0 || isize::try_from(len).is_err() || end.is_none() {
            let rule = format!("{len} bytes at {start:p} are nothing, or exceed the address space");
            return Err(Error::new(ErrorKind::InvalidInput, "create a region", rule));
        }
        Ok(Self(Arc::new(Foreign {
            start,
            len,
            leased: Mutex::default(),
            process: process::id(),
            owner: ManuallyDrop::new(Box::new(owner)),
        })))
    }

    /// The bytes of a buffer, to lease them in parts of any length.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the buffer is empty.
    pub fn owned(buffer: AlignedBuf) -> Result<Self, Error> {
        // SAFETY: the buffer owns the bytes, which stay in place when it is moved, and nothing
        // accesses it before it is dropped.
        unsafe { Self::new(buffer.start(), buffer.len(), buffer) }
    }

    /// The length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no region is empty")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// The number of leases that exist; 0 in a forked child.
    #[must_use]
    pub fn leases(&self) -> usize {
        if self.0.is_of_this_process() { self.0.leased().len() } else { 0 }
    }

    /// Leases a range of bytes, counted from the start of the region. The lease is exclusive until
    /// it is dropped. Takes time logarithmic in the number of leases.
    ///
    /// # Errors
    /// [`ErrorKind::Overlap`] when another lease has a part of the range;
    /// [`ErrorKind::OutOfRange`] when the region is too short; [`ErrorKind::InvalidInput`] when the
    /// range is empty; [`ErrorKind::Forked`] in a forked child.
    pub fn lease(&self, range: impl RangeBounds<usize>) -> Result<Lease, Error> {
        let range = self.0.check("lease memory", &range)?;
        let mut leased = self.0.leased();
        if let Some((&start, &end)) = leased.range(..range.end).next_back()
            && end > range.start
        {
            let rule =
                format!("bytes {range:?} overlap the lease of bytes {start}..{end}: drop it first");
            return Err(Error::new(ErrorKind::Overlap, "lease memory", rule));
        }
        leased.insert(range.start, range.end);
        drop(leased);
        Ok(Lease { memory: Arc::clone(&self.0), range })
    }

    /// Registers a range of the region with a backend until the registration is dropped, which may
    /// be while transfers from and to it are in flight. The range may be leased in part.
    ///
    /// # Errors
    /// Those of [`IoBackend::register`], and those of [`lease`](Self::lease) for the range; the
    /// region works without registration, so a caller may go on.
    #[expect(clippy::needless_pass_by_value, reason = "only a value coerces to `dyn IoBackend`")]
    pub fn register_with(
        &self,
        backend: Arc<dyn IoBackend>,
        range: impl RangeBounds<usize>,
    ) -> Result<Registration, Error> {
        let range = self.0.check("register memory", &range)?;
        let ranges = [(self.0.at(range.start), range.len())];
        Registration::of(&backend, Arc::new(Arena::of(&ranges, self.0.clone())))
    }
}

impl Foreign {
    /// In a forked child the lock may have no owner: do not take it there.
    fn is_of_this_process(&self) -> bool {
        process::id() == self.process
    }

    fn leased(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a range, which is then inside the region and not empty.
    fn check(
        &self,
        action: &'static str,
        range: &impl RangeBounds<usize>,
    ) -> Result<Range<usize>, Error> {
        // A bound that saturates is past the end of any region.
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        let range = start..end;
        let (kind, rule) = if !self.is_of_this_process() {
            let rule = "this process is a forked child of the one that made the region";
            (ErrorKind::Forked, rule.to_owned())
        } else if start.max(end) > self.len {
            let rule = format!("bytes {range:?} exceed the region of {} bytes", self.len);
            (ErrorKind::OutOfRange, rule)
        } else if range.is_empty() {
            (ErrorKind::InvalidInput, format!("bytes {range:?} are an empty range"))
        } else {
            return Ok(range);
        };
        Err(Error::new(kind, action, rule))
    }

    /// The address of a byte.
    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len);
        // SAFETY: every range was checked, so the byte is one of the region's.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.is_of_this_process() {
            // SAFETY: this is the drop of the only holder of the owner, which is not used again.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
        }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.0.len)
            .field("leases", &self.leases())
            .finish_non_exhaustive()
    }
}

/// A part of a [`Region`], exclusive until it is dropped. It keeps the owner of the region alive.
///
/// No alignment is promised.
///
/// In a forked child a lease of shared memory must not be accessed: the parent has it too.
///
/// # Examples
/// ```
/// use raw_block_core::{AlignedBuf, Region};
///
/// let region = Region::owned(AlignedBuf::zeroed(8192)?)?;
/// let (mut front, back) = (region.lease(..100)?, region.lease(100..)?);
/// front.fill(7);
/// assert_eq!((front.range(), region.leases()), (0..100, 2));
/// assert!(back.iter().all(|&byte| byte == 0));
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[must_use = "dropping a lease returns it"]
pub struct Lease {
    memory: Arc<Foreign>,
    range: Range<usize>,
}

impl Lease {
    /// The bytes that it has, counted from the start of the region.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> Region {
        Region(Arc::clone(&self.memory))
    }

    /// The address of the first byte, for memory that is shared with ops: it stays valid for writes
    /// until the bytes are borrowed through `Deref`.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.memory.at(self.range.start)
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is inside the region, whose bytes are initialised and stay valid while
        // the lease keeps the owner, and nothing writes them while it exists (the contract of
        // `Region::new`).
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.range.len()) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; no other lease has the bytes, nothing else in this process
        // accesses them, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.range.len()) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.memory.is_of_this_process() {
            self.memory.leased().remove(&self.range.start);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("range", &self.range).finish_non_exhaustive()
    }
}
