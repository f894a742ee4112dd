//! What a device holds that is not a store: known by the magic numbers that other software puts on
//! devices, and in a regular file by any byte that is not zero.

mod content;
mod table;

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use crate::Error;
use crate::error::Context;
use crate::open::zeroes;
use table::KNOWN;

/// Bytes at the start of a device that are looked at. The farthest magic number is that of the
/// second header of LUKS, at 4 MiB.
const START_LEN: u64 = (4 << 20) + (64 << 10);
/// Bytes at the end of a device that are looked at. The farthest magic number is that of a RAID of
/// Promise, 3087 sectors from the end.
const END_LEN: u64 = 2 << 20;
/// Bytes that are erased together, a multiple of any block of a store.
const ERASED_LEN: usize = 64 << 10;

/// What is on a device that is not a store.
#[derive(Debug)]
pub(crate) struct Signature {
    /// What it is the sign of.
    pub(crate) what: &'static str,
    /// Where it is, in bytes.
    pub(crate) offset: u64,
}

/// A part of the device, and where it begins.
type Part = (u64, AlignedBuf);

/// The signatures on a device of something other than a store.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn find(dispatcher: &Dispatcher) -> Result<Vec<Signature>, Error> {
    let mut parts = Vec::new();
    for (offset, len) in looked_at(dispatcher) {
        parts.push((offset, read(dispatcher, offset, len)?));
    }
    let mut found = known(&parts, dispatcher.geometry().capacity);
    if found.is_empty() && dispatcher.geometry().regular_file {
        found.extend(content::find(dispatcher, &parts)?);
    }
    Ok(found)
}

/// The signatures in the parts of a device of `capacity` bytes.
fn known(parts: &[Part], capacity: u64) -> Vec<Signature> {
    let holds = |offset: u64, magic: &[u8]| {
        parts.iter().any(|(from, part)| {
            let at = offset.checked_sub(*from).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| part.get(at..)?.get(..magic.len())) == Some(magic)
        })
    };
    let mut found = Vec::new();
    for &(what, places, magics) in KNOWN {
        let offsets = places.iter().flat_map(|place| place.offsets(capacity));
        let hits = offsets.filter(|&offset| magics.iter().any(|magic| holds(offset, magic)));
        found.extend(hits.map(|offset| Signature { what, offset }));
    }
    found
}

/// Durably overwrites with zeroes all places where a signature may be, so that no other software
/// takes the device for what it was. What is zero already is not written.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn erase(dispatcher: &Dispatcher) -> Result<(), Error> {
    const CONTEXT: &str = "erase what was on the device";
    for (offset, len) in looked_at(dispatcher) {
        let part = read(dispatcher, offset, len)?;
        let zeroes = [0; ERASED_LEN];
        for (offset, chunk) in (offset..).step_by(ERASED_LEN).zip(part.chunks(ERASED_LEN)) {
            if *chunk != zeroes[..chunk.len()] {
                zeroes::write(dispatcher, offset, chunk.len() as u64, CONTEXT)?;
            }
        }
    }
    dispatcher.flush().context(CONTEXT)
}

/// Offset and length in bytes of the parts of a device that can have signatures, in whole blocks.
fn looked_at(dispatcher: &Dispatcher) -> impl Iterator<Item = (u64, u64)> + use<> {
    let capacity = dispatcher.geometry().capacity;
    let alignment = u64::from(dispatcher.geometry().transfer_alignment);
    let usable = capacity - capacity % alignment;
    let start_len = START_LEN.next_multiple_of(alignment).min(usable);
    let end_len = END_LEN.next_multiple_of(alignment).min(usable - start_len);
    [(0, start_len), (usable - end_len, end_len)].into_iter().filter(|&(_, len)| len > 0)
}

fn read(dispatcher: &Dispatcher, offset: u64, len: u64) -> Result<AlignedBuf, Error> {
    const CONTEXT: &str = "look for what is on the device";
    let mut buffer =
        AlignedBuf::zeroed(usize::try_from(len).unwrap_or(usize::MAX)).context(CONTEXT)?;
    dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut buffer)]).all().context(CONTEXT)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests;
