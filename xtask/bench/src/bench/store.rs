//! The layer `store`: batches of keys, put into a store that is formatted for every slice, and got
//! from it.
//!
//! Each key's payload is one of `batch` sequences of random bytes, with the key's number in its
//! first and last bytes. So the payload of another key, or a part of one, is noticed.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, BufferPool, MemoryBackend};
use raw_block_store::{FormatOptions, Get, Put, Store};

use super::cases::Shape;
use super::data::{SplitMix, Walk, permutation};
use super::measure::{Slice, Work, measure};
use super::raw::random_buffers;
use super::sample::Sample;

/// The maximum number of bytes in which the keys of gets are.
const WORKING_SET: u64 = 128 << 20;
/// The number of bytes after which gets are compared, unless a batch is longer.
const COMPARED_AT_ONCE: u64 = 256 << 10;
/// Objects per batch where the time is not measured.
const FILLED_AT_ONCE: usize = 64;

type Key = [u8; 16];

/// Block size of the stores.
const BLOCK: u64 = 4096;

/// Bytes that a put of one object of a batch writes, in whole blocks. A store in memory shows it.
pub(super) fn put_bytes(value: u64, batch: usize) -> Result<u64> {
    let backend = Arc::new(MemoryBackend::new((64 << 20) + 64 * value * batch as u64)?);
    Store::format(Arc::clone(&backend) as _, &format_options(value))?;
    let store = Store::open(backend)?;
    let payload = vec![0; usize::try_from(value)?];
    // The first put opens a segment.
    store.put(&key(u64::MAX), &payload)?;
    let keys: Vec<_> = (0..batch as u64).map(key).collect();
    let before = store.dispatcher().stats().written_bytes;
    put_all(&store, keys.iter().map(|key| Put::new(key, &payload)))?;
    let written = store.dispatcher().stats().written_bytes - before;
    Ok(written / batch as u64 / BLOCK * BLOCK)
}

/// Bytes that a get of one object reads.
pub(super) fn get_bytes(value: u64) -> u64 {
    value.next_multiple_of(BLOCK)
}

/// The number of keys of gets: whole batches of every thread.
pub(super) fn working_set(shape: Shape, span: u64) -> u64 {
    let batches = shape.batch as u64 * shape.threads as u64;
    let fit = WORKING_SET.min(span / 4) / get_bytes(shape.value) / batches;
    fit.max(1) * batches
}

/// Measures puts, then gets of neighbours, then with batches above 1 gets of scattered keys.
///
/// Every value that is got is compared with what was put.
pub(super) fn run(
    backend: &Arc<dyn IoBackend>,
    shape: Shape,
    put_bytes: u64,
    span: u64,
    round: usize,
    slice: Slice,
) -> Result<Vec<Sample>> {
    let Shape { value, batch, threads, metadata } = shape;
    let len = usize::try_from(value)?;
    Store::format(Arc::clone(backend), &format_options(value))?;
    let stretch = (COMPARED_AT_ONCE / (value * batch as u64)).clamp(1, 64);
    let count = usize::try_from(stretch)? * batch;
    let store = Store::open(Arc::clone(backend))?;
    let buffer_len = usize::try_from(get_bytes(value))?;
    let pool = BufferPool::new(buffer_len, (batch + count) * threads)?;
    // Only an optimisation, which memory does not have.
    let _registered = pool.register_with(Arc::clone(backend)).ok();

    // The device has space for all puts, so that no put waits for space.
    let last = span / 2 / put_bytes / batch as u64;
    let mut puts = Vec::new();
    for thread in 0..threads {
        let buffers = random_buffers(|| pool.take(), batch, value)?;
        let (next, step) = (thread as u64, threads as u64);
        let metadata = vec![u8::try_from(thread)?; metadata];
        puts.push(Puts { store: &store, buffers, len, metadata, next, step, last });
    }
    let mut samples = vec![measure(&mut puts, batch as u64, &**backend, slice)?];

    let keys = working_set(shape, span);
    for put in &mut puts {
        put.fill(keys / batch as u64)?;
    }
    drop(puts);
    for apart in if batch > 1 { &[false, true][..] } else { &[false] } {
        let places = if *apart { keys } else { keys / batch as u64 };
        let order = permutation(u32::try_from(places)?);
        let mut gets = Vec::new();
        for thread in 0..threads {
            let walk = Walk::new(&order, thread, threads, round);
            gets.push(Gets::new(&store, &pool, shape, count, *apart, walk)?);
        }
        samples.push(measure(&mut gets, batch as u64, &**backend, slice)?);
    }
    if store.stats().checkpoints > 0 {
        bail!(
            "the store took a checkpoint during the measurement, which is a bug of the benchmark"
        );
    }
    Ok(samples)
}

