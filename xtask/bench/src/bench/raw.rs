//! The layer `raw`: batches of random transfers through the dispatcher.

use std::ops::DerefMut;
use std::sync::Arc;

use anyhow::{Context, Result};
use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, BufferPool, Dispatcher, ReadAt, Registration, WriteAt};

use super::cases::Shape;
use super::data::{SplitMix, Walk};
use super::measure::{Slice, Work, measure};
use super::sample::Sample;

/// Measures writes, then reads, of `io_bytes` each, at the offsets of `order`.
pub(super) fn run(
    backend: &Arc<dyn IoBackend>,
    shape: Shape,
    io_bytes: u64,
    order: &Arc<[u32]>,
    round: usize,
    slice: Slice,
) -> Result<Vec<Sample>> {
    let (pool, _registration) = registered_pool(backend, shape.value, shape.batch * shape.threads)?;
    let device = Dispatcher::new(Arc::clone(backend))?;
    let mut works = Vec::new();
    for thread in 0..shape.threads {
        works.push(Transfers {
            device: &device,
            writes: true,
            buffers: random_buffers(|| pool.take(), shape.batch, shape.value)?,
            walk: Walk::new(order, thread, shape.threads, round),
            io_bytes,
        });
    }
    let keys = shape.batch as u64;
    let writes = measure(&mut works, keys, &**backend, slice)?;
    works.iter_mut().for_each(|work| work.writes = false);
    let reads = measure(&mut works, keys, &**backend, slice)?;
    Ok(vec![writes, reads])
}

struct Transfers<'a> {
    device: &'a Dispatcher,
    writes: bool,
    buffers: Vec<AlignedBuf>,
    walk: Walk,
    io_bytes: u64,
}

impl Work for Transfers<'_> {
    fn batch(&mut self) -> Result<bool> {
        let Self { device, buffers, walk, io_bytes, .. } = self;
        let mut place = || walk.next() * *io_bytes;
        if self.writes {
            let batch: Vec<_> = buffers
                .iter()
                .map(|buffer| WriteAt::new(place(), buffer).padded_to(*io_bytes))
                .collect();
            device.write_buffers(&batch).all()?;
        } else {
            let mut batch: Vec<_> = buffers
                .iter_mut()
                .map(|buffer| ReadAt::new(place(), buffer).padded_to(*io_bytes))
                .collect();
            device.read_buffers(&mut batch).all()?;
        }
        Ok(true)
    }
}

/// Creates a pool of `count` buffers of `len` bytes, registered with the backend if it supports
/// that.
pub(super) fn registered_pool(
    backend: &Arc<dyn IoBackend>,
    len: u64,
    count: usize,
) -> Result<(BufferPool, Option<Registration>)> {
    let pool = BufferPool::new(usize::try_from(len)?, count)?;
    // Transfers also work without a registration; the report has it.
    let registration = pool.register_with(Arc::clone(backend)).ok();
    Ok((pool, registration))
}

/// Takes `count` buffers from a pool, and fills the first `len` bytes of the k-th with the k-th
/// sequence of random bytes.
pub(super) fn random_buffers<B: DerefMut<Target = [u8]>>(
    take: impl Fn() -> Option<B>,
    count: usize,
    len: u64,
) -> Result<Vec<B>> {
    let len = usize::try_from(len)?;
    let mut buffers = Vec::with_capacity(count);
    for seed in 0..count {
        let mut buffer = take().context("the pool is too small")?;
        SplitMix(seed as u64).fill(&mut buffer[..len]);
        buffers.push(buffer);
    }
    Ok(buffers)
}
