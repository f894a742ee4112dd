//! A device in memory that is larger than the memory: it keeps one number per block of a payload.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use anyhow::Result;
use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, OpKind, Stats};
use raw_block_core::{Error, Geometry};

use super::drive::Drive;
use super::payload::{BLOCK, fill, stamp_of};

/// The number of locks for the blocks.
const SHARDS: u64 = 64;
/// Consecutive blocks with the same lock.
const RUN: u64 = 256;
/// A block of a payload. Its stamp is in the lower bits.
const PAYLOAD: u64 = 1 << 63;
/// A block that is kept in full. Its index is in the lower bits.
const KEPT: u64 = 1 << 62;

/// A device that survives the processes that use it.
#[derive(Clone)]
pub(super) struct SparseDevice(Arc<Contents>);

struct Contents {
    geometry: Geometry,
    shards: Vec<RwLock<Shard>>,
    /// Whether its process was killed. Then all ops fail.
    killed: AtomicBool,
    payload_read: AtomicU64,
    drive: Option<Mutex<Drive>>,
}

#[derive(Default)]
struct Shard {
    /// One word for each block. 0: the block is zero.
    words: Vec<u64>,
    /// Blocks without the zeroes at their ends.
    kept: Vec<Box<[u8]>>,
    /// Unused indices of `kept`.
    free: Vec<usize>,
}

impl SparseDevice {
    /// Creates a device of `capacity` bytes, optionally with a model of the inside of the drive.
    pub(super) fn new(capacity: u64, drive: Option<Drive>, placement_handles: u16) -> Result<Self> {
        let mut geometry = Geometry::new(capacity, u32::try_from(BLOCK)?)?;
        geometry.discard = true;
        geometry.volatile_write_cache = false;
        geometry.placement_handles = placement_handles;
        let words = usize::try_from((capacity / BLOCK as u64).div_ceil(RUN * SHARDS) * RUN)?;
        let shard = || RwLock::new(Shard { words: vec![0; words], ..Shard::default() });
        Ok(Self(Arc::new(Contents {
            geometry,
            shards: std::iter::repeat_with(shard).take(usize::try_from(SHARDS)?).collect(),
            killed: AtomicBool::new(false),
            payload_read: AtomicU64::new(0),
            drive: drive.map(Mutex::new),
        })))
    }

    /// Opens the device, as another process does.
    pub(super) fn open(&self) -> Arc<dyn IoBackend> {
        self.0.killed.store(false, Ordering::SeqCst);
        Arc::new(SparseBackend {
            contents: Arc::clone(&self.0),
            stats: Stats::new(),
            flush_state: FlushState::new(),
        })
    }

    /// Fails all ops until the device is opened again.
    pub(super) fn kill(&self) {
        self.0.killed.store(true, Ordering::SeqCst);
    }

    /// Bytes of payloads that were read.
    pub(super) fn payload_read(&self) -> u64 {
        self.0.payload_read.load(Ordering::Relaxed)
    }

    /// Pages that the model of the drive received, and pages that it wrote to its medium.
    pub(super) fn written_pages(&self) -> (u64, u64) {
        let drive = self.0.drive.as_ref();
        drive.map_or((0, 0), |drive| drive.lock().unwrap_or_else(PoisonError::into_inner).written())
    }
}

impl Shard {
    fn set(&mut self, index: usize, block: Option<&[u8]>) {
        let last = self.words[index];
        let mut place = (last & KEPT != 0).then_some(kept_index(last));
        self.words[index] = match block.map(|block| (block, stamp_of(block))) {
            None => 0,
            Some((_, Some(stamp))) => PAYLOAD | stamp,
            Some((block, None)) => match trimmed(block) {
                [] => 0,
                bytes => KEPT | self.keep(place.take(), bytes) as u64,
            },
        };
        if let Some(place) = place {
            self.kept[place] = Box::default();
            self.free.push(place);
        }
    }

