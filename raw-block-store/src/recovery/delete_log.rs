//! What the delete log says.

use std::collections::HashMap;

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::{PIECE, is_readable};
use crate::Error;
use crate::error::Doing;
use crate::format::{Damage, DeleteLogBlock, Superblock};
use crate::index::KeyHash;
use crate::layout::buffer_len;
use crate::limited_log::log_first;

/// What the delete log says.
pub(super) struct Log {
    /// The newest deletion of each key that the checkpoint does not cover.
    pub(super) deleted: HashMap<KeyHash, u64>,
    /// Above every sequence in it.
    pub(super) next_sequence: u64,
    /// The highest number of a checkpoint that it names.
    pub(super) mentioned: u64,
    /// Whether a block could not be read.
    pub(super) unreadable: bool,
}

/// Reads all of it; what `covered` is at or above of is left out. With `accept_older` a block that cannot be read is, too.
/// Counts what is left out in `damages`.
pub(super) fn read(
    device: &Dispatcher,
    store: &Superblock,
    covered: u64,
    accept_older: bool,
    damages: &mut usize,
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
            if !is_readable(result, "a block of the delete log", at, accept_older, damages)? {
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
                    let device = device.backend().device();
                    log_first(*damages, || {
                        tracing::warn!(
                            device,
                            index,
                            %damage,
                            "a block of the delete log is left out"
                        );
                    });
                    *damages += 1;
                }
            }
            index += 1;
        }
        offset += len as u64;
    }
    Ok(log)
}
