//! How a store is laid out when it is formatted, and how it is opened.

use std::fmt;
use std::sync::Arc;

use raw_block_core::Geometry;

use crate::format::{
    MAX_SLOT_COUNT, MAX_SLOT_SIZE, SLOT_HEADER_LEN, SUPERBLOCK_CELL_LEN, Superblock, container_len,
    is_block_size, records_per_block, superblock_offsets,
};
use crate::{Error, EvictionPolicy, Progress, Verification};

/// Block size in bytes unless the device needs a larger one.
const DEFAULT_BLOCK_SIZE: u32 = 4096;
/// Delete log blocks of the smallest store.
const MIN_LOG_BLOCKS: u64 = 64;
/// Delete log blocks of the largest store.
const MAX_LOG_BLOCKS: u64 = 4096;

/// What [`Store::format`](crate::Store::format) makes.
///
/// # Examples
/// ```
/// use raw_block_store::FormatOptions;
///
/// // Objects of up to 256 KiB, as many as the device holds; blocks of 512 bytes waste less on small ones.
/// let options = FormatOptions {
///     block_size: Some(512),
///     label: "kv-cache".to_owned(),
///     ..FormatOptions::for_payloads(256 << 10)
/// };
/// # assert!(options.slot_count.is_none());
/// ```
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Length in bytes of the largest payload.
    pub payload_len: u64,
    /// Block size in bytes: a power of two from 512 to 65536 and a multiple of the device's transfer
    /// alignment; 4096 if not given. Each object takes one block for its header, so larger blocks hold
    /// longer keys and smaller blocks waste less.
    pub block_size: Option<u32>,
    /// How many slots to make, at least 1; as many as fit if not given.
    pub slot_count: Option<u64>,
    /// How many blocks the delete log has, at least 1; by the number of slots if not given. When it is full,
    /// deletions wait for a checkpoint.
    pub delete_log_blocks: Option<u64>,
    /// A name for people, up to 64 bytes.
    pub label: String,
    /// Overwrite a store that is there, anything else that is recognised (a file system, a partition table, a member
    /// of a volume), and a regular file with content. The places where other software looks for its signatures are
    /// then overwritten with zeroes: the first 4 MiB and the last 2 MiB.
    pub force: bool,
}

/// How [`Store::open_with`](crate::Store::open_with) opens a store.
///
/// # Examples
/// ```
/// use raw_block_store::{EvictionPolicy, OpenOptions};
///
/// let options = OpenOptions { eviction: EvictionPolicy::S3Fifo, ..OpenOptions::default() };
/// # assert!(options.checkpoint_thread);
/// ```
/// Who wants to see how far a recovery is:
/// ```
/// # use std::sync::Arc;
/// use raw_block_store::{OpenOptions, Progress};
///
/// let tell = |progress: Progress| eprintln!("{} of {}", progress.slots_done, progress.slots);
/// let options = OpenOptions { recovery_progress: Some(Arc::new(tell)), ..OpenOptions::default() };
/// # drop(options);
/// ```
///
/// Later versions may have more options: take the rest from `Default`.
#[derive(Clone)]
pub struct OpenOptions {
    /// What goes when the store is full.
    pub eviction: EvictionPolicy,
    /// What a get checks. After a recovery every object is verified once, on its first get, whatever this
    /// says.
    pub verification: Verification,
    /// Whether a thread takes checkpoints before a put has to wait for one. Without it, they are taken by
    /// those who need them.
    pub checkpoint_thread: bool,
    /// Whether a store is opened although something is lost that may have been the newest: its newest
    /// checkpoint is damaged, and the older one has to serve; or, after it was not closed in order, a slot
    /// or a block of the delete log cannot be read. Objects that were deleted, evicted or replaced since
    /// may come back.
    pub accept_older_states: bool,
    /// Is told how far a recovery is: when it begins, after every some MiB of slot headers, and when all of them
    /// were read. It begins again from 0 where an older checkpoint takes the place of a damaged one. Called by the
    /// thread that opens the store; not at all if the store was closed in order.
    pub recovery_progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            eviction,
            verification,
            checkpoint_thread,
            accept_older_states,
            recovery_progress,
        } = self;
        f.debug_struct("OpenOptions")
            .field("eviction", eviction)
            .field("verification", verification)
            .field("checkpoint_thread", checkpoint_thread)
            .field("accept_older_states", accept_older_states)
            .field("recovery_progress", &recovery_progress.is_some())
            .finish()
    }
}

impl Default for OpenOptions {
    /// No eviction, full verification, a thread for checkpoints, no older states, and nobody who is told.
    fn default() -> Self {
        Self {
            eviction: EvictionPolicy::None,
            verification: Verification::Full,
            checkpoint_thread: true,
            accept_older_states: false,
            recovery_progress: None,
        }
    }
}

impl FormatOptions {
    /// A store of objects with payloads of up to `payload_len` bytes, as many as the device holds.
    #[must_use]
    pub fn for_payloads(payload_len: u64) -> Self {
        Self {
            payload_len,
            block_size: None,
            slot_count: None,
            delete_log_blocks: None,
            label: String::new(),
            force: false,
        }
    }

