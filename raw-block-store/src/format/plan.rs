//! The layout of a new store.

use super::layout::{
    CONTAINERS, Layout, MAX_SEGMENT_BLOCKS, MAX_SEGMENT_COUNT, MIN_SEGMENT_BLOCKS,
    MIN_SEGMENT_COUNT,
};
use super::superblock::{SUPERBLOCK_CELL_LEN, superblock_offsets};
use crate::format::is_block_size;

/// The default segment is this fraction of the device.
const PART_OF_DEVICE: u64 = 256;
/// The smallest default segment, unless it leaves fewer than [`PART_OF_SMALL_DEVICE`] segments.
const SMALLEST_DEFAULT: u64 = 64 << 20;
/// The largest default segment.
const LARGEST_DEFAULT: u64 = 1 << 30;
/// The default segment is this fraction of a device that is too small for [`SMALLEST_DEFAULT`].
const PART_OF_SMALL_DEVICE: u64 = 32;
/// The default segment has at least this many times the length of the largest requested object.
const OBJECTS_PER_SEGMENT: u64 = 8;
/// Segments begin at a multiple of this many bytes, or of their size if that is less.
const ALIGNMENT: u64 = 1 << 20;

/// The requested properties of a new store. Sizes are in bytes.
///
/// # Examples
/// ```
/// use raw_block_store::format::{Layout, LayoutRequest};
///
/// let (segment_size, largest_object) = (Some(1 << 20), None);
/// let request =
///     LayoutRequest { capacity: 1 << 30, block_size: 4096, segment_size, largest_object };
/// let layout = Layout::plan(&request)?;
/// assert_eq!(layout.segment_blocks, 256);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutRequest {
    /// Length of the device.
    pub capacity: u64,
    /// Size of a block.
    pub block_size: u32,
    /// Size of a segment. By default 1/256 of the device, from 64 MiB to 1 GiB; 1/32 of a device
    /// that holds fewer than 32 segments of 64 MiB; rounded down to a power of two.
    pub segment_size: Option<u64>,
    /// Length of the largest common object. The default segment is at least eight times as large,
    /// so that the ends of segments waste little.
    pub largest_object: Option<u64>,
}

impl Layout {
    /// Calculates the layout of a new store: as many segments as fit. Its identity and its secret
    /// are zero.
    ///
    /// # Errors
    /// The reason why the request cannot be met, without the device: the caller names it.
    pub fn plan(request: &LayoutRequest) -> Result<Self, String> {
        let LayoutRequest { capacity, block_size, .. } = *request;
        if !is_block_size(block_size) {
            return Err(format!(
                "a block size of {block_size} bytes is not a power of two from 512 to 65536"
            ));
        }
        let segment_size = request.choose_segment_size()?;
        let too_small = || {
            format!(
                "its {capacity} bytes are too few for {MIN_SEGMENT_COUNT} segments of {segment_size} \
                 bytes, and for the superblocks and checkpoints that belong to them: choose a smaller \
                 segment size"
            )
        };
        let [_, second, last] = superblock_offsets(capacity).ok_or_else(too_small)?;
        let first = second + SUPERBLOCK_CELL_LEN as u64;
        let segment_blocks =
            u32::try_from(segment_size / u64::from(block_size)).map_err(|_| too_small())?;
        let with = |count| Self::with_segments(count, first, last, segment_blocks, block_size);

        // The most segments that fit: `low` of them do, `high` do not.
        let mut low = 0;
        let mut high = capacity / segment_size + 1;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if with(middle).is_some() { low = middle } else { high = middle }
        }
        if low < MIN_SEGMENT_COUNT.into() {
            return Err(too_small());
        }
        let layout = with(low).ok_or_else(too_small)?;
        if low > MAX_SEGMENT_COUNT.into() {
            return Err(format!(
                "it would have {low} segments of {segment_size} bytes, and a store has at most \
                 {MAX_SEGMENT_COUNT}: choose a larger segment size"
            ));
        }
        match request.largest_object {
            Some(object) if object > layout.largest_payload().into() => Err(format!(
                "objects of {object} bytes do not fit into segments of {segment_size} bytes, which take \
                 at most {}: choose a larger segment size",
                layout.largest_payload()
            )),
            _ => Ok(layout),
        }
    }

    /// This layout for the member with this identity, of a set with this secret.
    #[must_use]
    pub fn with_identity(self, member: &[u8; 16], hash_key: &[u8; 16]) -> Self {
        Self { member: *member, hash_key: *hash_key, ..self }
    }

    /// The layout with this many segments, if they end before the last superblock.
    fn with_segments(
        count: u64,
        first: u64,
        last: u64,
        segment_blocks: u32,
        block_size: u32,
    ) -> Option<Self> {
        let sizes = Self {
            block_size,
            segment_blocks,
            segment_count: u32::try_from(count).ok()?,
            segments_offset: 0,
            container_offset: [0; CONTAINERS],
            container_len: 0,
            last_superblock_offset: last,
            member: [0; 16],
            hash_key: [0; 16],
        };
        let len = sizes.min_container_len();
        let containers = first.checked_next_multiple_of(block_size.into())?;
        let end = len.checked_mul(CONTAINERS as u64)?.checked_add(containers)?;
        let alignment = ALIGNMENT.min(sizes.segment_size()).max(block_size.into());
        let segments_offset = end.checked_next_multiple_of(alignment)?;
        let segments_end = sizes.segment_size().checked_mul(count)?.checked_add(segments_offset)?;
        (segments_end <= last).then_some(Self {
            segments_offset,
            container_offset: [0, 1, 2].map(|container| containers + container * len),
            container_len: len,
            ..sizes
        })
    }
}

impl LayoutRequest {
    /// The requested size of a segment, or the default.
    fn choose_segment_size(&self) -> Result<u64, String> {
        let smallest = u64::from(MIN_SEGMENT_BLOCKS) * u64::from(self.block_size);
        let largest = u64::from(MAX_SEGMENT_BLOCKS) * u64::from(self.block_size);
        let size = match (self.segment_size, self.largest_object) {
            (Some(size), _) => size,
            (None, None) => self.default_segment_size().max(smallest),
            (None, Some(object)) => object
                .checked_mul(OBJECTS_PER_SEGMENT)
                .and_then(u64::checked_next_power_of_two)
                .filter(|&size| size <= largest)
                .ok_or_else(|| {
                    format!(
                        "objects of {object} bytes are too large for any segment: \
                         {OBJECTS_PER_SEGMENT} of them exceed {largest} bytes"
                    )
                })?
                .max(self.default_segment_size())
                .max(smallest),
        };
        if size.is_power_of_two() && (smallest..=largest).contains(&size) {
            return Ok(size);
        }
        Err(format!(
            "a segment size of {size} bytes is not a power of two from {smallest} to {largest}, which are \
             {MIN_SEGMENT_BLOCKS} and {MAX_SEGMENT_BLOCKS} blocks"
        ))
    }

    fn default_segment_size(&self) -> u64 {
        let size = if self.capacity / SMALLEST_DEFAULT < PART_OF_SMALL_DEVICE {
            self.capacity / PART_OF_SMALL_DEVICE
        } else {
            (self.capacity / PART_OF_DEVICE).clamp(SMALLEST_DEFAULT, LARGEST_DEFAULT)
        };
        size.checked_ilog2().map_or(0, |log| 1 << log)
    }
}
