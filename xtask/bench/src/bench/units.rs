//! Numbers with units.

use humansize::{BINARY, format_size};

/// A number of bytes with a binary unit.
pub(super) fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}
