//! Finding out what the store holds when it is opened.

mod delete_log;
mod headers;

use std::collections::HashMap;

use raw_block_core::{AlignedBuf, Dispatcher, ErrorKind, ReadAt};

use crate::checkpoint::{self, Checkpoint, Committed};
use crate::error::Doing;
use crate::fault::Fault;
use crate::format::{ObjectEntry, SlotHeader, Superblock, records_per_block};
use crate::index::{Index, KeyHash, Located};
use crate::layout::slot_offset;
use crate::limited_log::{log_count, log_first};
use crate::{Error, OpenOptions};
use delete_log::Log;
use headers::Headers;

/// Bytes of headers or log blocks that are read as one batch.
const PIECE: usize = 4 << 20;

/// What a device holds.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) committed: Committed,
    /// Above every sequence seen anywhere.
    pub(crate) next_sequence: u64,
    /// Whether the store was closed in order, and this is what it held then.
    pub(crate) clean: bool,
    /// Objects that were found to be damaged.
    pub(crate) damaged: u64,
}

/// Finds out what a store holds: from the checkpoint that its clean mark names, if it was closed in order;
/// otherwise from the newest checkpoint and everything newer. Writes nothing.
///
/// With [`OpenOptions::accept_older_states`] the older checkpoint takes the place of a newest one that is damaged, and
/// what cannot be read is left out.
pub(crate) fn recover(
    device: &Dispatcher,
    store: &Superblock,
    clean: Option<u64>,
    options: &OpenOptions,
) -> Result<Recovered, Error> {
    let accept_older = options.accept_older_states;
    let checkpoints = checkpoint::find(device, store)?;
    let lost = |number, reason: String| {
        let device = device.backend().device().to_owned();
        Error::CheckpointLost { device, number, reason }
    };
    let mut newest = checkpoints.iter().map(|found| found.committed.number).max().unwrap_or(0);
    let mut loss = None;
    if let Some(named) = clean {
        newest = newest.max(named);
        match checkpoints.iter().find(|found| found.committed.number == named) {
            Some(named) => match load(device, store, named) {
                Ok(recovered) => return Ok(recovered),
                Err(error @ Error::OutOfMemory { .. }) => return Err(error),
                Err(error) => loss = Some(lost(named.committed.number, error.to_string())),
            },
            None => loss = Some(lost(named, "there is no checkpoint of this number".into())),
        }
    }
    for candidate in checkpoints.iter().filter(|found| Some(found.committed.number) != clean) {
        if let Some(loss) = loss.take_if(|_| !accept_older) {
            return Err(loss);
        }
        match replay(device, store, candidate, options) {
            Ok(Replayed { index, next_sequence, mentioned, damaged }) => {
                let number = candidate.committed.number;
                if mentioned > number && !accept_older {
                    let reason = "what was written after it names it, and its header is gone";
                    return Err(lost(mentioned, reason.into()));
                }
                newest = newest.max(mentioned);
                if newest > number {
                    tracing::error!(
                        device = device.backend().device(),
                        lost = newest,
                        number,
                        "an older checkpoint takes the place of the newest: old objects may be back"
                    );
                }
                if damaged > 0 {
                    tracing::warn!(
                        device = device.backend().device(),
                        damaged,
                        "objects that the checkpoint names are damaged, and gone"
                    );
                }
                let committed = Committed { last_number: newest, ..candidate.committed };
                tracing::info!(
                    device = device.backend().device(),
                    objects = index.len(),
                    "a store that was not closed in order was recovered"
                );
                let clean = false;
                return Ok(Recovered { index, committed, next_sequence, clean, damaged });
            }
            Err(error @ (Error::OutOfMemory { .. } | Error::NewestLost { .. })) => {
                return Err(error);
            }
            Err(error) => {
                loss.get_or_insert_with(|| lost(candidate.committed.number, error.to_string()));
            }
        }
    }
    Err(loss.unwrap_or_else(|| lost(newest, "there is no other".into())))
}

/// Reads the index of a store that was closed in order.
fn load(device: &Dispatcher, store: &Superblock, named: &Checkpoint) -> Result<Recovered, Error> {
    let index = Index::new(store.slot_count.get())?;
    named.entries(device, store, |first, entries| {
        for (slot, entry) in (first..).zip(entries).filter(|(_, entry)| entry.is_live()) {
            index.publish(slot, *entry);
        }
        Ok(())
    })?;
    let next_sequence = named.next_sequence;
    let committed = named.committed;
    Ok(Recovered { index, committed, next_sequence, clean: true, damaged: 0 })
}

/// What a store held that was not closed in order.
struct Replayed {
    index: Index,
    /// Above every sequence seen anywhere.
    next_sequence: u64,
    /// The highest number of a checkpoint that anything names.
    mentioned: u64,
    /// How many objects that the checkpoint names are damaged, and nothing newer of their keys is there.
    damaged: u64,
}

