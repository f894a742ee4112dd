//! Finding out what the store holds when it is opened.

use std::collections::HashMap;

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use crate::Error;
use crate::checkpoint::{self, Committed};
use crate::error::Doing;
use crate::format::{Damage, DeleteLogBlock, ObjectEntry, SlotHeader, Superblock, SuperblockState};
use crate::index::{Index, KeyHash};

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
    let committed = checkpoint::read(device, store, |slot, entry| {
        index.publish(slot, *entry);
    })?;
    if committed.number != named {
        return Err(Error::Damaged {
            structure: "the checkpoint that the superblock names",
            offset: store.checkpoint_offset[committed.container].get(),
            damage: Damage::WrongPlace { found: committed.number, expected: named },
        });
    }
    Ok(Recovered { index, committed, next_sequence: committed.next_sequence })
}

/// Finds out what a store holds that was not closed in order.
///
/// The checkpoint speaks for the sequences up to the covered one: of the objects among them it names the
/// live ones. Slots and delete records with a higher sequence speak for themselves, and the newest of a
/// key wins. Writes nothing.
pub(crate) fn recover(device: &Dispatcher, store: &Superblock) -> Result<Recovered, Error> {
    let mut named = Index::new(store.slot_count.get())?;
    let committed = checkpoint::read(device, store, |slot, entry| {
        named.publish(slot, *entry);
    })?;
    let mut next_sequence = committed.next_sequence;
    let deleted = read_log(device, store, committed.covered, &mut next_sequence)?;

    let mut index = Index::new(store.slot_count.get())?;
    // All objects of the keys that several slots claim.
    let mut contested: HashMap<KeyHash, Vec<(u64, ObjectEntry)>> = HashMap::new();
    read_headers(device, store, |slot, entry| {
        let sequence = entry.sequence.get();
        next_sequence = next_sequence.max(sequence + 1);
        let claims = if sequence <= committed.covered {
            named.entries()[slot_index(slot)] == *entry
        } else {
            true
        };
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
    let mut piece = AlignedBuf::zeroed(piece_len(block_size)).doing(DOING)?;
    let mut offset = store.delete_log_offset.get();
    let end = offset + store.delete_log_len.get();
    let mut index = 0;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let len = left.min(piece.len());
        device.read_buffers(&mut [ReadAt::new(offset, &mut piece[..len])]).all().doing(DOING)?;
        for block in piece[..len].chunks_exact(block_size) {
            // A block that is not valid was never written, or was being written when the power went:
            // none of its deletions was acknowledged.
            for record in DeleteLogBlock::read(block, store, index).unwrap_or_default() {
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

/// Reads every slot header, in batches, and calls `visit` for the valid ones.
fn read_headers(
    device: &Dispatcher,
    store: &Superblock,
    mut visit: impl FnMut(u64, &ObjectEntry),
) -> Result<(), Error> {
    const DOING: &str = "read the slot headers";
    let block_size = store.block_size.get() as usize;
    let slots = store.slot_count.get();
    let mut piece = AlignedBuf::zeroed(piece_len(block_size)).doing(DOING)?;
    let at_once = (piece.len() / block_size) as u64;
    for first in (0..slots).step_by(slot_index(at_once)) {
        let batch = first..slots.min(first + at_once);
        let mut reads: Vec<_> = batch
            .clone()
            .zip(piece.chunks_exact_mut(block_size))
            .map(|(slot, block)| ReadAt::new(offset_of(store, slot), block))
            .collect();
        let results = device.read_buffers(&mut reads);
        for ((slot, block), result) in batch.zip(piece.chunks_exact(block_size)).zip(results) {
            result.doing(DOING)?;
            if let Ok(view) = SlotHeader::read(block, store, slot) {
                visit(slot, &view.header.entry);
            }
        }
    }
    Ok(())
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
    let mut header = AlignedBuf::zeroed(block_size).doing(DOING)?;
    let offset = offset_of(store, slot);
    device.read_buffers(&mut [ReadAt::new(offset, &mut header)]).all().doing(DOING)?;
    let Ok(view) = SlotHeader::read(&header, store, slot) else { return Ok(false) };
    if view.header.entry != *entry {
        return Ok(false);
    }
    if let Some(payload) = view.inline_payload {
        return Ok(view.header.verify_payload([payload]).is_ok());
    }
    let padded = payload_len.next_multiple_of(block_size);
    let mut payload = AlignedBuf::zeroed(padded).doing(DOING)?;
    let behind = offset + block_size as u64;
    device.read_buffers(&mut [ReadAt::new(behind, &mut payload)]).all().doing(DOING)?;
    Ok(view.header.verify_payload([&payload[..payload_len]]).is_ok())
}

fn offset_of(store: &Superblock, slot: u64) -> u64 {
    store.slots_offset.get() + slot * store.slot_size.get()
}

fn slot_index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or_else(|_| unreachable!("the index has an entry for every slot"))
}

/// The length of a piece: whole blocks, at least one.
fn piece_len(block_size: usize) -> usize {
    (PIECE / block_size).max(1) * block_size
}

/// Reads what a store holds, whichever way it was left.
pub(crate) fn run(device: &Dispatcher, store: &Superblock) -> Result<Recovered, Error> {
    match store.state() {
        SuperblockState::Clean { checkpoint } => load(device, store, checkpoint),
        SuperblockState::Open => recover(device, store),
    }
}
