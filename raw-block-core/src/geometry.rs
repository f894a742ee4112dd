//! What a device can do, and the rules that follow from it.

use crate::backend::OpKind;
use crate::{Error, ErrorKind, WriteOptions};

/// The shape of an open device: its size, its alignment rules and its limits.
///
/// A backend asks the device for these; nothing here is configured by hand.
/// Start from [`Geometry::new`] and set what differs.
///
/// # Examples
/// ```
/// use raw_block_core::{ErrorKind, Geometry};
/// use raw_block_core::backend::OpKind;
///
/// let mut geometry = Geometry::new(1 << 30, 4096)?;
/// geometry.discard = true;
/// let error = geometry.check_range(OpKind::Write, 4096, 100).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Misaligned);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Usable size in bytes, a multiple of `transfer_alignment`.
    pub capacity: u64,
    /// The device's smallest addressable unit (LBA) in bytes: a power of two.
    ///
    /// The largest unit that a power cut leaves whole. A longer write can be torn between any two
    /// blocks, also on a device that writes more than one block atomically: its transfers are
    /// merged with others and split into commands.
    pub logical_block: u32,
    /// Offsets, lengths and segment lengths are multiples of this many bytes: 1 where the page
    /// cache is between, otherwise a power of two of at least `logical_block`.
    pub transfer_alignment: u32,
    /// Memory addresses of segments are multiples of this many bytes: a power of two.
    pub memory_alignment: u32,
    /// The largest transfer in bytes that the device takes as one command.
    ///
    /// Merging stops here. A longer op is still accepted: the backend splits it.
    pub max_transfer: u64,
    /// The most memory segments that one command takes. Merging stops here.
    pub max_segments: u32,
    /// Whether completed writes can be lost until a flush.
    pub volatile_write_cache: bool,
    /// Whether a single write can be made durable, by [`WriteOptions::durable`].
    pub durable_writes: bool,
    /// How many handles [`WriteOptions::placement`] can name: the reclaim unit handles of an NVMe
    /// namespace with flexible data placement, or the write streams of a block device. 0 where the
    /// device or the backend has neither.
    pub placement_handles: u16,
    /// Whether [`OpKind::Discard`] is supported.
    pub discard: bool,
    /// Whether [`OpKind::WriteZeroes`] is supported.
    pub write_zeroes: bool,
    /// Whether the device was opened read-only: then only [`OpKind::Read`] is supported.
    pub read_only: bool,
    /// Whether it is a regular file: then its content may be of any kind, and the file system may
    /// have no space left for the bytes that were never written.
    pub regular_file: bool,
}

impl Geometry {
    /// The largest device this library accepts, in bytes: what the system's file offsets can say.
    pub const MAX_CAPACITY: u64 = i64::MAX.unsigned_abs();
    /// Smallest logical block this library accepts, in bytes.
    pub const MIN_LOGICAL_BLOCK: u32 = 512;