/// Finds out what a store holds that was not closed in order.
///
/// The checkpoint speaks for the sequences up to the covered one: of the objects among them it names the
/// live ones. Slots and delete records with a higher sequence speak for themselves, and the newest of a
/// key wins.
fn replay(
    device: &Dispatcher,
    store: &Superblock,
    checkpoint: &Checkpoint,
    options: &OpenOptions,
) -> Result<Replayed, Error> {
    let accept_older = options.accept_older_states;
    let covered = checkpoint.covered;
    tracing::info!(
        device = device.backend().device(),
        slots = store.slot_count.get(),
        checkpoint = checkpoint.committed.number,
        "a store that was not closed in order is recovered"
    );
    let mut left_out = 0;
    let log = delete_log::read(device, store, covered, accept_older, &mut left_out)?;
    let Log { deleted, mut next_sequence, mut mentioned, mut unreadable } = log;
    next_sequence = next_sequence.max(checkpoint.next_sequence);
    mentioned = mentioned.max(checkpoint.committed.number);

    let index = Index::new(store.slot_count.get())?;
    let mut headers = Headers::new(device, store, options, &mut left_out)?;
    // All objects of the keys that several slots claim.
    let mut contested: HashMap<KeyHash, Vec<Located>> = HashMap::new();
    let mut visit = |found: Located, named: &ObjectEntry, checkpoint: u64| {
        let (hash, sequence) = (found.entry.key_hash, found.entry.sequence.get());
        if !Fault::SequencesReset.is_on() {
            next_sequence = next_sequence.max(sequence + 1);
        }
        mentioned = mentioned.max(checkpoint);
        let claims =
            sequence > covered || *named == found.entry || Fault::UnnamedHeadersAccepted.is_on();
        let is_deleted = deleted.get(&hash).is_some_and(|&deleted| deleted > sequence)
            && !Fault::DeletionsIgnored.is_on();
        if !claims || is_deleted {
            return;
        }
        if let Some(claimants) = contested.get_mut(&hash) {
            claimants.push(found);
        } else if let Some(other) = index.find(&hash) {
            contested.insert(hash, vec![other, found]);
        } else {
            index.publish(found.slot, found.entry);
        }
    };
    checkpoint.entries(device, store, |_, entries| headers.add(entries, &mut visit))?;
    headers.finish(&mut visit)?;
    let Headers { lost, unreadable: unread, .. } = headers;
    unreadable |= unread;
    if unreadable {
        next_sequence = next_sequence.max(above_all_since(covered, store));
    }

    let mut contested: Vec<_> = contested.into_values().collect();
    contested.sort_by_key(|claimants| claimants[0].slot);
    for mut claimants in contested {
        // Out of the index with the one that came first, back in with the one that wins.
        claimants.iter().for_each(|claimant| _ = index.evict(claimant.slot, u64::MAX));
        claimants.sort_by_key(|claimant| std::cmp::Reverse(claimant.entry.sequence.get()));
        for claimant in claimants {
            if Fault::ClaimantsUnverified.is_on()
                || verify(device, store, &claimant, accept_older, &mut left_out)?
            {
                index.publish(claimant.slot, claimant.entry);
                break;
            }
        }
    }
    log_count(left_out, device.backend().device(), "the recovery");
    let has_newer = |lost: &ObjectEntry| {
        let deleted =
            deleted.get(&lost.key_hash).is_some_and(|&deleted| deleted > lost.sequence.get());
        deleted || index.find(&lost.key_hash).is_some()
    };
    let damaged = lost.iter().filter(|lost| !has_newer(lost)).count() as u64;
    Ok(Replayed { index, next_sequence, mentioned, damaged })
}

/// Above every sequence that can have been given out since the checkpoint: each slot is written at most
/// once between two checkpoints, and so is each block of the delete log.
fn above_all_since(covered: u64, store: &Superblock) -> u64 {
    let log_blocks = store.delete_log_len.get() / u64::from(store.block_size.get());
    let records = log_blocks * records_per_block(store.block_size.get()) as u64;
    covered + store.slot_count.get() + records + 1
}

/// Whether a slot holds this object, with an intact payload. One that cannot be read is taken for intact, so that
/// its get says so and no older one shows, unless older ones are accepted.
fn verify(
    device: &Dispatcher,
    store: &Superblock,
    object: &Located,
    accept_older: bool,
    damages: &mut usize,
) -> Result<bool, Error> {
    const DOING: &str = "verify an object";
    let Located { slot, entry } = object;
    let block_size = store.block_size.get() as usize;
    let mut object = AlignedBuf::zeroed(entry.slot_len(store.block_size.get())).doing(DOING)?;
    let read = ReadAt::new(slot_offset(store, *slot), &mut object);
    match device.read_buffers(&mut [read]).all() {
        Err(error) if error.kind() == ErrorKind::Io => {
            log_first(*damages, || {
                tracing::warn!(%error, "an object that cannot be read has an older one of its key beside it");
            });
            *damages += 1;
            return Ok(!accept_older);
        }
        result => result.doing(DOING)?,
    }
    let (header, behind) = object.split_at(block_size);
    let Ok(view) = SlotHeader::read(header, store, *slot) else { return Ok(false) };
    Ok(view.header.entry == *entry && view.header.verify_payload(view.payload(behind)).is_ok())
}

/// Tells a block that the device cannot read, which is left out if `accept_older`, from a device that cannot be
/// used.
fn is_readable(
    result: Result<(), raw_block_core::Error>,
    what: &'static str,
    offset: u64,
    accept_older: bool,
    damages: &mut usize,
) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Io && accept_older => {
            log_first(*damages, || {
                tracing::error!(%error, what, "what cannot be read is left out: an older object may be back");
            });
            *damages += 1;
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::Io => {
            Err(Error::NewestLost { what, offset, error })
        }
        Err(error) => Err(error).doing("recover the store"),
    }
}
