//! Finding out what the store holds when it is opened.

use std::collections::HashMap;

use raw_block_core::{AlignedBuf, Dispatcher, ErrorKind, ReadAt};

use crate::Error;
use crate::checkpoint::{self, Checkpoint, Committed};
use crate::error::Doing;
use crate::format::{
    Damage, DeleteLogBlock, ObjectEntry, SlotHeader, Superblock, records_per_block,
};
use crate::index::{Index, KeyHash};
use crate::layout::{slot_offset, whole_blocks};

/// Bytes of headers or log blocks that are read as one batch.
const PIECE: usize = 4 << 20;

/// What a device holds.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) committed: Committed,
    /// Above every sequence seen anywhere.
    pub(crate) next_sequence: u64,
}

/// Reads the index of a store that was closed in order from the checkpoint that its clean mark names.
pub(crate) fn load(
    device: &Dispatcher,
    store: &Superblock,
    named: u64,
) -> Result<Recovered, Error> {
    let mut index = Index::new(store.slot_count.get())?;
    let found = checkpoint::read(device, store, |slot, entry| {
        index.publish(slot, *entry);
    })?;
    let committed = found.committed;
    if committed.number != named {
        return Err(Error::Damaged {
            structure: "the checkpoint that the superblock names",
            offset: store.checkpoint_offset[committed.container].get(),
            damage: Damage::WrongPlace { found: committed.number, expected: named },
        });
    }
    Ok(Recovered { index, committed, next_sequence: found.next_sequence })
}

/// Finds out what a store holds that was not closed in order.
///
/// The checkpoint speaks for the sequences up to the covered one: of the objects among them it names the
/// live ones. Slots and delete records with a higher sequence speak for themselves, and the newest of a
/// key wins. Writes nothing.
pub(crate) fn recover(device: &Dispatcher, store: &Superblock) -> Result<Recovered, Error> {
    let mut named = Index::new(store.slot_count.get())?;
    let Checkpoint { committed, covered, mut next_sequence, .. } =
        checkpoint::read(device, store, |slot, entry| {
            named.publish(slot, *entry);
        })?;
    let deleted = read_log(device, store, covered, &mut next_sequence)?;

    let mut index = Index::new(store.slot_count.get())?;
    // All objects of the keys that several slots claim.
    let mut contested: HashMap<KeyHash, Vec<(u64, ObjectEntry)>> = HashMap::new();
    let all_readable = read_headers(device, store, |slot, entry| {
        let sequence = entry.sequence.get();
        next_sequence = next_sequence.max(sequence + 1);
        let claims = sequence > covered || named.entries()[slot_index(slot)] == *entry;
        let hash = entry.key_hash;
        if !claims || deleted.get(&hash).is_some_and(|&deleted| deleted > sequence) {
            return;
        }
        if let Some(claimants) = contested.get_mut(&hash) {
            claimants.push((slot, *entry));
        } else if let Some((other, other_entry)) = index.get(&hash) {
            contested.insert(hash, vec![(other, *other_entry), (slot, *entry)]);
        } else {
            index.publish(slot, *entry);
        }
    })?;
    if !all_readable {
        next_sequence = next_sequence.max(above_all_since(covered, store));
    }

    for (hash, mut claimants) in contested {
        // Out of the index with the one that came first, back in with the one that wins.
        index.delete(&hash, u64::MAX);
        index.forget_deletions();
        claimants.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.sequence.get()));
        for (slot, entry) in claimants {
            if verify(device, store, slot, &entry)? {
                index.publish(slot, entry);
                break;
            }
        }
    }
    tracing::info!(
        device = device.backend().device(),
        objects = index.len(),
        "a store that was not closed in order was recovered"
    );
    Ok(Recovered { index, committed, next_sequence })
}

/// Above every sequence that can have been given out since the checkpoint: each slot is written at most
/// once between two checkpoints, and so is each block of the delete log.
fn above_all_since(covered: u64, store: &Superblock) -> u64 {
    let log_blocks = store.delete_log_len.get() / u64::from(store.block_size.get());
    let records = log_blocks * records_per_block(store.block_size.get()) as u64;
    covered + store.slot_count.get() + records + 1
}

