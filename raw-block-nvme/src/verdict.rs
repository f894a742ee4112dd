//! What a completion means for its command.

use std::io;
use std::time::Duration;

use raw_block_core::backend::OpKind;
use raw_block_core::{Error, ErrorClass};

use crate::status::{Status, pause};

/// How often a command is issued again after a status that may pass.
const MAX_RETRIES: u32 = 5;
/// How often a command is issued again that the kernel has not sent at all.
const MAX_RESUBMITS: u32 = 16;

#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Done,
    /// To be issued again at once: the controller has never seen it.
    Again,
    /// To be issued again after a pause.
    After(Duration),
    /// The kernel does not take it as it is, which has several reasons.
    Refit,
    Failed(Error),
}

/// Interprets the result of a passthrough command: 0, a status of the controller, or a negative `errno` of the kernel.
///
/// `tries` is how often the command was issued again already, `delays` are the controller's retry delays. A command
/// whose outcome is unknown is never issued again: the controller may still carry out the first one, after something
/// newer was written to its range.
pub(crate) fn judge(kind: OpKind, result: i32, tries: u32, delays: [u16; 3]) -> Verdict {
    if result == 0 {
        return Verdict::Done;
    }
    let error = error(kind, result);
    if error.class() == ErrorClass::Unknown {
        return Verdict::Failed(error);
    }
    let again = |status| Verdict::After(pause(status, delays, tries));
    if let Ok(field) = u16::try_from(result) {
        let status = Status::new(field);
        let repeated = status.is_retryable() && tries < MAX_RETRIES;
        return if repeated { again(status) } else { Verdict::Failed(error) };
    }
    match result.saturating_neg() {
        // Neither was sent. ECANCELED: the submitting thread ended, and with it the kernel's worker that would have sent
        // the command; the kernel does not cancel a command that it has sent.
        libc::EAGAIN | libc::ECANCELED if tries < MAX_RESUBMITS => Verdict::Again,
        libc::EINTR | libc::ETIMEDOUT if tries < MAX_RETRIES => again(Status::new(0)),
        libc::EINVAL => Verdict::Refit,
        _ => Verdict::Failed(error),
    }
}

/// The error that the result of a command of this kind makes; `result` is not 0.
pub(crate) fn error(kind: OpKind, result: i32) -> Error {
    let (error, is_unknown) = if let Ok(field) = u16::try_from(result) {
        let status = Status::new(field);
        (status.error(kind.name()), status.is_outcome_unknown())
    } else {
        let errno = result.saturating_neg();
        (explain(kind, errno), matches!(errno, libc::EINTR | libc::ETIMEDOUT))
    };
    // A command that changes nothing has no effect to be unsure of.
    if !is_unknown || !kind.modifies() {
        return error;
    }
    error.with_class(ErrorClass::Unknown).with_rule(
        "the command was interrupted, by a timeout, a reset or a lost path; whether and when it takes effect is unknown: \
         open the device again before anything is written there",
    )
}

/// The error that an `errno` of the kernel makes.
pub(crate) fn explain(kind: OpKind, errno: i32) -> Error {
    let error = Error::os(kind.name(), io::Error::from_raw_os_error(errno));
    match errno {
        libc::EINTR | libc::ETIMEDOUT => {
            error.with_rule("the kernel took the command back from the controller, after a timeout or a reset")
        }
        libc::ECANCELED => error.with_class(ErrorClass::NotStarted),
        libc::EINVAL => error
            .with_rule(
                "the kernel does not take this command, also not in halves: open the device with a smaller \
                 `max_command`",
            )
            .with_class(ErrorClass::NotStarted),
        libc::ENODEV | libc::ENXIO => {
            error.with_rule("the device is gone, or its controller does not work any more")
        }
        libc::EACCES | libc::EPERM => error.with_rule(
            "the kernel does not let this user send this command: before Linux 6.2 that takes CAP_SYS_ADMIN",
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
    fn a_status_is_told_from_an_errno() {
        assert!(matches!(verdict(OpKind::Read, 0, 0), Verdict::Done));
        let Verdict::Failed(error) = verdict(OpKind::Read, 0x281, 0) else { panic!() };
        assert_eq!(Status::of(&error), Some(Status::new(0x281)));
        let Verdict::Failed(error) = verdict(OpKind::Read, -libc::ENODEV, 0) else { panic!() };
        assert_eq!((error.kind(), Status::of(&error)), (ErrorKind::DeviceGone, None));
        assert!(matches!(verdict(OpKind::Write, -libc::EINVAL, 0), Verdict::Refit));
        assert!(matches!(verdict(OpKind::Write, i32::MIN, 0), Verdict::Failed(_)));
    }

    #[test]
    fn retries_end() {
        let result = 0x022;
        assert!(matches!(verdict(OpKind::Write, result, 4), Verdict::After(_)));
        assert!(matches!(verdict(OpKind::Write, result, 5), Verdict::Failed(_)));
        assert!(matches!(verdict(OpKind::Write, result | 0x4000, 0), Verdict::Failed(_)));
        assert!(matches!(verdict(OpKind::Write, -libc::EAGAIN, 15), Verdict::Again));
        assert!(matches!(verdict(OpKind::Write, -libc::ECANCELED, 16), Verdict::Failed(_)));
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_is_never_repeated() {
        // Given up by the kernel; then the path errors that controller and host detect.
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
                assert!(matches!(verdict(kind, result, 0), Verdict::After(_)), "{kind:?}");
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
            // A path lost between host and namespace, whether or not it is worth a retry.
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
