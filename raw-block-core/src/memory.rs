//! A device in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use crate::backend::{Completion, FlushState, IoBackend, IoQueue, Op, OpKind, Stats};
use crate::{Error, Geometry};

/// Bytes per chunk: what is allocated when a part of the device is first written.
const CHUNK: usize = 64 << 10;
/// Locks that the chunks are spread over.
const SHARDS: usize = 64;

/// A device in memory, for tests, and to measure the layers above a device.
///
/// As strict as a real device opened with `O_DIRECT`: the dispatcher refuses or stages whatever its
/// [`Geometry`] does not allow, by default blocks of 512 bytes and memory aligned to as much.
/// Sparse: what was never written reads as zeroes and takes no memory, so a device may be larger
/// than the machine.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use raw_block_core::{Dispatcher, MemoryBackend};
/// use raw_block_core::backend::IoBackend;
///
/// let backend = Arc::new(MemoryBackend::new(1 << 30)?);
/// assert_eq!(backend.geometry().logical_block, 512);
/// let device = Dispatcher::new(backend)?;
/// assert_eq!(device.geometry().capacity, 1 << 30);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MemoryBackend(Arc<Device>);

#[derive(Debug)]
struct Device {
    geometry: Geometry,
    stats: Stats,
    flush_state: FlushState,
    shards: [RwLock<HashMap<u64, Box<[u8]>>>; SHARDS],
}

impl MemoryBackend {
    /// A device of `capacity` bytes in blocks of 512 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when `capacity` is below one
    /// block.
    pub fn new(capacity: u64) -> Result<Self, Error> {
        let mut geometry = Geometry::new(capacity, 512)?;
        geometry.discard = true;
        geometry.write_zeroes = true;
        geometry.volatile_write_cache = false;
        geometry.durable_writes = true;
        Ok(Self::with_geometry(geometry))
    }

    /// A device with this geometry.
    #[must_use]
    pub fn with_geometry(geometry: Geometry) -> Self {
        Self(Arc::new(Device {
            geometry,
            stats: Stats::new(),
            flush_state: FlushState::new(),
            shards: std::array::from_fn(|_| RwLock::default()),
        }))
    }
}

impl IoBackend for MemoryBackend {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    fn stats(&self) -> &Stats {
        &self.0.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.0.flush_state
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        Ok(Box::new(MemoryQueue { device: Arc::clone(&self.0), depth, done: Vec::new() }))
    }
}

impl Device {
    fn shard(&self, chunk: u64) -> &RwLock<HashMap<u64, Box<[u8]>>> {
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of SHARDS fits")]
        &self.shards[(chunk % SHARDS as u64) as usize]
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        for_each_chunk(offset, bytes.len(), |chunk, within, part| {
            let shard = self.shard(chunk).read().unwrap_or_else(PoisonError::into_inner);
            let len = part.len();
            match shard.get(&chunk) {
                Some(stored) => bytes[part].copy_from_slice(&stored[within..within + len]),
                None => bytes[part].fill(0),
            }
        });
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        for_each_chunk(offset, bytes.len(), |chunk, within, part| {
            let mut shard = self.shard(chunk).write().unwrap_or_else(PoisonError::into_inner);
            let stored = shard.entry(chunk).or_insert_with(|| vec![0; CHUNK].into());
            stored[within..within + part.len()].copy_from_slice(&bytes[part]);
        });
    }

    /// Makes a range read as zeroes: frees whole chunks, and fills a part of one at either end.
    fn erase(&self, offset: u64, len: u64) {
        let chunk_len = CHUNK as u64;
        let end = offset + len;
        let whole = offset.div_ceil(chunk_len)..end / chunk_len;
        // Iterates over what is stored, and not over the range, which has no bound on a sparse
        // device.
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|chunk, _| !whole.contains(chunk));
        }
        for part in
            [offset..end.min(whole.start * chunk_len), offset.max(whole.end * chunk_len)..end]
        {
            let Ok(len) = usize::try_from(part.end.saturating_sub(part.start)) else { continue };
            for_each_chunk(part.start, len, |chunk, within, part| {
                let mut shard = self.shard(chunk).write().unwrap_or_else(PoisonError::into_inner);
                if let Some(stored) = shard.get_mut(&chunk) {
                    stored[within..within + part.len()].fill(0);
                }
            });
        }
    }
}

/// Calls `visit` with the number of each chunk that `len` bytes from `offset` on touch, where in
/// the chunk they begin, and which of the bytes they are.
fn for_each_chunk(
    offset: u64,
    len: usize,
    mut visit: impl FnMut(u64, usize, std::ops::Range<usize>),
) {
    let mut at = 0;
    while at < len {
        let place = offset + at as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of CHUNK fits")]
        let within = (place % CHUNK as u64) as usize;
        let end = len.min(at + CHUNK - within);
        visit(place / CHUNK as u64, within, at..end);
        at = end;
    }
}

/// Executes ops as they are submitted.
struct MemoryQueue {
    device: Arc<Device>,
    depth: usize,
    done: Vec<Completion>,
}

impl IoQueue for MemoryQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let accepted = ops.len().min(self.depth - self.done.len());
        for mut op in ops.drain(..accepted) {
            let mut at = op.offset();
            match op.kind() {
                OpKind::Read => {
                    for segment in op.destination() {
                        self.device.read(at, segment);
                        at += segment.len() as u64;
                    }
                }
                OpKind::Write => {
                    for segment in op.source() {
                        self.device.write(at, segment);
                        at += segment.len() as u64;
                    }
                }
                OpKind::Discard | OpKind::WriteZeroes => self.device.erase(at, op.len()),
                OpKind::Flush => {}
            }
            self.done.push(op.complete());
        }
        if accepted > 0 {
            self.device.stats.update(|stats| stats.submissions += 1);
        }
    }

    /// Ops were executed when they were accepted.
    fn start(&mut self) {}

    fn reap(&mut self, _min: usize, _deadline: Option<Instant>, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
    }
}