fn format_options(value: u64) -> FormatOptions {
    FormatOptions::default().largest_object(value).force(true)
}

fn key(number: u64) -> Key {
    let mut key = *b"key             ";
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

/// Stamps the first and last bytes of a payload with the number of its key.
fn stamp(payload: &mut [u8], number: u64) {
    let stamp = number.to_le_bytes();
    let len = payload.len().min(stamp.len());
    payload[..len].copy_from_slice(&stamp[..len]);
    let tail = payload.len() - len;
    payload[tail..].copy_from_slice(&stamp[..len]);
}

/// Puts batches `next`, `next + step` and so on. Batch n has the keys from n * batch.
struct Puts<'a> {
    store: &'a Store,
    buffers: Vec<AlignedBuf>,
    /// Bytes of a payload.
    len: usize,
    /// Bytes of metadata of each object.
    metadata: Vec<u8>,
    next: u64,
    step: u64,
    last: u64,
}

impl Puts<'_> {
    /// Puts the missing ones of the first `batches` batches, in long batches.
    fn fill(&mut self, batches: u64) -> Result<()> {
        let mut objects: Vec<(Key, Vec<u8>)> = Vec::new();
        while self.next < batches {
            let first = self.next * self.buffers.len() as u64;
            for (number, buffer) in (first..).zip(&self.buffers) {
                let mut payload = buffer[..self.len].to_vec();
                stamp(&mut payload, number);
                objects.push((key(number), payload));
            }
            self.next += self.step;
            if objects.len() >= FILLED_AT_ONCE || self.next >= batches {
                put_all(
                    self.store,
                    objects
                        .iter()
                        .map(|(key, payload)| Put::new(key, payload).with_metadata(&self.metadata)),
                )?;
                objects.clear();
            }
        }
        Ok(())
    }
}

impl Work for Puts<'_> {
    fn warm_up(&self) -> u64 {
        self.last / self.step / 8
    }

    fn batch(&mut self) -> Result<bool> {
        if self.next >= self.last {
            return Ok(false);
        }
        let first = self.next * self.buffers.len() as u64;
        self.next += self.step;
        let keys: Vec<Key> = (first..).take(self.buffers.len()).map(key).collect();
        let batch = (first..).zip(&keys).zip(&mut self.buffers).map(|((number, key), buffer)| {
            let payload = &mut buffer[..self.len];
            stamp(payload, number);
            Put::new(key, payload).with_metadata(&self.metadata)
        });
        put_all(self.store, batch)?;
        Ok(true)
    }
}

fn put_all<'a>(store: &Store, batch: impl Iterator<Item = Put<'a>>) -> Result<()> {
    let batch: Vec<_> = batch.collect();
    for result in store.put_many(&batch) {
        result?;
    }
    Ok(())
}

/// Gets batches of neighbours, or of scattered keys.
struct Gets<'a> {
    store: &'a Store,
    batch: usize,
    apart: bool,
    walk: Walk,
    buffers: Vec<AlignedBuf>,
    /// Metadata of each object of a batch.
    metadata: Vec<Vec<u8>>,
    /// The keys whose payloads are in `buffers` and are not compared yet.
    got: Vec<u64>,
    /// The payloads of the keys of any batch, without their stamps.
    expected: Vec<Vec<u8>>,
}

impl<'a> Gets<'a> {
    fn new(
        store: &'a Store,
        pool: &BufferPool,
        shape: Shape,
        count: usize,
        apart: bool,
        walk: Walk,
    ) -> Result<Self> {
        let taken = (0..count).map(|_| pool.take().context("the pool is too small"));
        let buffers: Vec<_> = taken.collect::<Result<_>>()?;
        let Shape { value, batch, metadata, .. } = shape;
        let metadata = vec![vec![0; metadata]; batch];
        let len = usize::try_from(value)?;
        let expected = (0..batch).map(|seed| {
            let mut payload = vec![0; len];
            SplitMix(seed as u64).fill(&mut payload);
            payload
        });
        let (got, expected) = (Vec::with_capacity(count), expected.collect());
        Ok(Self { store, batch, apart, walk, buffers, metadata, got, expected })
    }
}

