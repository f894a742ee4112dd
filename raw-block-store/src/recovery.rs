//! Finding out what the store holds when it is opened.

use std::collections::HashMap;

use raw_block_core::{AlignedBuf, Dispatcher, ErrorKind, ReadAt};

use crate::Error;
use crate::checkpoint::{self, Checkpoint, Committed};
use crate::error::Doing;
use crate::fault::Fault;
use crate::format::{
    Damage, DeleteLogBlock, ObjectEntry, SlotHeader, Superblock, records_per_block,
};
use crate::index::{Index, KeyHash, Located};
use crate::layout::{buffer_len, slot_offset};

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
}

/// Finds out what a store holds: from the checkpoint that its clean mark names, if it was closed in order;
/// otherwise from the newest checkpoint and everything newer. Writes nothing.
///
/// With `accept_older` the older checkpoint takes the place of a newest one that is damaged, and what cannot be
/// read is left out.
pub(crate) fn recover(
    device: &Dispatcher,
    store: &Superblock,
    clean: Option<u64>,
    accept_older: bool,
) -> Result<Recovered, Error> {
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
        match replay(device, store, candidate, accept_older) {
            Ok((index, next_sequence, mentioned)) => {
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
                let committed = Committed { last_number: newest, ..candidate.committed };
                tracing::info!(
                    device = device.backend().device(),
                    objects = index.len(),
                    "a store that was not closed in order was recovered"
                );
                return Ok(Recovered { index, committed, next_sequence, clean: false });
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
    Ok(Recovered { index, committed: named.committed, next_sequence, clean: true })
}

/// Finds out what a store holds that was not closed in order. Returns the index, a sequence above every one
/// seen anywhere, and the highest number of a checkpoint that anything names.
///
/// The checkpoint speaks for the sequences up to the covered one: of the objects among them it names the
/// live ones. Slots and delete records with a higher sequence speak for themselves, and the newest of a
/// key wins.
fn replay(
    device: &Dispatcher,
    store: &Superblock,
    checkpoint: &Checkpoint,
    accept_older: bool,
) -> Result<(Index, u64, u64), Error> {
    let covered = checkpoint.covered;
    let log = read_log(device, store, covered, accept_older)?;
    let Log { deleted, mut next_sequence, mut mentioned, mut unreadable } = log;
    next_sequence = next_sequence.max(checkpoint.next_sequence);
    mentioned = mentioned.max(checkpoint.committed.number);

    let index = Index::new(store.slot_count.get())?;
    // All objects of the keys that several slots claim.
    let mut contested: HashMap<KeyHash, Vec<Located>> = HashMap::new();
    let mut headers = Headers::new(device, store, accept_older)?;
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
    unreadable |= headers.unreadable;
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
                || verify(device, store, claimant.slot, &claimant.entry, accept_older)?
            {
                index.publish(claimant.slot, claimant.entry);
                break;
            }
        }
    }
    Ok((index, next_sequence, mentioned))
}

/// Above every sequence that can have been given out since the checkpoint: each slot is written at most
/// once between two checkpoints, and so is each block of the delete log.
fn above_all_since(covered: u64, store: &Superblock) -> u64 {
    let log_blocks = store.delete_log_len.get() / u64::from(store.block_size.get());
    let records = log_blocks * records_per_block(store.block_size.get()) as u64;
    covered + store.slot_count.get() + records + 1
}

/// What the delete log says.
struct Log {
    /// The newest deletion of each key that the checkpoint does not cover.
    deleted: HashMap<KeyHash, u64>,
    /// Above every sequence in it.
    next_sequence: u64,
    /// The highest number of a checkpoint that it names.
    mentioned: u64,
    /// Whether a block could not be read.
    unreadable: bool,
}

fn read_log(
    device: &Dispatcher,
    store: &Superblock,
    covered: u64,
    accept_older: bool,
) -> Result<Log, Error> {
    const DOING: &str = "read the delete log";
    let block_size = store.block_size.get() as usize;
    let mut log =
        Log { deleted: HashMap::new(), next_sequence: 0, mentioned: 0, unreadable: false };
    let blocks = store.delete_log_len.get() / block_size as u64;
    let mut piece = AlignedBuf::zeroed(buffer_len(store, blocks, PIECE)).doing(DOING)?;
    let mut offset = store.delete_log_offset.get();
    let end = offset + store.delete_log_len.get();
    let mut index = 0;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let len = left.min(piece.len());
        let mut reads: Vec<_> = (offset..)
            .step_by(block_size)
            .zip(piece[..len].chunks_exact_mut(block_size))
            .map(|(offset, block)| ReadAt::new(offset, block))
            .collect();
        let results = device.read_buffers(&mut reads);
        for (block, result) in piece[..len].chunks_exact(block_size).zip(results) {
            let at = store.delete_log_offset.get() + index * block_size as u64;
            if !is_readable(result, "a block of the delete log", at, accept_older)? {
                log.unreadable = true;
                index += 1;
                continue;
            }
            match DeleteLogBlock::read(block, store, index) {
                Ok((block, records)) => {
                    log.mentioned = log.mentioned.max(block.checkpoint.get());
                    for record in records {
                        let sequence = record.sequence.get();
                        log.next_sequence = log.next_sequence.max(sequence + 1);
                        if sequence > covered {
                            let newest = log.deleted.entry(record.key_hash).or_insert(sequence);
                            *newest = sequence.max(*newest);
                        }
                    }
                }
                // Never written by this store.
                Err(Damage::NotThisStructure { .. } | Damage::ForeignStore) => {}
                // Either the power went while it was written: then none of its deletions was
                // acknowledged. Or it has decayed since, which looks the same.
                Err(damage) => {
                    tracing::warn!(index, %damage, "a block of the delete log is left out");
                }
            }
            index += 1;
        }
        offset += len as u64;
    }
    Ok(log)
}