    fn keep(&mut self, place: Option<usize>, bytes: &[u8]) -> usize {
        let place = place.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.kept.push(Box::default());
            self.kept.len() - 1
        });
        self.kept[place] = bytes.into();
        place
    }

    /// Reads a block. Returns whether it is one of a payload.
    fn get(&self, index: usize, block: &mut [u8]) -> bool {
        let word = self.words[index];
        if word & PAYLOAD != 0 {
            fill(block, word & !PAYLOAD);
            return true;
        }
        let kept = if word & KEPT != 0 { &*self.kept[kept_index(word)] } else { &[] };
        block[..kept.len()].copy_from_slice(kept);
        block[kept.len()..].fill(0);
        false
    }
}

#[expect(clippy::cast_possible_truncation, reason = "made from an index")]
fn kept_index(word: u64) -> usize {
    (word & !KEPT) as usize
}

/// A block without the zeroes at its end, in steps of eight bytes.
fn trimmed(block: &[u8]) -> &[u8] {
    let used = block.chunks_exact(8).rposition(|bytes| bytes != [0; 8]);
    &block[..used.map_or(0, |last| (last + 1) * 8)]
}

impl Contents {
    /// Calls `visit` with each of `blocks` blocks from a byte offset: its shard and index, and its
    /// number from 0.
    fn for_each_run(
        &self,
        offset: u64,
        blocks: usize,
        mut visit: impl FnMut(&RwLock<Shard>, usize, std::ops::Range<usize>),
    ) {
        let first = offset / BLOCK as u64;
        let mut done = 0;
        while done < blocks {
            let block = first + done as u64;
            let (run, within) = (block / RUN, block % RUN);
            #[expect(clippy::cast_possible_truncation, reason = "the capacity fits the memory")]
            let (shard, index, left) = (
                (run % SHARDS) as usize,
                (run / SHARDS * RUN + within) as usize,
                (RUN - within) as usize,
            );
            let end = blocks.min(done + left);
            visit(&self.shards[shard], index, done..end);
            done = end;
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut payload_blocks = 0;
        self.for_each_run(offset, bytes.len() / BLOCK, |shard, index, blocks| {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let range = blocks.start * BLOCK..blocks.end * BLOCK;
            for (block, index) in bytes[range].chunks_exact_mut(BLOCK).zip(index..) {
                payload_blocks += u64::from(shard.get(index, block));
            }
        });
        self.payload_read.fetch_add(payload_blocks * BLOCK as u64, Ordering::Relaxed);
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.for_each_run(offset, bytes.len() / BLOCK, |shard, index, blocks| {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let range = blocks.start * BLOCK..blocks.end * BLOCK;
            for (block, index) in bytes[range].chunks_exact(BLOCK).zip(index..) {
                shard.set(index, Some(block));
            }
        });
    }

    fn discard(&self, offset: u64, len: u64) {
        let blocks = usize::try_from(len / BLOCK as u64).unwrap_or(usize::MAX);
        self.for_each_run(offset, blocks, |shard, index, blocks| {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            (index..index + blocks.len()).for_each(|index| shard.set(index, None));
        });
    }

    fn carry_out(&self, op: &mut Op) {
        let mut at = op.offset();
        match op.kind() {
            OpKind::Read => {
                for slice in op.destination() {
                    self.read(at, slice);
                    at += slice.len() as u64;
                }
                return;
            }
            OpKind::Write => {
                for slice in op.source() {
                    self.write(at, slice);
                    at += slice.len() as u64;
                }
            }
            OpKind::Discard | OpKind::WriteZeroes => self.discard(at, op.len()),
            OpKind::Flush => return,
        }
        if let Some(drive) = &self.drive {
            let mut drive = drive.lock().unwrap_or_else(PoisonError::into_inner);
            let end = op.offset() + op.len();
            for page in op.offset() / BLOCK as u64..end / BLOCK as u64 {
                let page = u32::try_from(page).unwrap_or(u32::MAX);
                match op.kind() {
                    OpKind::Write => drive.write(page, op.options().placement),
                    _ => drive.discard(page),
                }
            }
        }
    }
}

/// The device as one process has it open.
struct SparseBackend {
    contents: Arc<Contents>,
    stats: Stats,
    flush_state: FlushState,
}

impl IoBackend for SparseBackend {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn name(&self) -> &'static str {
        "sparse memory"
    }