impl Work for Gets<'_> {
    fn batch(&mut self) -> Result<bool> {
        let Self { store, batch, apart, walk, buffers, metadata, got, expected } = self;
        let len = expected[0].len();
        let from = got.len();
        if *apart {
            got.extend((0..*batch).map(|_| walk.next()));
        } else {
            let first = walk.next() * *batch as u64;
            got.extend(first..first + *batch as u64);
        }
        let keys: Vec<Key> = got[from..].iter().map(|&number| key(number)).collect();
        let mut gets: Vec<_> = keys
            .iter()
            .zip(&mut buffers[from..])
            .zip(metadata)
            .map(|((key, buffer), metadata)| {
                Get::new(key, &mut buffer[..len]).with_metadata(metadata)
            })
            .collect();
        for (result, number) in store.get_many(&mut gets).into_iter().zip(&got[from..]) {
            match result? {
                Some(found) if found.payload_len == len => {}
                Some(found) => bail!("key {number} has {} bytes", found.payload_len),
                None => bail!("key {number} was put, but is missing"),
            }
        }
        Ok(true)
    }

    fn stretch(&self) -> u64 {
        (self.buffers.len() / self.batch) as u64
    }

    fn check(&mut self) -> Result<()> {
        for (number, found) in self.got.drain(..).zip(&self.buffers) {
            let place = usize::try_from(number % self.batch as u64)?;
            let expected = &mut self.expected[place];
            stamp(expected, number);
            if found[..expected.len()] != **expected {
                return Err(anyhow!("key {number} has other bytes than were put"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_case_of_a_store_in_memory_is_measured_and_compared() {
        let shapes = [(1, 4096, 1), (1, 4096, 32), (1, 5000, 8), (2, 4096, 32)];
        for ((threads, value, batch), metadata) in
            shapes.into_iter().flat_map(|of| [(of, 0), (of, 20)])
        {
            let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(64 << 20).unwrap());
            let shape = Shape { value, batch, threads, metadata };
            let slice = Slice { rest: Duration::ZERO, time: Duration::from_millis(10) };
            let put = put_bytes(value, batch).unwrap();
            let samples = run(&backend, shape, put, 64 << 20, 0, slice).unwrap();
            assert_eq!(samples.len(), if batch > 1 { 3 } else { 2 });
            for sample in &samples[1..] {
                // Metadata is in the slot header, which is read only for it.
                let header = sample.io_bytes - get_bytes(value) as f64;
                assert_eq!(header > 1.0, metadata > 0, "{shape:?} reads {header} bytes more");
                assert!(header > -1e-9, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_payload_of_another_key_or_with_a_flipped_bit_is_noticed() {
        let backend = Arc::new(MemoryBackend::new(64 << 20).unwrap());
        Store::format(backend.clone(), &format_options(4096)).unwrap();
        let store = Store::open(backend).unwrap();
        let pool = BufferPool::new(4096, 3).unwrap();
        let buffers = random_buffers(|| pool.take(), 1, 4096).unwrap();
        let mut puts = Puts {
            store: &store,
            buffers,
            len: 4096,
            metadata: Vec::new(),
            next: 0,
            step: 1,
            last: 2,
        };
        while puts.batch().unwrap() {}
        let order = permutation(2);
        let shape = Shape { value: 4096, batch: 1, threads: 1, metadata: 0 };
        let walk = Walk::new(&order, 0, 1, 0);
        let mut gets = Gets::new(&store, &pool, shape, 2, false, walk).unwrap();
        for spoil in [None, Some(0), Some(2000), Some(4095)] {
            gets.batch().unwrap();
            gets.batch().unwrap();
            if let Some(at) = spoil {
                gets.buffers[1][at] ^= 1;
            }
            assert_eq!(gets.check().is_ok(), spoil.is_none());
        }
        gets.batch().unwrap();
        gets.batch().unwrap();
        gets.buffers.swap(0, 1);
        assert!(gets.check().is_err());
    }
}
