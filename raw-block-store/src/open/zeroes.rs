//! Zeroes, written and not merely promised.

use raw_block_core::{AlignedBuf, Dispatcher, WriteAt};

use crate::Error;
use crate::error::Context;
use crate::io::fixed;

/// Length in bytes of one write.
const CHUNK_LEN: u64 = 1 << 20;
/// How many writes are one batch.
const BATCH: usize = 32;

/// Writes zeroes to `len` bytes of the device from byte `offset` on, both in whole blocks.
///
/// They are written rather than made by [`Dispatcher::write_zeroes`], which in a file may leave a
/// hole: afterwards the file system has space for them.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn write(
    dispatcher: &Dispatcher,
    offset: u64,
    len: u64,
    context: &'static str,
) -> Result<(), Error> {
    let chunk = CHUNK_LEN.min(len);
    let zeroes =
        AlignedBuf::zeroed(usize::try_from(chunk).unwrap_or(usize::MAX)).context(context)?;
    let mut writes = Vec::with_capacity(BATCH);
    let mut done = 0;
    while done < len {
        writes.clear();
        while done < len && writes.len() < BATCH {
            let part = (len - done).min(chunk);
            let part_len = usize::try_from(part).unwrap_or(zeroes.len());
            writes.push(WriteAt::new(offset + done, &zeroes[..part_len]));
            done += part;
        }
        fixed::write(dispatcher, &writes).all().context(context)?;
    }
    Ok(())
}
