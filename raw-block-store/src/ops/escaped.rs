//! Bytes of a device as text.

use std::fmt;

/// Bytes of a key that a text shows.
const SHOWN: usize = 32;

/// The beginning of bytes that came from a device, harmless for a terminal and a log.
pub(super) struct Escaped<'a>(pub(super) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN { write!(f, "... ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}
