//! Whether a regular file has content. Software that writes files puts magic numbers in them that
//! no table has.

use raw_block_core::Dispatcher;

use super::{Part, Signature, read};
use crate::Error;

/// How many blocks are looked at between the parts that are looked at wholly.
const SAMPLES: u64 = 256;

/// The first byte that is not zero, among those of `parts` and of blocks at equal distances between
/// them.
///
/// # Errors
/// [`Error::Device`].
pub(super) fn find(dispatcher: &Dispatcher, parts: &[Part]) -> Result<Option<Signature>, Error> {
    for (offset, part) in parts {
        if let Some(found) = first(*offset, part) {
            return Ok(Some(found));
        }
    }
    let [(start, first_part), .., (end, _)] = parts else { return Ok(None) };
    let start = start + first_part.len() as u64;
    let block = u64::from(dispatcher.geometry().transfer_alignment);
    let blocks = end.saturating_sub(start) / block;
    let step = blocks.div_ceil(SAMPLES).max(1);
    for nth in (0..blocks).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let offset = start + nth * block;
        if let Some(found) = first(offset, &read(dispatcher, offset, block)?) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn first(offset: u64, bytes: &[u8]) -> Option<Signature> {
    let at = bytes.iter().position(|&byte| byte != 0)?;
    Some(Signature { what: "data of an unknown kind", offset: offset + at as u64 })
}
