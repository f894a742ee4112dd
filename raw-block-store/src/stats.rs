//! What the store was asked, and how it went.

pub(crate) mod health;
mod latency;
pub(crate) mod limited_log;
mod progress;

use std::sync::atomic::{AtomicU64, Ordering};

use health::Health;
pub use latency::Latency;
use latency::Times;
pub use progress::Progress;

/// The state of an open store at one moment, and its counters since it was opened.
///
/// # Examples
/// ```
/// use raw_block_store::HealthState;
/// # use std::sync::Arc;
/// # use raw_block_store::core::MemoryBackend;
/// # use raw_block_store::{FormatOptions, Store};
/// # let backend = Arc::new(MemoryBackend::new(16 << 20)?);
/// # Store::format(backend.clone(), &FormatOptions::default())?;
/// # let store = Store::open(backend)?;
/// store.put(b"key", b"payload")?;
/// let stats = store.stats();
/// assert_eq!((stats.objects, stats.puts), (1, 1));
/// assert_eq!(stats.health.state, HealthState::Healthy);
/// println!("p99 of puts: {:?}", stats.put_latency.quantile(0.99));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Whether it works.
    pub health: Health,
    /// Live objects: the number of keys.
    pub objects: u64,
    /// Bytes of their payloads, those of puts in flight included.
    pub payload_bytes: u64,
    /// Those of `payload_bytes` that are in full segments: the rest of these is overhead and
    /// garbage.
    pub full_payload_bytes: u64,
    /// Bytes that can be put before something is evicted or the store is full, about.
    pub bytes_left: u64,
    /// Segments in all.
    pub segments: u64,
    /// Segments that can be opened now.
    pub free_segments: u64,
    /// Segments that are being filled.
    pub open_segments: u64,
    /// Segments that are full.
    pub full_segments: u64,
    /// Segments that were released, and are still read or pinned.
    pub draining_segments: u64,
    /// Segments in quarantine: writes to them failed, so they are emptied and not written any more.
    pub bad_segments: u64,
    /// Versions of objects that are pinned.
    pub pinned_versions: u64,
    /// Bytes of memory that the index takes.
    pub index_memory: u64,
    /// Number of the committed checkpoint.
    pub checkpoint: u64,
    /// Objects that were put.
    pub puts: u64,
    /// Bytes of their payloads.
    pub put_bytes: u64,
    /// Objects that were found and passed their checks.
    pub hits: u64,
    /// Keys that were not there.
    pub misses: u64,
    /// Objects that were there and failed a check: damaged on the device. A recovery counts those
    /// that the checkpoint names and that were not found. It cannot know their keys, so some of
    /// them may have been replaced or deleted since.
    pub failed_checks: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Objects that were evicted.
    pub evictions: u64,
    /// Objects that were moved to another segment.
    pub moves: u64,
    /// Bytes that were written for moves, headers included.
    pub moved_bytes: u64,
    /// Bytes that were written to the device, checkpoints and moves included.
    pub written_bytes: u64,
    /// Writes of slots that failed and were repeated elsewhere.
    pub repeated_writes: u64,
    /// Checkpoints that were committed.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// Reclaims that ran.
    pub reclaims: u64,
    /// Puts and deletes that waited for space.
    pub waits_for_space: u64,
    /// How long batches took to put, waits for space included.
    pub put_latency: Latency,
    /// How long batches took to get, and reads of pinned objects.
    pub get_latency: Latency,
    /// How long the committed checkpoints took.
    pub checkpoint_latency: Latency,
}

/// The counters that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: Counter,
    pub(crate) put_bytes: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) failed_checks: Counter,
    pub(crate) deletes: Counter,
    pub(crate) evictions: Counter,
    pub(crate) moves: Counter,
    pub(crate) moved_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) repeated_writes: Counter,
    pub(crate) failed_checkpoints: Counter,
    pub(crate) reclaims: Counter,
    pub(crate) waits_for_space: Counter,
    pub(crate) put_latency: Times,
    pub(crate) get_latency: Times,
    pub(crate) checkpoint_latency: Times,
}

/// A number that calls add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
