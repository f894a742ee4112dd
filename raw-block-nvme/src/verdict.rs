//! Decides what a completion means for its command.

use std::io;
use std::time::Duration;

use raw_block_core::backend::OpKind;
use raw_block_core::{Error, ErrorClass};

use crate::status::{Status, pause};

/// How often a command is retried after a transient status.
const MAX_RETRIES: u32 = 5;
/// How often a command is resubmitted that the kernel has not sent.
const MAX_RESUBMITS: u32 = 16;

#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Done,
    /// Submit it again at once: it never reached the controller.
    Resubmit,
    /// Submit it again after this pause.
    RetryAfter(Duration),
    /// The kernel rejects it in this form, for one of several reasons.
    Rejected,
    Failed(Error),
}

/// Judges the result of a passthrough command: 0, a status of the controller, or a negative `errno`
/// of the kernel.
///
/// `tries` is the number of earlier retries, `delays` are the retry delays of the controller. A
/// command whose outcome is unknown is never repeated: the controller may still execute the first
/// one, after newer data were written to its range.
pub(crate) fn judge(kind: OpKind, result: i32, tries: u32, delays: [u16; 3]) -> Verdict {
    if result == 0 {
        return Verdict::Done;
    }
    let error = error(kind, result);
    if error.class() == ErrorClass::Unknown {
        return Verdict::Failed(error);
    }
    let retry = |status| Verdict::RetryAfter(pause(status, delays, tries));
    if let Ok(field) = u16::try_from(result) {
        let status = Status::new(field);
        let is_retried = status.is_retryable() && tries < MAX_RETRIES;
        return if is_retried { retry(status) } else { Verdict::Failed(error) };
    }
    match result.saturating_neg() {
        // The kernel has not sent the command. ECANCELED: the submitting thread ended, and with it
        // the worker that would have sent the command; the kernel does not cancel a command that it
        // has sent.
        libc::EAGAIN | libc::ECANCELED if tries < MAX_RESUBMITS => Verdict::Resubmit,
        libc::EINTR | libc::ETIMEDOUT if tries < MAX_RETRIES => retry(Status::new(0)),
        libc::EINVAL => Verdict::Rejected,
        _ => Verdict::Failed(error),
    }
}

/// The error for the result of a command of this kind; `result` is not 0.
pub(crate) fn error(kind: OpKind, result: i32) -> Error {
    let (error, is_unknown) = if let Ok(field) = u16::try_from(result) {
        let status = Status::new(field);
        (status.error(kind.name()), status.is_outcome_unknown())
    } else {
        let errno = result.saturating_neg();
        (explain(kind, errno), matches!(errno, libc::EINTR | libc::ETIMEDOUT))
    };
    // A command that modifies nothing has no unknown effect.
    if !is_unknown || !kind.modifies() {
        return error;
    }
    error.with_class(ErrorClass::Unknown).with_rule(
        "a timeout, a reset or a lost path interrupted the command, and it is unknown whether and when it takes effect: \
         open the device again before you write there",
    )
}

