//! How a store is laid out when it is formatted.

use raw_block_core::Geometry;

use crate::Error;
use crate::format::is_block_size;
use crate::format::{Layout, LayoutRequest, SUPERBLOCK_CELL_LEN};

/// Block size in bytes unless the device needs a larger one.
const DEFAULT_BLOCK_SIZE: u32 = 4096;

/// What [`Store::format`](crate::Store::format) makes.
///
/// # Examples
/// ```
/// use raw_block_store::FormatOptions;
///
/// // Objects of up to 64 MiB waste little space; small ones share blocks of 512 bytes.
/// let options =
///     FormatOptions::default().largest_object(64 << 20).block_size(512).label("kv-cache");
/// # assert!(options.segment_size.is_none());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FormatOptions {
    /// Size of a segment in bytes, a power of two. By default 1/256 of the device, from 64 MiB to 1
    /// GiB; 1/32 of a device that holds fewer than 32 segments of 64 MiB. Rounded down to a power
    /// of two.
    pub segment_size: Option<u64>,
    /// Length in bytes of the largest object that is common. Without `segment_size`, segments are
    /// at least eight times as large, so that the ends of segments waste little. Larger objects can
    /// be put all the same, up to what fits a segment.
    pub largest_object: Option<u64>,
    /// Block size in bytes: a power of two from 512 to 65536 and a multiple of the device's
    /// transfer alignment; 4096 if not given. Larger blocks hold longer keys. Smaller blocks waste
    /// less on small objects.
    pub block_size: Option<u32>,
    /// A name for people, up to 64 bytes without a NUL character.
    pub label: String,
    /// Overwrite a store that is there, anything else that is recognised (a file system, a
    /// partition table, a member of a volume), and a regular file with content. The places where
    /// other software looks for its signatures are then overwritten with zeroes: the first 4 MiB
    /// and the last 2 MiB.
    pub force: bool,
}

impl FormatOptions {
    /// Sets the size of a segment in bytes; `None`: by the size of the device.
    #[must_use]
    pub fn segment_size(mut self, segment_size: impl Into<Option<u64>>) -> Self {
        self.segment_size = segment_size.into();
        self
    }

    /// Sets the length in bytes of the largest object that is common.
    #[must_use]
    pub fn largest_object(mut self, largest_object: impl Into<Option<u64>>) -> Self {
        self.largest_object = largest_object.into();
        self
    }

    /// Sets the block size in bytes; `None`: 4096, or more if the device needs it.
    #[must_use]
    pub fn block_size(mut self, block_size: impl Into<Option<u32>>) -> Self {
        self.block_size = block_size.into();
        self
    }

    /// Sets the label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets whether whatever is on the device is overwritten.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
    /// The layout, without identities, of the store that these options make on a device.
    ///
    /// # Errors
    /// [`Error::Unsuitable`].
    pub(crate) fn lay_out(&self, geometry: &Geometry, device: &str) -> Result<Layout, Error> {
        let unsuitable = |reason: String| Error::Unsuitable { device: device.to_owned(), reason };
        let block_size = self.checked_block_size(geometry).map_err(unsuitable)?;
        let request = LayoutRequest {
            capacity: geometry.capacity,
            block_size,
            segment_size: self.segment_size,
            largest_object: self.largest_object,
        };
        Layout::plan(&request).map_err(unsuitable)
    }

    fn checked_block_size(&self, geometry: &Geometry) -> Result<u32, String> {
        let alignment = geometry.transfer_alignment;
        if alignment as usize > SUPERBLOCK_CELL_LEN {
            return Err(format!(
                "its blocks of {alignment} bytes are larger than the {SUPERBLOCK_CELL_LEN} of a superblock"
            ));
        }
        let block_size = self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE.max(alignment));
        if is_block_size(block_size) && block_size.is_multiple_of(alignment) {
            return Ok(block_size);
        }
        Err(format!(
            "a block size of {block_size} bytes is not a power of two from 512 to 65536 and a multiple \
             of the device's {alignment}"
        ))
    }
}

#[cfg(test)]
mod tests;
