//! One error type for everything below the store.
//!
//! ```text
//! Error
//! ├── kind      what to match on (ErrorKind, may grow)
//! ├── class     what is known of the effect (ErrorClass)
//! ├── action    what was being done ("write", "open", ...)
//! ├── place     offset and length in bytes, where it was an operation on a range
//! ├── backend   name of the backend: the path of its device, or what identifies it
//! ├── rule      which rule broke, and what to do
//! └── source    the operating system's error, when there is one
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What went wrong, for a program to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A length of zero, an impossible option, a batch that contradicts itself.
    InvalidInput,
    /// An offset or a length breaks the alignment rules of the device.
    Misaligned,
    /// The range is not inside the device, or a lease not inside its region.
    OutOfRange,
    /// Two writes of one batch touch the same bytes, so their order would be undefined; or two
    /// leases would have the same memory.
    Overlap,
    /// The device or the backend cannot do this.
    Unsupported,
    /// The operating system refuses access.
    PermissionDenied,
    /// There is no such path.
    NotFound,
    /// Another process or store holds the device, or a bounded resource of this process is in use.
    Busy,
    /// No memory, file descriptors or lockable memory left.
    OutOfResources,
    /// The file system under a file is full.
    NoSpace,
    /// The device ended before the transfer did: it became smaller since it was opened.
    EndOfDevice,
    /// The device was removed or has failed.
    DeviceGone,
    /// The device or the kernel reports a failed transfer, for another reason than
    /// [`Media`](Self::Media).
    Io,
    /// The medium at this place: its data are lost or fail their check, or it cannot be written.
    /// Other places are not affected.
    Media,
    /// An earlier flush failed, so what is durable is unknown, or an earlier write may still take
    /// effect: writes are refused until the device is opened again.
    WritesStopped,
    /// The process was forked, and this is the child: it must open the device itself, and make its
    /// own regions.
    Forked,
}

impl ErrorKind {
    /// How many kinds there are, for tables indexed by kind.
    pub(crate) const COUNT: usize = Self::Forked as usize + 1;

    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Self::PermissionDenied,
            Some(libc::ENOENT | libc::ENOTDIR) => Self::NotFound,
            Some(libc::EBUSY | libc::EAGAIN | libc::ETXTBSY) => Self::Busy,
            Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Self::OutOfResources,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::NoSpace,
            Some(libc::ENODEV | libc::ENXIO | libc::ESHUTDOWN) => Self::DeviceGone,
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => Self::Unsupported,
            // What the kernel makes of BLK_STS_MEDIUM and BLK_STS_PROTECTION (`block/blk-core.c`),
            // and of a failed checksum in a file system (EFSBADCRC).
            Some(libc::ENODATA | libc::EILSEQ | libc::EBADMSG) => Self::Media,
            _ => Self::Io,
        }
    }

    /// Whether the device failed to execute a transfer: [`Io`](Self::Io) or [`Media`](Self::Media).
    #[must_use]
    pub const fn is_io(self) -> bool {
        matches!(self, Self::Io | Self::Media)
    }
}

/// What is known about the effect of an operation that failed.
///
/// A caller, and the dispatcher when it repeats the parts of a merged op, may repeat an operation
/// of the first two classes. An operation of class [`Unknown`](Self::Unknown) must not be repeated,
/// and nothing newer must be written to its range before the device was opened again: the device
/// may still execute it, after what was written later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The operation was refused before it reached the device. The device is unchanged.
    NotStarted,
    /// The device, or the kernel, has reported the failure. The operation has ended; a write may
    /// have changed a part of its range.
    Failed,
    /// The operation was interrupted or lost. Whether and when it takes effect is unknown.
    Unknown,
}

impl ErrorClass {
    /// The class of an error of this kind, unless the code that reports it overrides it.
    const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidInput
            | ErrorKind::Misaligned
            | ErrorKind::OutOfRange
            | ErrorKind::Overlap
            | ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::Busy
            | ErrorKind::OutOfResources
            | ErrorKind::WritesStopped
            | ErrorKind::Forked => Self::NotStarted,
            ErrorKind::NoSpace
            | ErrorKind::EndOfDevice
            | ErrorKind::DeviceGone
            | ErrorKind::Io
            | ErrorKind::Media => Self::Failed,
        }
    }
}

/// An error of a device, a backend or the dispatcher.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{Dispatcher, ErrorClass, ErrorKind, MemoryBackend, WriteAt};
///
/// let dispatcher = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
/// let error = dispatcher.write_buffers(&[WriteAt::new(100, &[0; 512])]).all().unwrap_err();
/// assert_eq!((error.kind(), error.class()), (ErrorKind::Misaligned, ErrorClass::NotStarted));
/// assert_eq!((error.backend(), error.offset()), (Some("memory"), Some(100)));
/// # Ok::<(), raw_block_core::Error>(())
/// ```
///
/// One word wide, so that a `Result<(), Error>` for each op of a batch is cheap; `Clone`, because
/// what fails a whole batch fails each of its ops.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    class: ErrorClass,
    action: &'static str,
    place: Option<(u64, u64)>,
    backend: Option<Arc<str>>,
    rule: Cow<'static, str>,
    source: Option<Arc<io::Error>>,
}

