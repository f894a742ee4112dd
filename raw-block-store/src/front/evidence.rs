//! What the results of a call say about the device.

use raw_block_core::ErrorKind;

use crate::Error;

/// What the results of a call say about the device.
#[derive(Clone, Debug)]
pub(super) enum Evidence {
    /// It executed something.
    Works,
    /// All that reached it failed, this first.
    Fails(Error),
    /// Nothing reached it.
    None,
}

impl Evidence {
    /// Of the results of a call, where `used_device` says whether a success shows that the device
    /// works. Errors of the medium at one place are no evidence.
    pub(super) fn of<T>(results: &[Result<T, Error>], used_device: impl Fn(&T) -> bool) -> Self {
        if results.iter().flatten().any(used_device) {
            return Self::Works;
        }
        let fails =
            |kind| matches!(kind, ErrorKind::Io | ErrorKind::DeviceGone | ErrorKind::EndOfDevice);
        let mut errors = results.iter().filter_map(|result| result.as_ref().err());
        let failure = errors.find(|error| error.kind().is_some_and(fails));
        failure.map_or(Self::None, |error| Self::Fails(error.clone()))
    }
}
