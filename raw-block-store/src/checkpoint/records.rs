//! Step 4: what a checkpoint says of each segment.

use raw_block_core::AlignedBuf;

use super::write;
use crate::Error;
use crate::format::{self, Body, RecordWriter, SegmentRecord};
use crate::mutant::{self, Mutant};
use crate::state::StoreState;
use crate::state::space::{CheckpointPlan, SegmentPlan, Space};

/// Bits of a word.
const WORD: u32 = u64::BITS;

/// Copies the records of all segments, while changes go on: each entry is named that existed when
/// the contents were chosen and is live now. What was in flight then, or began since, is above the
/// covered sequence and past the settled prefix of its segment, so a recovery finds it by itself.
///
/// # Errors
/// [`Error::Device`] if there is no memory, [`Error::Encode`].
pub(super) fn copy(
    state: &StoreState,
    plan: &mut CheckpointPlan,
) -> Result<Body<AlignedBuf>, Error> {
    let mut writer = RecordWriter::new(&state.layout);
    let mut left = state.layout.container_len / u64::from(state.layout.block_size.max(1));
    let mut more = || {
        let piece = write::piece(state, left)?;
        left -= (piece.len() as u64 / u64::from(state.layout.block_size)).min(left);
        Ok::<_, Error>(piece)
    };
    let mut bits = Vec::new();
    for (segment, of) in (0..).zip(&plan.segments) {
        bits.clear();
        let record = if of.used {
            copy_bits(state, segment, of, plan.covered, &mut bits);
            record(state, segment, of)
        } else {
            SegmentRecord::unused(of.generation, of.bad)
        };
        writer.add(&record, &bits, &mut more)?;
        if mutant::simulates() {
            // Other threads may go first here, where real ones may go at any time.
            state.with_space(|_| ());
        }
    }
    if Mutant::CoveredChosenAfterCopy.is_on() {
        plan.covered = state.with_space(|space| Space::coverable(space));
    }
    Ok(writer.finish()?)
}

fn record(state: &StoreState, segment: u32, of: &SegmentPlan) -> SegmentRecord {
    let mut settled = of.settled;
    if Mutant::PrefixChosenAfterCopy.is_on() {
        let now = state.with_space(|space| space.settled(segment));
        settled =
            now.map_or(settled, |now| if now > of.entries { now } else { now.min(of.entries) });
    }
    let unverified = state.index.any_unverified(segment) && !Mutant::UnverifiedForgotten.is_on();
    SegmentRecord {
        generation: of.generation,
        used: true,
        unverified,
        bad: of.bad,
        stream: format::Stream::ALL[of.stream as usize],
        settled,
        entries: of.entries,
        next_block: of.next_block,
        table: of.table,
    }
}

/// A bit for each entry that is live, those past the settled prefix and above the covered sequence
/// included.
fn copy_bits(
    state: &StoreState,
    segment: u32,
    of: &SegmentPlan,
    covered: u64,
    bits: &mut Vec<u64>,
) {
    state.index.live_words(segment, bits);
    bits.resize(of.entries.div_ceil(WORD) as usize, 0);
    // Entries that were allocated since then have no bit.
    clear_from(bits, of.entries);
    if Mutant::OnlyPrefixNamed.is_on() {
        clear_from(bits, of.settled);
    }
    let above = Mutant::AboveCoveredNotNamed.is_on();
    if above || Mutant::TombstonesNotNamed.is_on() {
        state.index.for_each_live(segment, |number, entry| {
            if entry.sequence.get() > covered && (above || entry.is_tombstone()) {
                clear(bits, number);
            }
        });
    }
}

/// Clears the bits of all entries from this number on.
fn clear_from(bits: &mut [u64], number: u32) {
    let (word, bit) = ((number / WORD) as usize, number % WORD);
    if let Some(rest) = bits.get_mut(word..) {
        if let Some(first) = rest.first_mut() {
            *first &= (1 << bit) - 1;
        }
        rest.iter_mut().skip(1).for_each(|word| *word = 0);
    }
}

fn clear(bits: &mut [u64], number: u32) {
    if let Some(word) = bits.get_mut((number / WORD) as usize) {
        *word &= !(1 << (number % WORD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_cleared_from_a_number_on() {
        for number in [0, 1, 63, 64, 65, 127, 128, 200, u32::MAX] {
            let mut bits = [u64::MAX; 2];
            clear_from(&mut bits, number);
            for at in 0..128 {
                let is_set = bits[at as usize / 64] >> (at % 64) & 1 == 1;
                assert_eq!(is_set, at < number, "bit {at} of {number}");
            }
        }
        let mut bits = [u64::MAX; 2];
        clear(&mut bits, 64);
        clear(&mut bits, 500);
        assert_eq!(bits, [u64::MAX, u64::MAX - 1]);
    }
}
