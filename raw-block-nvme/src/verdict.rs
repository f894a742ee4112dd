//! What a completion means for its command.

use std::io;
use std::time::Duration;

use raw_block_core::{Error, OpKind};

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

/// Takes in the result of a passthrough command: 0, a status of the controller's, or a negative `errno` of the
/// kernel's.
///
/// `tries` says how often it was issued again already, `delays` are the controller's retry delays.
pub(crate) fn judge(kind: OpKind, result: i32, tries: u32, delays: [u16; 3]) -> Verdict {
    if result == 0 {
        return Verdict::Done;
    }
    if let Ok(field) = u16::try_from(result) {
        let status = Status::new(field);
        return if status.is_retryable() && tries < MAX_RETRIES {
            Verdict::After(pause(status, delays, tries))
        } else {
            Verdict::Failed(status.error(kind.name()))
        };
    }
    match result.saturating_neg() {
        // ECANCELED: the thread that submitted it ended, and with it the kernel's worker.
        libc::EAGAIN | libc::ECANCELED if tries < MAX_RESUBMITS => Verdict::Again,
        // It was taken back from the controller, by a reset or because it took too long. Whether it took effect, and
        // when it does, is unknown: only what changes nothing can be repeated.
        libc::EINTR if matches!(kind, OpKind::Read | OpKind::Flush) && tries < MAX_RETRIES => {
            Verdict::After(pause(Status::new(0), delays, tries))
        }
        libc::EINVAL => Verdict::Refit,
        errno => Verdict::Failed(explain(kind, errno)),
    }
}

/// The error that an `errno` of the kernel's makes.
pub(crate) fn explain(kind: OpKind, errno: i32) -> Error {
    let error = Error::os(kind.name(), io::Error::from_raw_os_error(errno));
    match errno {
        libc::EINTR => error.because(
            "the kernel took the command back from the controller, after a timeout or a reset; whether it took effect \
             is unknown",
        ),
        libc::EINVAL => error.because(
            "the kernel does not take this command, also not in halves: open the device with a smaller `max_command`",
        ),
        libc::ENODEV | libc::ENXIO => {
            error.because("the device is gone, or its controller does not work any more")
        }
        libc::EACCES | libc::EPERM => error.because(
            "the kernel does not let this user send this command: before Linux 6.2 that takes CAP_SYS_ADMIN",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use raw_block_core::ErrorKind;

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
    fn what_was_cancelled_is_repeated_only_if_it_changes_nothing() {
        for kind in [OpKind::Read, OpKind::Flush] {
            assert!(matches!(verdict(kind, -libc::EINTR, 0), Verdict::After(_)), "{kind:?}");
            assert!(matches!(verdict(kind, -libc::EINTR, 5), Verdict::Failed(_)), "{kind:?}");
        }
        for kind in [OpKind::Write, OpKind::Discard, OpKind::WriteZeroes] {
            let Verdict::Failed(error) = verdict(kind, -libc::EINTR, 0) else { panic!("{kind:?}") };
            assert!(error.to_string().contains("unknown"), "{error}");
        }
    }
}
