//! Keys that several entries claim: payloads are verified from the newest entry down.

use std::ops::Range;

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::claims::{Claims, sort_contested};
use super::damages::{Damages, UnreadableBlock};
use super::plan::Segments;
use crate::Error;
use crate::error::Context;
use crate::format::{Entry, Layout};
use crate::mutant::{self, Mutant};
use crate::state::index::{Index, Located};

/// Bytes of payloads that are read at once, unless one has more.
fn batch_len() -> usize {
    mutant::limit(8 << 20, 16 << 10)
}
/// Payloads that are read at once.
const BATCH: usize = 512;

/// Finds the newest intact object of each key with several claims, and corrects the index.
///
/// A payload that cannot be read counts as intact, so that a get reports the error and no older
/// object comes back, unless older states are accepted.
///
/// # Errors
/// [`Error::Device`].
pub(super) fn resolve(
    dispatcher: &Dispatcher,
    layout: &Layout,
    index: &Index,
    claims: &mut Claims<'_>,
    segments: &Segments<'_>,
    damages: &mut Damages<'_>,
) -> Result<(), Error> {
    let is_named = |place| segments.is_named(place);
    let mut contested = std::mem::take(&mut claims.contested);
    sort_contested(&mut contested, is_named);
    // The claims of one key each that were not looked at.
    let mut keys: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for of_key in contested.chunk_by(|a, b| a.entry.key_hash == b.entry.key_hash) {
        let deleted = claims.deleted_at(&of_key[0].entry.key_hash);
        let counting = of_key.iter().take_while(|claim| claim.sequence() > deleted).count();
        if counting > 0 {
            keys.push(first..first + counting);
        }
        first += of_key.len();
    }
    let mut verifier = Verifier { dispatcher, layout, segments, buffer: AlignedBuf::default() };
    while !keys.is_empty() {
        // Neighbours on the device are read together.
        keys.sort_unstable_by_key(|key| contested[key.start].place);
        let newest: Vec<Located> = keys.iter().map(|key| contested[key.start]).collect();
        let mut verdicts = Vec::with_capacity(newest.len());
        verifier.verify(&newest, &mut verdicts, damages)?;
        let mut next = Vec::new();
        for ((mut key, claim), verdict) in keys.into_iter().zip(&newest).zip(verdicts) {
            let counts = verdict == Verdict::Intact
                || verdict == Verdict::Unreadable && !damages.accept_older();
            if counts || Mutant::ClaimsUnverified.is_on() {
                show(index, claim, verdict == Verdict::Intact);
                continue;
            }
            damages.objects += u64::from(is_named(claim.place));
            key.start += 1;
            if key.is_empty() {
                hide(index, claim);
            } else {
                next.push(key);
            }
        }
        keys = next;
    }
    Ok(())
}

/// What is known of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Intact,
    Damaged,
    Unreadable,
}

/// Makes the index show exactly this object of a key.
fn show(index: &Index, claim: &Located, is_verified: bool) {
    let shown = index.find(&claim.entry.key_hash);
    if shown.is_none_or(|shown| !shown.is_same(claim)) {
        hide(index, claim);
        index.insert_recovered(claim, true);
    }
    if is_verified {
        index.set_verified(claim.place);
    }
}

/// Makes the index show nothing for the key of this object.
fn hide(index: &Index, claim: &Located) {
    if let Some(shown) = index.find(&claim.entry.key_hash) {
        index.remove(&shown, None);
    }
}

/// Reads payloads in batches.
struct Verifier<'a> {
    dispatcher: &'a Dispatcher,
    layout: &'a Layout,
    segments: &'a Segments<'a>,
    buffer: AlignedBuf,
}

impl Verifier<'_> {
    /// Appends what is known of the payload of each object.
    fn verify(
        &mut self,
        objects: &[Located],
        verdicts: &mut Vec<Verdict>,
        damages: &mut Damages<'_>,
    ) -> Result<(), Error> {
        let mut rest = objects;
        while !rest.is_empty() {
            let mut len = 0;
            let count = rest
                .iter()
                .take(BATCH)
                .take_while(|object| {
                    let before = len;
                    len += self.read_len(&object.entry);
                    before == 0 || len <= batch_len()
                })
                .count();
            let (batch, left) = rest.split_at(count);
            self.verify_batch(batch, verdicts, damages)?;
            rest = left;
        }
        Ok(())
    }

    fn verify_batch(
        &mut self,
        objects: &[Located],
        verdicts: &mut Vec<Verdict>,
        damages: &mut Damages<'_>,
    ) -> Result<(), Error> {
        const VERIFY: &str = "verify objects";
        let lens = objects.iter().map(|object| self.read_len(&object.entry));
        let lens: Vec<usize> = lens.collect();
        let total = lens.iter().sum();
        if self.buffer.len() < total {
            self.buffer = AlignedBuf::zeroed(total.max(batch_len())).context(VERIFY)?;
        }
        let mut reads = Vec::with_capacity(objects.len());
        let mut rest = &mut self.buffer[..];
        for (object, &len) in objects.iter().zip(&lens) {
            let (buffer, left) = rest.split_at_mut(len);
            rest = left;
            let offset = self.layout.block_offset(object.place.segment, object.entry.block.get());
            reads.push(ReadAt::new(offset, buffer));
        }
        let results = self.dispatcher.read_buffers(&mut reads);
        let mut start = 0;
        for ((object, len), result) in objects.iter().zip(lens).zip(results) {
            let bytes = &self.buffer[start..start + len];
            start += len;
            verdicts.push(match result {
                Ok(()) if self.is_intact(object, bytes) => Verdict::Intact,
                Ok(()) => Verdict::Damaged,
                Err(error) if error.kind().is_io() => {
                    let (segment, block) = (object.place.segment, object.entry.block.get());
                    damages
                        .note_unreadable("an object", &UnreadableBlock { segment, block, error });
                    Verdict::Unreadable
                }
                Err(error) => return Err(error).context(VERIFY),
            });
        }
        Ok(())
    }

    /// How many bytes are read to verify an object: at least a block, because a payload without a
    /// block lies in the header.
    fn read_len(&self, entry: &Entry) -> usize {
        let block_size = self.layout.block_size as usize;
        (entry.payload_len.get() as usize).next_multiple_of(block_size).max(block_size)
    }

    fn is_intact(&self, object: &Located, bytes: &[u8]) -> bool {
        let Located { place, entry } = object;
        if entry.blocks_back.get() > 1 && Mutant::OnlyFirstPayloadVerified.is_on() {
            return true;
        }
        let start = if entry.is_inline() { entry.inline_offset() } else { 0 };
        let payload =
            bytes.get(start..).and_then(|rest| rest.get(..entry.payload_len.get() as usize));
        let generation = self.segments.generation(place.segment);
        payload.is_some_and(|payload| {
            entry.verify_payload(self.layout, place.segment, generation, payload).is_ok()
        })
    }
}
