//! What can go wrong in the store.

use raw_block_core::ErrorKind;

use crate::format::{Damage, EncodeError};

/// An error of the store.
///
/// The text is complete: it ends with that of the [source](std::error::Error::source), if there is
/// one.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_store::core::MemoryBackend;
/// use raw_block_store::{Error, Store};
///
/// let error = Store::open(Arc::new(MemoryBackend::new(1 << 20)?)).unwrap_err();
/// assert!(matches!(error, Error::NotAStore { .. }));
/// assert_eq!((error.backend(), error.offset()), (Some("memory"), None));
/// assert_eq!(error.kind(), None, "the device did not fail");
/// # Ok::<(), raw_block_store::core::Error>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device below failed, or refused.
    #[error("{context}: {error}")]
    Device {
        /// What the store was doing.
        context: &'static str,
        /// The device's error: kind, place, reason.
        #[source]
        error: raw_block_core::Error,
    },
    /// The device has a store that is open in this process.
    #[error("{device} has a store that is open in this process: close it first")]
    Busy {
        /// Path or name of the device.
        device: String,
    },
    /// The store was closed, or is being closed.
    #[error("the store on {device} is closed: open it again")]
    Closed {
        /// Path or name of the device.
        device: String,
    },
    /// There is no store on the device.
    #[error("{device} contains no store: {reason}")]
    NotAStore {
        /// Path or name of the device.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// There is a store on the device that this software, or this device, cannot open.
    #[error("{device} contains a store that cannot be opened: {reason}")]
    UnusableStore {
        /// Path or name of the device.
        device: String,
        /// Why not.
        reason: String,
    },
    /// Formatting would destroy a store, perhaps one that this software cannot open.
    #[error("{device} holds a store already, {which}: set `force` to overwrite it")]
    AlreadyAStore {
        /// Path or name of the device.
        device: String,
        /// Its label, or why it cannot be opened.
        which: String,
    },
    /// Formatting would destroy something else.
    #[error("{device} contains {what}, found at byte {offset}: set `force` to overwrite it")]
    Occupied {
        /// Path or name of the device.
        device: String,
        /// What it seems to be: a file system, a partition table, in a regular file data of any
        /// kind, ...
        what: &'static str,
        /// Where its magic number is, or its first byte that is not zero, in bytes.
        offset: u64,
    },
    /// A structure of the store fails its checks.
    #[error("{structure} at offset {offset} is damaged: {damage}")]
    Damaged {
        /// Which structure.
        structure: &'static str,
        /// Where it begins, in bytes.
        offset: u64,
        /// Which rule it breaks.
        damage: Damage,
    },
    /// The device does not fit what the store, or the caller, wants of it.
    #[error("{device} cannot hold this store: {reason}")]
    Unsuitable {
        /// Path or name of the device.
        device: String,
        /// Why not, and what would do.
        reason: String,
    },
    /// The label of a new store is too long, or contains a NUL character.
    #[error("the label of the store {rule}")]
    Label {
        /// Which rule it breaks, and what to do.
        rule: String,
    },
    /// A key is empty, or does not fit into the header block together with the metadata.
    #[error(
        "a key of {key_len} bytes with {metadata_len} bytes of metadata cannot be stored: \
         the key needs at least 1 byte, both together may have {limit}"
    )]
    Key {
        /// Length of the key in bytes.
        key_len: usize,
        /// Length of the metadata in bytes.
        metadata_len: usize,
        /// What both may have together, in bytes.
        limit: usize,
    },
    /// A payload does not fit into a segment.
    #[error(
        "a payload of {len} bytes does not fit into a segment, which takes at most {limit}: format with larger \
         segments"
    )]
    PayloadTooLarge {
        /// Length of the payload in bytes.
        len: usize,
        /// What fits, in bytes.
        limit: u64,
    },
    /// A payload is gathered from more slices than one write takes.
    #[error("a payload in {slices} slices cannot be put: join some, at most {limit} are written")]
    TooManySlices {
        /// How many slices there are.
        slices: usize,
        /// How many there may be.
        limit: usize,
    },
    /// No segment is free, none becomes free, and nothing may be evicted.
    #[error(
        "the store is full: in {segments} segments are {objects} objects, {pinned} are pinned, and {bad} segments are \
         in quarantine; delete some objects, drop some pins, or open the store with an eviction policy"
    )]
    OutOfSpace {
        /// How many segments there are.
        segments: u64,
        /// How many objects are live.
        objects: u64,
        /// How many versions of objects are pinned.
        pinned: u64,
        /// How many segments are in quarantine, because writes to them failed.
        bad: u64,
    },
    /// The newest checkpoint fails its checks.
    #[error(
        "checkpoint {number} of {device} is damaged ({reason}); the one before it can take its place, on \
         request: objects that were deleted or replaced since may come back"
    )]
    CheckpointLost {
        /// Path or name of the device.
        device: String,
        /// The number of the checkpoint.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A store that was not closed in order has something that cannot be read and may be newer than
    /// its checkpoint.
    #[error(
        "{what} at offset {offset} cannot be read ({error}): the newest state of some object may be lost with \
         it; the store can be opened without it, on request, and then an older state of that object may come back"
    )]
    NewestLost {
        /// What it is.
        what: &'static str,
        /// Where it is, in bytes.
        offset: u64,
        /// The device's error.
        #[source]
        error: raw_block_core::Error,
    },
    /// The caller's buffer is shorter than what it is to hold.
    #[error("the buffer for the {what} has {given} bytes, it needs {needed}")]
    BufferTooSmall {
        /// What it was to hold.
        what: &'static str,
        /// What it takes, in bytes.
        needed: usize,
        /// Its length in bytes.
        given: usize,
    },
    /// No memory for a table of the store.
    #[error("there is no memory for {what}: {bytes} bytes")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How much, in bytes.
        bytes: u64,
    },
    /// A limit of the asynchronous front is reached: the request was refused.
    #[error(
        "the request would exceed the limit of {limit} {what}: submit it again when others have completed, or \
         raise the limit"
    )]
    Overloaded {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The deadline of a request passed before it began.
    #[error("the deadline of the request passed before it began: nothing was done")]
    DeadlinePassed,
    /// The device does not answer, or fails: the asynchronous front refuses gets and changes until
    /// it works again.
    #[error("{device} is unavailable: {reason}; requests are refused until the device works again")]
    Unavailable {
        /// Path or name of the device.
        device: String,
        /// What was observed.
        reason: String,
    },
    /// A value could not be encoded: a defect of this software.
    #[error("a structure could not be written: {0}")]
    Encode(#[from] EncodeError),
}

impl Error {
    /// The kind of the device's error, if the device, its backend or the dispatcher failed.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        self.device_error().map(raw_block_core::Error::kind)
    }

    /// The [name](raw_block_core::backend::IoBackend::name) of the backend, if the error has one.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        match self {
            Self::Busy { device }
            | Self::Closed { device }
            | Self::Unavailable { device, .. }
            | Self::NotAStore { device, .. }
            | Self::UnusableStore { device, .. }
            | Self::AlreadyAStore { device, .. }
            | Self::Occupied { device, .. }
            | Self::Unsuitable { device, .. }
            | Self::CheckpointLost { device, .. } => Some(device),
            _ => self.device_error().and_then(raw_block_core::Error::backend),
        }
    }

    /// The offset in bytes of what the error is about, if it has one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Occupied { offset, .. }
            | Self::Damaged { offset, .. }
            | Self::NewestLost { offset, .. } => Some(*offset),
            _ => self.device_error().and_then(raw_block_core::Error::offset),
        }
    }

    fn device_error(&self) -> Option<&raw_block_core::Error> {
        match self {
            Self::Device { error, .. } | Self::NewestLost { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Says what the store was doing when the device failed.
pub(crate) trait Context<T> {
    fn context(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, raw_block_core::Error> {
    fn context(self, context: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::Device { context, error })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn an_error_gives_its_parts_to_a_program() {
        let device = raw_block_core::Error::os("read", io::Error::from_raw_os_error(libc::EIO));
        let device = device.at(8192, 4096).on("/dev/nvme0n1");
        let error = Err::<(), _>(device.clone()).context("get an object").unwrap_err();
        assert_eq!((error.kind(), error.offset()), (Some(ErrorKind::Io), Some(8192)));
        assert_eq!(error.backend(), Some("/dev/nvme0n1"));
        let source = error.source().unwrap().downcast_ref::<raw_block_core::Error>().unwrap();
        assert_eq!(source.to_string(), device.to_string());
        assert!(error.to_string().ends_with(&device.to_string()));

        let lost = Error::NewestLost { what: "a slot", offset: 512, error: device };
        assert_eq!((lost.kind(), lost.offset()), (Some(ErrorKind::Io), Some(512)));
        let busy = Error::Busy { device: "memory".to_owned() };
        assert_eq!((busy.kind(), busy.backend(), busy.offset()), (None, Some("memory"), None));
        assert!(busy.source().is_none());
    }
}
