//! The NVMe status of a failed command.

mod names;

use std::fmt;
use std::time::Duration;

use raw_block_core::{Error, ErrorClass, ErrorKind};

/// The status of an NVMe command (Base Specification, "Status Field"), without its phase tag.
///
/// # Examples
/// ```
/// use raw_block_nvme::{Advice, Status};
///
/// let status = Status::new(0x4281);
/// assert_eq!((status.code_type(), status.code()), (2, 0x81));
/// assert_eq!(status.name(), "Unrecovered Read Error");
/// assert!(status.do_not_retry());
/// assert_eq!(status.advice(), Advice::Medium);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// What a status means for the caller.
///
/// # Examples
/// ```
/// use raw_block_nvme::{Advice, Status};
///
/// let write_fault = Status::new(0x280);
/// assert_eq!(write_fault.advice(), Advice::Medium);
/// println!("{write_fault}: {}", write_fault.advice().text());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// The same command may succeed later. The backend has already retried it.
    Retry,
    /// The path to the device failed, not the device. The backend has already retried the command,
    /// unless the command modifies and its outcome is unknown ([`Status::is_outcome_unknown`]).
    Path,
    /// The data in this range are lost, or cannot be written. Other ranges are not affected. The
    /// error has the kind [`ErrorKind::Media`], unless the status has a more specific one.
    Medium,
    /// The namespace does not accept this command: a bug, or a device that does not do what it
    /// reports.
    Command,
    /// The device, or another host that uses it, does not permit the command now.
    Refused,
    /// The namespace or the controller has changed or failed: an operator should inspect it.
    Device,
}

impl Advice {
    /// The advice as text, for an error.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Retry => "the failure may be transient: try again later",
            Self::Path => "the path to the device failed: check the controller or the connection",
            Self::Medium => {
                "the data in this range are lost or cannot be written; other ranges are not affected"
            }
            Self::Command => {
                "the device does not accept this command: compare it with the limits that the device reports"
            }
            Self::Refused => {
                "the device does not permit it now: check whether another host uses it"
            }
            Self::Device => "the namespace or controller has changed or failed: inspect it",
        }
    }
}

impl Status {
    /// Bits 14 and 13 of the field: Do Not Retry, More.
    const DO_NOT_RETRY: u16 = 1 << 14;
    const MORE: u16 = 1 << 13;

    /// Makes a status from the field as the kernel reports it: the status code in bits 7:0, its
    /// type in 10:8, the retry delay in 12:11, More in 13, Do Not Retry in 14.
    #[must_use]
    pub const fn new(field: u16) -> Self {
        Self(field & 0x7FFF)
    }

    /// The status code type (SCT): 0 generic, 1 command specific, 2 media and data integrity, 3
    /// path, 7 vendor.
    #[must_use]
    pub const fn code_type(self) -> u8 {
        (self.0 >> 8 & 7) as u8
    }

    /// The status code (SC).
    #[must_use]
    pub const fn code(self) -> u8 {
        (self.0 & 0xFF) as u8
    }

    /// Whether the same command would fail again (DNR).
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & Self::DO_NOT_RETRY != 0
    }

    /// Whether the error log of the controller has more information (M).
    #[must_use]
    pub const fn more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// Which Command Retry Delay Time of the controller to wait before a retry (CRD): 1 to 3, or 0
    /// for none.
    #[must_use]
    pub const fn retry_delay_index(self) -> u8 {
        (self.0 >> 11 & 3) as u8
    }

    /// Its name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        names::find(self.code_type(), self.code()).map_or_else(
            || match self.code_type() {
                7 => "vendor-specific status",
                _ => "unknown status",
            },
            |(name, _)| name,
        )
    }

    /// What the status means for the caller.
    #[must_use]
    pub fn advice(self) -> Advice {
        names::find(self.code_type(), self.code()).map_or(Advice::Device, |(_, advice)| advice)
    }

    /// Whether a retry may succeed. A command that modifies must not be retried if
    /// [its outcome is unknown](Self::is_outcome_unknown).
    #[must_use]
    pub fn is_retryable(self) -> bool {
        !self.do_not_retry() && matches!(self.advice(), Advice::Retry | Advice::Path)
    }

    /// Whether it is unknown if and when the command takes effect. This holds for the path errors
    /// that the controller (60h to 6Fh) or the host (70h to 7Fh) detects: the command may have
    /// reached the namespace before the path was lost, and the namespace may still execute it.
    ///
    /// With any other status, the controller has ended the command.
    #[must_use]
    pub const fn is_outcome_unknown(self) -> bool {
        self.code_type() == 3 && self.code() >= 0x60
    }

    /// The status in an error, if the error comes from a command that the controller failed.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        error.os_error()?.get_ref()?.downcast_ref::<Self>().copied()
    }

    /// The kind of the error for this status.
    pub(crate) fn kind(self) -> ErrorKind {
        match (self.code_type(), self.code()) {
            // Invalid Command Opcode
            (0, 0x01) => ErrorKind::Unsupported,
            // Invalid Namespace or Format
            (0, 0x0B) => ErrorKind::DeviceGone,
            // Operation Denied; Namespace is Write Protected; Command Prohibited by Lockdown
            (0, 0x15 | 0x20 | 0x23) => ErrorKind::PermissionDenied,
            // LBA Out of Range
            (0, 0x80) => ErrorKind::OutOfRange,
            // Capacity Exceeded
            (0, 0x81) => ErrorKind::NoSpace,
            // Reservation Conflict
            (0, 0x83) => ErrorKind::Busy,
            // Attempted Write to Read Only Range
            (1, 0x82) => ErrorKind::PermissionDenied,
            // Access Denied
            (2, 0x86) => ErrorKind::PermissionDenied,
            (3, _) => ErrorKind::DeviceGone,
            _ if self.advice() == Advice::Medium => ErrorKind::Media,
            _ => ErrorKind::Io,
        }
    }

    /// An error with this status as its source.
    pub(crate) fn error(self, action: &'static str) -> Error {
        let source = std::io::Error::other(self);
        let error = Error::new(self.kind(), action, self.advice().text()).with_source(source);
        match (self.code_type(), self.code()) {
            // Asymmetric access: this controller executes no commands on the namespace now.
            (3, 0x01..=0x03) => error.with_class(ErrorClass::NotStarted),
            _ => error,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = if self.do_not_retry() { ", do not retry" } else { "" };
        write!(f, "NVMe status {:X}/{:02X}h, {}{again}", self.code_type(), self.code(), self.name())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#06x}, {})", self.0, self.name())
    }
}