/// Reads the header of every slot, in batches, beside the entries of a checkpoint.
struct Headers<'a> {
    device: &'a Dispatcher,
    store: &'a Superblock,
    blocks: AlignedBuf,
    /// Entries whose slots are read next, and the first of these slots.
    entries: Vec<ObjectEntry>,
    first: u64,
    /// Whether headers that cannot be read are left out.
    accept_older: bool,
    /// Whether there was one.
    unreadable: bool,
}

impl<'a> Headers<'a> {
    fn new(
        device: &'a Dispatcher,
        store: &'a Superblock,
        accept_older: bool,
    ) -> Result<Self, Error> {
        let blocks = AlignedBuf::zeroed(buffer_len(store, store.slot_count.get(), PIECE))
            .doing("read slot headers")?;
        let entries = Vec::new();
        Ok(Self { device, store, blocks, entries, first: 0, accept_older, unreadable: false })
    }

    /// Adds the entries of the slots that follow; calls `visit` for valid headers.
    fn add(
        &mut self,
        entries: &[ObjectEntry],
        visit: &mut impl FnMut(Located, &ObjectEntry, u64),
    ) -> Result<(), Error> {
        let at_once = self.blocks.len() / self.store.block_size.get() as usize;
        for entry in entries {
            self.entries.push(*entry);
            if self.entries.len() == at_once {
                self.finish(visit)?;
            }
        }
        Ok(())
    }

    /// Reads what was added last.
    fn finish(&mut self, visit: &mut impl FnMut(Located, &ObjectEntry, u64)) -> Result<(), Error> {
        let Self { device, store, blocks, entries, first, accept_older, unreadable } = self;
        let block_size = store.block_size.get() as usize;
        let mut reads: Vec<_> = (*first..)
            .zip(blocks.chunks_exact_mut(block_size))
            .take(entries.len())
            .map(|(slot, block)| ReadAt::new(slot_offset(store, slot), block))
            .collect();
        let results = device.read_buffers(&mut reads);
        let slots = (*first..).zip(blocks.chunks_exact(block_size)).zip(entries.iter());
        for (((slot, block), named), result) in slots.zip(results) {
            let at = slot_offset(store, slot);
            if !is_readable(result, "the header of a slot", at, *accept_older)? {
                *unreadable = true;
            } else if let Ok(view) = SlotHeader::read(block, store, slot) {
                let header = view.header;
                visit(Located { slot, entry: header.entry }, named, header.checkpoint.get());
            }
        }
        *first += entries.len() as u64;
        entries.clear();
        Ok(())
    }
}

/// Whether a slot holds this object, with an intact payload. One that cannot be read is taken for intact, so that
/// its get says so and no older one shows, unless older ones are accepted.
fn verify(
    device: &Dispatcher,
    store: &Superblock,
    slot: u64,
    entry: &ObjectEntry,
    accept_older: bool,
) -> Result<bool, Error> {
    const DOING: &str = "verify an object";
    let block_size = store.block_size.get() as usize;
    let payload_len = entry.payload_len.get() as usize;
    let behind = if entry.is_inline(store.block_size.get()) { 0 } else { payload_len };
    let len = (block_size + behind).next_multiple_of(block_size);
    let mut object = AlignedBuf::zeroed(len).doing(DOING)?;
    let read = ReadAt::new(slot_offset(store, slot), &mut object);
    match device.read_buffers(&mut [read]).all() {
        Err(error) if error.kind() == ErrorKind::Io => {
            tracing::warn!(%error, "an object that cannot be read has an older one of its key beside it");
            return Ok(!accept_older);
        }
        result => result.doing(DOING)?,
    }
    let (header, behind) = object.split_at(block_size);
    let Ok(view) = SlotHeader::read(header, store, slot) else { return Ok(false) };
    let payload = view.inline_payload.unwrap_or_else(|| &behind[..payload_len]);
    Ok(view.header.entry == *entry && view.header.verify_payload([payload]).is_ok())
}

/// Tells a block that the device cannot read, which is left out if `accept_older`, from a device that cannot be
/// used.
fn is_readable(
    result: Result<(), raw_block_core::Error>,
    what: &'static str,
    offset: u64,
    accept_older: bool,
) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Io && accept_older => {
            tracing::error!(%error, what, "what cannot be read is left out: an older object may be back");
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::Io => {
            Err(Error::NewestLost { what, offset, error })
        }
        Err(error) => Err(error).doing("recover the store"),
    }
}