/// The error for an `errno` of the kernel.
pub(crate) fn explain(kind: OpKind, errno: i32) -> Error {
    let error = Error::os(kind.name(), io::Error::from_raw_os_error(errno));
    match errno {
        libc::EINTR | libc::ETIMEDOUT => {
            error.with_rule("the kernel aborted the command after a timeout or a reset")
        }
        libc::ECANCELED => error.with_class(ErrorClass::NotStarted),
        libc::EINVAL => error
            .with_rule(
                "the kernel rejects this command, also in halves: open the device with a smaller \
                 `max_command`",
            )
            .with_class(ErrorClass::NotStarted),
        libc::ENODEV | libc::ENXIO => {
            error.with_rule("the device is gone, or its controller has failed")
        }
        libc::EACCES | libc::EPERM => error.with_rule(
            "this user may not send the command: before Linux 6.2 that needs CAP_SYS_ADMIN",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use raw_block_core::{ErrorClass, ErrorKind};

    use super::*;

    fn verdict(kind: OpKind, result: i32, tries: u32) -> Verdict {
        judge(kind, result, tries, [0; 3])
    }

    #[test]
    fn a_status_is_distinguished_from_an_errno() {
        assert!(matches!(verdict(OpKind::Read, 0, 0), Verdict::Done));
        let Verdict::Failed(error) = verdict(OpKind::Read, 0x281, 0) else { panic!() };
        assert_eq!(Status::of(&error), Some(Status::new(0x281)));
        let Verdict::Failed(error) = verdict(OpKind::Read, -libc::ENODEV, 0) else { panic!() };
        assert_eq!((error.kind(), Status::of(&error)), (ErrorKind::DeviceGone, None));
        assert!(matches!(verdict(OpKind::Write, -libc::EINVAL, 0), Verdict::Rejected));
        assert!(matches!(verdict(OpKind::Write, i32::MIN, 0), Verdict::Failed(_)));
    }

    #[test]
    fn retries_end() {
        let result = 0x022;
        assert!(matches!(verdict(OpKind::Write, result, 4), Verdict::RetryAfter(_)));
        assert!(matches!(verdict(OpKind::Write, result, 5), Verdict::Failed(_)));
        assert!(matches!(verdict(OpKind::Write, result | 0x4000, 0), Verdict::Failed(_)));
        assert!(matches!(verdict(OpKind::Write, -libc::EAGAIN, 15), Verdict::Resubmit));
        assert!(matches!(verdict(OpKind::Write, -libc::ECANCELED, 16), Verdict::Failed(_)));
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_is_never_repeated() {
        // Aborted by the kernel; then the path errors that the controller and the host detect.
        for result in [-libc::EINTR, -libc::ETIMEDOUT, 0x360, 0x361, 0x370, 0x371, 0x37F] {
            for kind in [OpKind::Write, OpKind::Discard, OpKind::WriteZeroes] {
                let Verdict::Failed(error) = verdict(kind, result, 0) else { panic!("{result}") };
                assert_eq!(error.class(), ErrorClass::Unknown, "{kind:?}, {result}");
                assert!(error.to_string().contains("unknown"), "{error}");
            }
        }
    }

    #[test]
    fn reads_and_flushes_are_repeated_and_never_unknown() {
        for result in [-libc::EINTR, -libc::ETIMEDOUT, 0x360, 0x370, 0x371] {
            for kind in [OpKind::Read, OpKind::Flush] {
                assert!(matches!(verdict(kind, result, 0), Verdict::RetryAfter(_)), "{kind:?}");
                let Verdict::Failed(error) = verdict(kind, result, 5) else { panic!("{kind:?}") };
                assert_eq!(error.class(), ErrorClass::Failed, "{kind:?}, {result}");
            }
        }
    }

    #[test]
    fn each_status_and_errno_has_the_class_of_its_effect() {
        use ErrorClass::{Failed, NotStarted, Unknown};
        for (result, class) in [
            // Ended by the controller: internal error, both aborts, media errors, a path inside it.
            (0x006, Failed),
            (0x007, Failed),
            (0x008, Failed),
            (0x01B, Failed),
            (0x022, Failed),
            (0x280, Failed),
            (0x300, Failed),
            (0x719, Failed),
            // Refused by the controller: opcode, protection, range, reservation, asymmetric access.
            (0x001, NotStarted),
            (0x020, NotStarted),
            (0x080, NotStarted),
            (0x083, NotStarted),
            (0x301, NotStarted),
            (0x302, NotStarted),
            (0x303, NotStarted),
            (0x4303, NotStarted),
            // A path lost between host and namespace, retryable or not.
            (0x360, Unknown),
            (0x4371, Unknown),
            // Never sent by the kernel.
            (-libc::EAGAIN, NotStarted),
            (-libc::ECANCELED, NotStarted),
            (-libc::EINVAL, NotStarted),
            (-libc::EACCES, NotStarted),
            (-libc::EIO, Failed),
            (-libc::ENODEV, Failed),
        ] {
            assert_eq!(error(OpKind::Write, result).class(), class, "{result:#x}");
        }
    }
}