impl std::error::Error for Status {}

/// The pause before a retry. `tries` is the number of earlier retries, `delays` are the Command
/// Retry Delay Times of the controller (CRDT1 to 3), in units of 100 ms.
pub(crate) fn pause(status: Status, delays: [u16; 3], tries: u32) -> Duration {
    const UNIT: Duration = Duration::from_millis(100);
    /// The specification allows almost two hours, which is too long for a caller.
    const LONGEST: Duration = Duration::from_secs(10);
    const SHORTEST: Duration = Duration::from_millis(10);
    let requested = match status.retry_delay_index() {
        0 => 0,
        index => delays[usize::from(index) - 1],
    };
    match requested {
        0 => SHORTEST * 2_u32.pow(tries.min(6)),
        units => (UNIT * u32::from(units)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_match_the_specification() {
        let status = Status::new(0x4000 | 0x2000 | 2 << 11 | 2 << 8 | 0x81);
        assert_eq!((status.code_type(), status.code()), (2, 0x81));
        assert!(status.do_not_retry() && status.more());
        assert_eq!(status.retry_delay_index(), 2);
        let text = "NVMe status 2/81h, Unrecovered Read Error, do not retry";
        assert_eq!(status.to_string(), text);
    }

    #[test]
    fn each_type_of_status_has_its_names() {
        let name = |field| Status::new(field).name();
        assert_eq!(name(0x002), "Invalid Field in Command");
        assert_eq!(name(0x080), "LBA Out of Range");
        assert_eq!(name(0x183), "Command Size Limit Exceeded");
        assert_eq!(name(0x280), "Write Fault");
        assert_eq!(name(0x370), "Host Pathing Error");
        assert_eq!(name(0x07F), "unknown status");
        assert_eq!(name(0x701), "vendor-specific status");
    }

    #[test]
    fn transient_statuses_are_retried_unless_forbidden() {
        for field in [0x006, 0x021, 0x022, 0x082, 0x303, 0x370] {
            assert!(Status::new(field).is_retryable(), "{field:#x}");
            assert!(!Status::new(field | 0x4000).is_retryable(), "{field:#x} with do-not-retry");
        }
        for field in [0x001, 0x002, 0x080, 0x183, 0x280, 0x281, 0x301, 0x07F, 0x701] {
            assert!(!Status::new(field).is_retryable(), "{field:#x}");
        }
    }

    #[test]
    fn only_lost_paths_leave_the_outcome_unknown() {
        for field in [0x360, 0x370, 0x371, 0x4371, 0x36F] {
            assert!(Status::new(field).is_outcome_unknown(), "{field:#x}");
        }
        for field in [0x006, 0x007, 0x008, 0x022, 0x070, 0x071, 0x260, 0x300, 0x303, 0x771] {
            assert!(!Status::new(field).is_outcome_unknown(), "{field:#x}");
        }
    }

    #[test]
    fn a_pause_is_as_long_as_the_controller_asks_for() {
        let delays = [3, 0, 60_000];
        let wait = |delay: u16, tries| pause(Status::new(0x021 | delay << 11), delays, tries);
        assert_eq!(wait(1, 4), Duration::from_millis(300));
        assert_eq!(wait(3, 0), Duration::from_secs(10), "the maximum");
        // Without a requested delay, each pause is longer.
        assert_eq!([wait(0, 0), wait(0, 1), wait(2, 2)].map(|wait| wait.as_millis()), [10, 20, 40]);
    }

    #[test]
    fn media_errors_are_distinguished_from_other_errors() {
        for field in [0x280, 0x281, 0x282, 0x283, 0x284, 0x287, 0x288, 0x4281] {
            assert_eq!(Status::new(field).kind(), ErrorKind::Media, "{field:#x}");
        }
        for (field, kind) in [
            (0x006, ErrorKind::Io),
            (0x285, ErrorKind::Io),
            (0x286, ErrorKind::PermissionDenied),
            (0x370, ErrorKind::DeviceGone),
        ] {
            assert_eq!(Status::new(field).kind(), kind, "{field:#x}");
        }
    }

    #[test]
    fn an_error_contains_its_status() {
        let status = Status::new(0x4281);
        let error = status.error("read").at(0, 512).on("/dev/ng0n1");
        assert_eq!(Status::of(&error), Some(status));
        assert_eq!(Status::of(&Error::new(ErrorKind::Io, "read", "")), None);
        let text = error.to_string();
        for part in ["read of 512 bytes at offset 0", "ng0n1", "lost", "Unrecovered Read Error"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