/// The newest deletion of each key that the checkpoint does not cover.
fn read_log(
    device: &Dispatcher,
    store: &Superblock,
    covered: u64,
    next_sequence: &mut u64,
) -> Result<HashMap<KeyHash, u64>, Error> {
    const DOING: &str = "read the delete log";
    let block_size = store.block_size.get() as usize;
    let mut deleted = HashMap::new();
    let mut piece = AlignedBuf::zeroed(whole_blocks(store, PIECE)).doing(DOING)?;
    let mut offset = store.delete_log_offset.get();
    let end = offset + store.delete_log_len.get();
    let mut index = 0;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let len = left.min(piece.len());
        device.read_buffers(&mut [ReadAt::new(offset, &mut piece[..len])]).all().doing(DOING)?;
        for block in piece[..len].chunks_exact(block_size) {
            let records = match DeleteLogBlock::read(block, store, index) {
                Ok(records) => records,
                // Never written by this store.
                Err(Damage::NotThisStructure { .. } | Damage::ForeignStore) => &[],
                Err(damage) => {
                    // Either the power went while it was written: then none of its deletions was
                    // acknowledged. Or it has decayed since, which looks the same.
                    tracing::warn!(index, %damage, "a block of the delete log is left out");
                    &[]
                }
            };
            for record in records {
                let sequence = record.sequence.get();
                *next_sequence = (*next_sequence).max(sequence + 1);
                if sequence > covered {
                    let newest = deleted.entry(record.key_hash).or_insert(sequence);
                    *newest = sequence.max(*newest);
                }
            }
            index += 1;
        }
        offset += len as u64;
    }
    Ok(deleted)
}

/// Reads every slot header, in batches, and calls `visit` for the valid ones. Returns whether all of them
/// could be read: a block that cannot is like one that is damaged, and costs no more than its object.
fn read_headers(
    device: &Dispatcher,
    store: &Superblock,
    mut visit: impl FnMut(u64, &ObjectEntry),
) -> Result<bool, Error> {
    const DOING: &str = "read the slot headers";
    let block_size = store.block_size.get() as usize;
    let slots = store.slot_count.get();
    let mut piece = AlignedBuf::zeroed(whole_blocks(store, PIECE)).doing(DOING)?;
    let at_once = piece.len() / block_size;
    let mut all_readable = true;
    for first in (0..slots).step_by(at_once) {
        let batch = first..slots.min(first + at_once as u64);
        let mut reads: Vec<_> = batch
            .clone()
            .zip(piece.chunks_exact_mut(block_size))
            .map(|(slot, block)| ReadAt::new(slot_offset(store, slot), block))
            .collect();
        let results = device.read_buffers(&mut reads);
        for ((slot, block), result) in batch.zip(piece.chunks_exact(block_size)).zip(results) {
            if !is_readable(result).doing(DOING)? {
                all_readable = false;
            } else if let Ok(view) = SlotHeader::read(block, store, slot) {
                visit(slot, &view.header.entry);
            }
        }
    }
    Ok(all_readable)
}

/// Whether a slot holds this object, with an intact payload.
fn verify(
    device: &Dispatcher,
    store: &Superblock,
    slot: u64,
    entry: &ObjectEntry,
) -> Result<bool, Error> {
    const DOING: &str = "verify an object";
    let block_size = store.block_size.get() as usize;
    let payload_len = entry.payload_len.get() as usize;
    let behind = if entry.is_inline(store.block_size.get()) { 0 } else { payload_len };
    let len = (block_size + behind).next_multiple_of(block_size);
    let mut object = AlignedBuf::zeroed(len).doing(DOING)?;
    let read = ReadAt::new(slot_offset(store, slot), &mut object);
    if !is_readable(device.read_buffers(&mut [read]).all()).doing(DOING)? {
        return Ok(false);
    }
    let (header, behind) = object.split_at(block_size);
    let Ok(view) = SlotHeader::read(header, store, slot) else { return Ok(false) };
    let payload = view.inline_payload.unwrap_or_else(|| &behind[..payload_len]);
    Ok(view.header.entry == *entry && view.header.verify_payload([payload]).is_ok())
}

/// Tells a block that the device cannot read (`false`) from a device that cannot be used (an error).
fn is_readable(result: Result<(), raw_block_core::Error>) -> Result<bool, raw_block_core::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Io => {
            tracing::warn!(%error, "what cannot be read is taken for damaged");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn slot_index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or_else(|_| unreachable!("the index has an entry for every slot"))
}