    /// The superblock of the store that these options make on a device. Everything but UUID, hash key,
    /// time and state is filled in.
    pub(crate) fn lay_out(&self, geometry: &Geometry, device: &str) -> Result<Superblock, Error> {
        let unsuitable = |reason: String| Error::Unsuitable { device: device.to_owned(), reason };
        let block_size =
            self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE.max(geometry.transfer_alignment));
        if geometry.transfer_alignment as usize > SUPERBLOCK_CELL_LEN {
            return Err(unsuitable(format!(
                "its blocks of {} bytes are larger than the {SUPERBLOCK_CELL_LEN} of a superblock",
                geometry.transfer_alignment
            )));
        }
        if !is_block_size(block_size) || !block_size.is_multiple_of(geometry.transfer_alignment) {
            return Err(unsuitable(format!(
                "a block size of {block_size} bytes is not a power of two from 512 to 65536 and a multiple \
                 of the device's {}",
                geometry.transfer_alignment
            )));
        }
        let block = u64::from(block_size);
        let slot_size = self
            .payload_len
            .checked_next_multiple_of(block)
            .and_then(|payload| payload.checked_add(block))
            .filter(|&size| size <= MAX_SLOT_SIZE)
            .ok_or_else(|| {
                let largest = MAX_SLOT_SIZE - block;
                unsuitable(format!("payloads of {} bytes are above {largest}", self.payload_len))
            })?;
        let too_small = |slots| {
            unsuitable(format!(
                "{} bytes are too few for {slots} slots of {slot_size} bytes and what belongs to them",
                geometry.capacity
            ))
        };
        let wanted = self.slot_count.unwrap_or(1);
        if !(1..=MAX_SLOT_COUNT).contains(&wanted) {
            let rule = "a store has at least 1 slot and at most";
            return Err(unsuitable(format!(
                "{wanted} slots were asked for, and {rule} {MAX_SLOT_COUNT}"
            )));
        }
        let [_, second, last] =
            superblock_offsets(geometry.capacity).ok_or_else(|| too_small(wanted))?;
        let first_region = (second + SUPERBLOCK_CELL_LEN as u64).next_multiple_of(block);
        let log_blocks = self.delete_log_blocks;
        let regions = |slots| Regions::new(first_region, slots, slot_size, block_size, log_blocks);
        let fits = |&slots: &u64| regions(slots).is_some_and(|regions| regions.end <= last);

        let slot_count = match self.slot_count {
            Some(slots) => Some(slots).filter(fits),
            None => {
                // The most that fit: between `low`, which fits, and `high`, which does not.
                let mut low = 0;
                let mut high = (geometry.capacity / slot_size).min(MAX_SLOT_COUNT) + 1;
                while low + 1 < high {
                    let middle = low + (high - low) / 2;
                    if fits(&middle) { low = middle } else { high = middle }
                }
                Some(low)
            }
        };
        let regions = slot_count
            .filter(|&slots| slots > 0)
            .and_then(regions)
            .ok_or_else(|| too_small(wanted))?;

        let mut superblock = Superblock::new(&[0; 16]);
        superblock.block_size = block_size.into();
        superblock.slot_size = slot_size.into();
        superblock.slot_count = regions.slots.into();
        superblock.device_len = geometry.capacity.into();
        superblock.checkpoint_offset =
            [first_region.into(), (first_region + regions.container).into()];
        superblock.checkpoint_len = regions.container.into();
        superblock.delete_log_offset = (first_region + 2 * regions.container).into();
        superblock.delete_log_len = regions.log.into();
        superblock.slots_offset = regions.slots_offset.into();
        superblock.last_superblock_offset = last.into();
        superblock.set_label(&self.label).map_err(|error| {
            unsuitable(format!("its label {:?} is impossible: {error}", self.label))
        })?;
        Ok(superblock)
    }
}

/// The regions of a store with a certain number of slots, in bytes.
struct Regions {
    slots: u64,
    container: u64,
    log: u64,
    slots_offset: u64,
    end: u64,
}

impl Regions {
    fn new(
        first: u64,
        slots: u64,
        slot_size: u64,
        block_size: u32,
        log_blocks: Option<u64>,
    ) -> Option<Self> {
        if slots > MAX_SLOT_COUNT {
            return None;
        }
        let container = container_len(slots, block_size)?;
        let by_slots = slots / records_per_block(block_size) as u64;
        let log_blocks = log_blocks.unwrap_or(by_slots.clamp(MIN_LOG_BLOCKS, MAX_LOG_BLOCKS));
        let log = log_blocks.max(1).checked_mul(block_size.into())?;
        let slots_offset = container.checked_mul(2)?.checked_add(log)?.checked_add(first)?;
        let end = slots.checked_mul(slot_size)?.checked_add(slots_offset)?;
        Some(Self { slots, container, log, slots_offset, end })
    }
}

/// What key and metadata may have together, in bytes.
pub(crate) fn key_limit(block_size: u32) -> usize {
    block_size as usize - SLOT_HEADER_LEN
}

#[cfg(test)]
mod tests;