    fn geometry(&self) -> &Geometry {
        &self.contents.geometry
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(SparseQueue { contents: Arc::clone(&self.contents), depth, done: Vec::new() }))
    }
}

/// Executes ops as they are submitted.
struct SparseQueue {
    contents: Arc<Contents>,
    depth: usize,
    done: Vec<Completion>,
}

impl IoQueue for SparseQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let accepted = (self.depth - self.done.len()).min(ops.len());
        for mut op in ops.drain(..accepted) {
            self.done.push(if self.contents.killed.load(Ordering::SeqCst) {
                op.fail(io::Error::from_raw_os_error(nix::libc::EIO))
            } else {
                self.contents.carry_out(&mut op);
                op.complete()
            });
        }
    }

    /// Ops were executed when they were submitted.
    fn start(&mut self) {}

    fn reap(&mut self, _min: usize, _deadline: Option<Instant>, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }
}

#[cfg(test)]
mod tests {
    use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

    use super::super::payload::{self, payload};
    use super::*;

    fn read(device: &Dispatcher, offset: u64, len: usize) -> AlignedBuf {
        let mut bytes = AlignedBuf::zeroed(len).unwrap();
        device.read_buffers(&mut [ReadAt::new(offset, &mut bytes)]).all().unwrap();
        bytes
    }

    #[test]
    fn a_sparse_device_returns_what_was_written_last() {
        let device = SparseDevice::new(64 << 20, None, 0).unwrap();
        let dispatcher = Dispatcher::new(device.open()).unwrap();
        let mut expected = vec![0; 64 << 20];
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..300 {
            let blocks = random.usize(1..600);
            let mut bytes = payload(blocks * BLOCK).unwrap();
            payload::stamp(&mut bytes, round);
            if random.bool() {
                let zeroes = random.usize(..bytes.len());
                bytes[zeroes..].fill(0);
                bytes[random.usize(..blocks) * BLOCK + 4095] ^= 1;
            }
            let offset = random.usize(..(16 << 20) / BLOCK) * BLOCK;
            dispatcher.write_buffers(&[WriteAt::new(offset as u64, &bytes)]).all().unwrap();
            expected[offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        assert!(*read(&dispatcher, 0, 32 << 20) == expected[..32 << 20]);
        let again = Dispatcher::new(device.open()).unwrap();
        assert!(*read(&again, 0, 32 << 20) == expected[..32 << 20]);
    }

    #[test]
    fn a_killed_process_changes_nothing() {
        let device = SparseDevice::new(1 << 20, None, 0).unwrap();
        let before = Dispatcher::new(device.open()).unwrap();
        let bytes = payload(BLOCK).unwrap();
        device.kill();
        assert!(before.write_buffers(&[WriteAt::new(0, &bytes)]).all().is_err());
        let after = Dispatcher::new(device.open()).unwrap();
        assert_eq!(*read(&after, 0, BLOCK), [0; BLOCK]);
    }

    #[test]
    fn what_is_written_and_discarded_reaches_the_drive() {
        let device = SparseDevice::new(1 << 20, Some(Drive::new(256, 16, 0.07)), 2).unwrap();
        let dispatcher = Dispatcher::new(device.open()).unwrap();
        let bytes = payload(8 * BLOCK).unwrap();
        dispatcher.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
        assert_eq!(device.written_pages(), (8, 8));
        assert_eq!(*read(&dispatcher, 0, 8 * BLOCK), *bytes);
        assert_eq!(device.payload_read(), 8 * BLOCK as u64);
    }
}
