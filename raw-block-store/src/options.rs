//! How a store is laid out when it is formatted, and how it is opened.

mod format;

use std::fmt;
use std::sync::Arc;

pub use format::FormatOptions;

use crate::Progress;

/// What a full store does with a put.
///
/// # Examples
/// ```
/// use raw_block_store::{EvictionPolicy, OpenOptions};
///
/// let cache = OpenOptions::default().eviction(EvictionPolicy::Lru);
/// # drop(cache);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Nothing is evicted: the put fails with [`Error::OutOfSpace`](crate::Error::OutOfSpace).
    #[default]
    None,
    /// Objects that were put or got least recently are evicted. Recommended for caches.
    Lru,
    /// Objects that were got least often are evicted, so that a scan does not displace what is
    /// used. For keys whose popularity lasts; conversations are used for a while and never again.
    S3Fifo,
    /// Objects that were put first are evicted, whether they were got or not.
    Fifo,
}

/// What a get verifies of an object before it returns it.
///
/// # Examples
/// ```
/// use raw_block_store::{OpenOptions, Verification};
///
/// // The caller has its own checksums.
/// let options = OpenOptions::default().verification(Verification::Header);
/// # drop(options);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verification {
    /// The payload. Its checksum also covers its place and its sequence, so what comes back are the
    /// exact bytes that were put with this key.
    #[default]
    Full,
    /// The header of the slot, and that it names the object. A corrupted payload is returned as it
    /// is. The header is another block to read, and another transfer if the object shares the slot.
    Header,
    /// Nothing, and the header is not read unless it contains the payload, or the caller requests
    /// the metadata. Then the header and the key are verified.
    None,
}

/// How a store is opened.
///
/// # Examples
/// ```
/// use raw_block_store::{EvictionPolicy, OpenOptions};
///
/// let options = OpenOptions::default().eviction(EvictionPolicy::Lru);
/// # assert!(options.background);
/// ```
/// Shows the progress of a recovery:
/// ```
/// use raw_block_store::{OpenOptions, Progress};
///
/// let show = |progress: Progress| eprintln!("{} of {}", progress.bytes_done, progress.bytes);
/// let options = OpenOptions::default().recovery_progress(show);
/// # drop(options);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Which objects are evicted when the store is full.
    pub eviction: EvictionPolicy,
    /// How much is moved to keep what is used, in percent of what is put, on average. Objects of
    /// segments that are evicted are moved if the policy wants to keep them. So are those that
    /// share a segment with objects that were overwritten. More keeps more of what is used, and
    /// writes more. A value above 90 counts as 90.
    ///
    /// A store that was never more than about three quarters full moves as much as it takes to
    /// evict nothing.
    pub kept_percent: u8,
    /// What a get checks. After a recovery every object is verified once, on its first get,
    /// whatever this says.
    pub verification: Verification,
    /// Whether a background thread reclaims space and takes checkpoints before a put has to wait
    /// for them, and checks whether a device that refused writes accepts them again. Without it,
    /// calls do this work when they need it.
    pub background: bool,
    /// Whether free segments are discarded, so that the device need not keep their contents.
    pub discard: bool,
    /// Whether a store is opened although something is lost that may have been the newest: its
    /// newest checkpoint is damaged and an older one has to serve; or, after a disorderly end, a
    /// part of a segment cannot be read. Objects that were deleted, evicted or replaced since may
    /// come back.
    pub accept_older_states: bool,
    /// Whether segments in quarantine are used again, because the device was repaired. The next
    /// checkpoint makes this permanent. Segments whose writes keep failing return to quarantine.
    ///
    /// The device must have been opened since their writes failed, because it may carry out a write
    /// with an unknown outcome until then.
    pub lift_quarantine: bool,
    /// Called with the progress of a recovery, by the thread that opens the store; not at all after
    /// an orderly end.
    pub recovery_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl OpenOptions {
    /// The largest [`kept_percent`](Self::kept_percent).
    pub const MAX_KEPT_PERCENT: u8 = 90;

    /// Sets which objects are evicted when the store is full.
    #[must_use]
    pub fn eviction(mut self, eviction: EvictionPolicy) -> Self {
        self.eviction = eviction;
        self
    }

    /// Sets how much is moved to keep what is used, in percent of what is put.
    #[must_use]
    pub fn kept_percent(mut self, kept_percent: u8) -> Self {
        self.kept_percent = kept_percent;
        self
    }

    /// Sets what a get checks.
    #[must_use]
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// Sets whether there is a background thread.
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Sets whether free segments are discarded.
    #[must_use]
    pub fn discard(mut self, discard: bool) -> Self {
        self.discard = discard;
        self
    }

    /// Sets whether a store is opened although its newest state may be lost.
    #[must_use]
    pub fn accept_older_states(mut self, accept_older_states: bool) -> Self {
        self.accept_older_states = accept_older_states;
        self
    }

    /// Sets whether segments in quarantine are used again.
    #[must_use]
    pub fn lift_quarantine(mut self, lift_quarantine: bool) -> Self {
        self.lift_quarantine = lift_quarantine;
        self
    }

    /// Sets the function that is called with the progress of a recovery.
    #[must_use]
    pub fn recovery_progress(
        mut self,
        recovery_progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Self {
        self.recovery_progress = Some(Arc::new(recovery_progress));
        self
    }
}

impl Default for OpenOptions {
    /// No eviction, moves of a quarter of what is put by policies, full verification, a background
    /// thread, no discard, no older states, and no progress.
    fn default() -> Self {
        Self {
            eviction: EvictionPolicy::None,
            kept_percent: 25,
            verification: Verification::Full,
            background: true,
            discard: false,
            accept_older_states: false,
            lift_quarantine: false,
            recovery_progress: None,
        }
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            eviction,
            kept_percent,
            verification,
            background,
            discard,
            accept_older_states,
            lift_quarantine,
            recovery_progress,
        } = self;
        f.debug_struct("OpenOptions")
            .field("eviction", eviction)
            .field("kept_percent", kept_percent)
            .field("verification", verification)
            .field("background", background)
            .field("discard", discard)
            .field("accept_older_states", accept_older_states)
            .field("lift_quarantine", lift_quarantine)
            .field("recovery_progress", &recovery_progress.is_some())
            .finish()
    }
}