    /// The geometry of a device of `capacity` bytes in blocks of `logical_block` bytes, with all
    /// alignments equal to the block, one MiB transfers, 128 segments, a volatile cache, and
    /// neither discard nor write-zeroes; it can be written to.
    ///
    /// `capacity` is rounded down to whole blocks, and to [`Geometry::MAX_CAPACITY`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when `logical_block` is not a power of two of at least
    /// [`Geometry::MIN_LOGICAL_BLOCK`], or the device holds not even one block.
    pub fn new(capacity: u64, logical_block: u32) -> Result<Self, Error> {
        if !logical_block.is_power_of_two() || logical_block < Self::MIN_LOGICAL_BLOCK {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "describe a device",
                format!(
                    "a logical block of {logical_block} bytes is not a power of two of at least {}",
                    Self::MIN_LOGICAL_BLOCK
                ),
            ));
        }
        let capacity = capacity.min(Self::MAX_CAPACITY);
        let capacity = capacity - capacity % u64::from(logical_block);
        if capacity == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "describe a device",
                format!("it is smaller than one logical block of {logical_block} bytes"),
            ));
        }
        Ok(Self {
            capacity,
            logical_block,
            transfer_alignment: logical_block,
            memory_alignment: logical_block,
            max_transfer: 1 << 20,
            max_segments: 128,
            volatile_write_cache: true,
            durable_writes: false,
            placement_handles: 0,
            discard: false,
            write_zeroes: false,
            read_only: false,
            regular_file: false,
        })
    }

    /// Checks a byte range of the device against this geometry.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for length 0, [`ErrorKind::Misaligned`] when offset or length
    /// is not a multiple of [`transfer_alignment`](Self::transfer_alignment),
    /// [`ErrorKind::OutOfRange`] when the range extends past the end of the device.
    pub fn check_range(&self, kind: OpKind, offset: u64, len: u64) -> Result<(), Error> {
        let align = u64::from(self.transfer_alignment);
        let (error, rule) = if len == 0 {
            (ErrorKind::InvalidInput, "the length is 0: remove this transfer".to_owned())
        } else if !offset.is_multiple_of(align) {
            (ErrorKind::Misaligned, format!("the offset is not a multiple of {align} bytes"))
        } else if !len.is_multiple_of(align) {
            let padded = len.checked_next_multiple_of(align);
            let advice = padded.map_or_else(String::new, |len| format!(": pad it to {len}"));
            let rule = format!("the length is not a multiple of {align} bytes{advice}");
            (ErrorKind::Misaligned, rule)
        } else if offset.checked_add(len).is_none_or(|end| end > self.capacity) {
            (
                ErrorKind::OutOfRange,
                format!("the range extends past the end of the device ({} bytes)", self.capacity),
            )
        } else {
            return Ok(());
        };
        Err(Error::new(error, kind.name(), rule).at(offset, len))
    }
}

impl Geometry {
    /// Checks that the device supports the options of a write.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it does not support an option, [`ErrorKind::InvalidInput`]
    /// for a placement handle that does not exist.
    pub fn check_options(&self, options: WriteOptions) -> Result<(), Error> {
        let (error, rule) = match (options, self.placement_handles) {
            (WriteOptions { durable: true, .. }, _) if !self.durable_writes => (
                ErrorKind::Unsupported,
                "this device or backend cannot make a single write durable: flush after it"
                    .to_owned(),
            ),
            (WriteOptions { placement: Some(_), .. }, 0) => (
                ErrorKind::Unsupported,
                "this device or backend has no placement handles: do not set the placement"
                    .to_owned(),
            ),
            (WriteOptions { placement: Some(handle), .. }, handles) if handle >= handles => (
                ErrorKind::InvalidInput,
                format!(
                    "placement handle {handle} does not exist: the device has 0 to {}",
                    handles - 1
                ),
            ),
            _ => return Ok(()),
        };
        Err(Error::new(error, OpKind::Write.name(), rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(1 << 20, 4096).unwrap()
    }

    #[test]
    fn a_range_inside_the_device_is_accepted_up_to_its_last_block() {
        assert!(geometry().check_range(OpKind::Read, 0, 1 << 20).is_ok());
        assert!(geometry().check_range(OpKind::Read, (1 << 20) - 4096, 4096).is_ok());
    }

    #[test]
    fn each_broken_rule_has_its_own_kind() {
        let kind =
            |offset, len| geometry().check_range(OpKind::Write, offset, len).unwrap_err().kind();
        assert_eq!(kind(0, 0), ErrorKind::InvalidInput);
        assert_eq!(kind(512, 4096), ErrorKind::Misaligned);
        assert_eq!(kind(0, 100), ErrorKind::Misaligned);
        assert_eq!(kind(1 << 20, 4096), ErrorKind::OutOfRange);
        assert_eq!(kind(u64::MAX - 4095, 4096), ErrorKind::OutOfRange);
    }

    #[test]
    fn a_partial_last_block_is_not_usable() {
        assert_eq!(Geometry::new(10_000, 4096).unwrap().capacity, 8192);
        assert!(Geometry::new(4095, 4096).is_err());
        assert!(Geometry::new(1 << 20, 1000).is_err());
        assert!(Geometry::new(1 << 20, 256).is_err());
    }
}