impl Error {
    /// An error of this library: `rule` says which rule broke and what to do about it.
    pub fn new(kind: ErrorKind, action: &'static str, rule: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            class: ErrorClass::of(kind),
            action,
            place: None,
            backend: None,
            rule: rule.into(),
            source: None,
        }))
    }

    /// An error that the operating system reported; its kind follows from the error number.
    pub fn os(action: &'static str, source: io::Error) -> Self {
        let kind = ErrorKind::of(&source);
        Self::new(kind, action, "").with_source(source)
    }

    /// The same error, of another class than its kind implies.
    #[must_use]
    pub fn with_class(mut self, class: ErrorClass) -> Self {
        self.0.class = class;
        self
    }

    /// The same error with the operating system's error as its source.
    #[must_use]
    pub fn with_source(mut self, source: io::Error) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The same error, about `len` bytes at byte `offset` of the device.
    #[must_use]
    pub fn at(mut self, offset: u64, len: u64) -> Self {
        self.0.place = Some((offset, len));
        self
    }

    /// The same error on the backend with this [name](crate::backend::IoBackend::name).
    #[must_use]
    pub fn on(mut self, backend: impl Into<Arc<str>>) -> Self {
        self.0.backend = Some(backend.into());
        self
    }

    /// Names the backend, unless the error names one already.
    pub(crate) fn name_backend(&mut self, backend: &str) {
        self.0.backend.get_or_insert_with(|| backend.into());
    }

    /// The same error with another rule: which one broke and what to do about it.
    #[must_use]
    pub fn with_rule(mut self, rule: impl Into<Cow<'static, str>>) -> Self {
        self.0.rule = rule.into();
        self
    }

    /// What went wrong, for a program to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is known about the effect of the operation that failed.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The [name](crate::backend::IoBackend::name) of the backend, if the error comes from one.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// The offset in bytes of the range that the operation was on, if it was on one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.place.map(|(offset, _)| offset)
    }

    /// The length in bytes of the range that the operation was on, if it was on one.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.0.place.map(|(_, length)| length)
    }

    /// The operating system's error, if there is one.
    #[must_use]
    pub fn os_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(inner.action)?;
        if let Some((offset, len)) = inner.place {
            write!(f, " of {len} bytes at offset {offset}")?;
        }
        if let Some(backend) = &inner.backend {
            write!(f, " on {backend}")?;
        }
        if !inner.rule.is_empty() {
            write!(f, ": {}", inner.rule)?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

/// The text is complete: it ends with that of the [source](std::error::Error::source), so that one
/// line in a log says everything.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.os_error().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_where_and_why() {
        let error = Error::os("write", io::Error::from_raw_os_error(libc::EIO))
            .at(8192, 4096)
            .on("/dev/nvme0n1");
        assert_eq!(
            error.to_string(),
            "write of 4096 bytes at offset 8192 on /dev/nvme0n1: Input/output error (os error 5)"
        );
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.class(), ErrorClass::Failed);
    }

    #[test]
    fn an_error_gives_its_parts_to_a_program() {
        let error = Error::os("read", io::Error::from_raw_os_error(libc::EIO));
        assert_eq!((error.backend(), error.offset(), error.length()), (None, None, None));
        let error = error.at(8192, 4096).on("/dev/nvme0n1");
        assert_eq!(error.backend(), Some("/dev/nvme0n1"));
        assert_eq!((error.offset(), error.length()), (Some(8192), Some(4096)));
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>();
        assert_eq!(source.unwrap().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn errors_of_the_medium_have_their_own_kind() {
        let of = |errno| Error::os("read", io::Error::from_raw_os_error(errno));
        for errno in [libc::ENODATA, libc::EILSEQ, libc::EBADMSG] {
            assert_eq!(of(errno).kind(), ErrorKind::Media, "{errno}");
            assert_eq!(of(errno).class(), ErrorClass::Failed, "{errno}");
        }
        assert_eq!(of(libc::EIO).kind(), ErrorKind::Io);
        assert_eq!(of(libc::EREMOTEIO).kind(), ErrorKind::Io, "the target, and not its medium");
    }

    #[test]
    fn a_class_follows_from_the_kind_unless_it_is_given() {
        let refused = Error::new(ErrorKind::Misaligned, "write", "the rule");
        assert_eq!(refused.class(), ErrorClass::NotStarted);
        let unknown = refused.with_class(ErrorClass::Unknown);
        assert_eq!((unknown.kind(), unknown.class()), (ErrorKind::Misaligned, ErrorClass::Unknown));
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
