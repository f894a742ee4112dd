//! The layer `serial`: the older design that the store is compared with. For each key it submits a
//! header and waits for it, and then its payload.

use std::sync::Arc;

use anyhow::Result;
use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use super::cases::Shape;
use super::data::Walk;
use super::measure::{Slice, Work, measure};
use super::raw::{random_buffers, registered_pool};
use super::sample::Sample;

/// A header in bytes: one block, of which the older design used 32 bytes.
const HEADER: u64 = 4096;

/// Bytes that the older design transfers for one key.
pub(super) fn io_bytes(value: u64) -> u64 {
    HEADER + value.next_multiple_of(HEADER)
}

/// Measures puts, then gets, in slots of `io_bytes`. The keys of a batch are in neighbouring slots,
/// as those of the store are. `order` has the positions of batches.
pub(super) fn run(
    backend: &Arc<dyn IoBackend>,
    shape: Shape,
    io_bytes: u64,
    order: &Arc<[u32]>,
    round: usize,
    slice: Slice,
) -> Result<Vec<Sample>> {
    let (headers, _headers) = registered_pool(backend, HEADER, shape.threads)?;
    let (payloads, _payloads) = registered_pool(backend, shape.value, shape.batch * shape.threads)?;
    let device = Dispatcher::new(Arc::clone(backend))?;
    let mut works = Vec::new();
    for thread in 0..shape.threads {
        works.push(KeyByKey {
            device: &device,
            writes: true,
            header: random_buffers(|| headers.take(), 1, HEADER)?.remove(0),
            payloads: random_buffers(|| payloads.take(), shape.batch, shape.value)?,
            walk: Walk::new(order, thread, shape.threads, round),
            io_bytes,
        });
    }
    let keys = shape.batch as u64;
    let puts = measure(&mut works, keys, &**backend, slice)?;
    works.iter_mut().for_each(|work| work.writes = false);
    let gets = measure(&mut works, keys, &**backend, slice)?;
    Ok(vec![puts, gets])
}

struct KeyByKey<'a> {
    device: &'a Dispatcher,
    writes: bool,
    header: AlignedBuf,
    payloads: Vec<AlignedBuf>,
    walk: Walk,
    io_bytes: u64,
}

impl Work for KeyByKey<'_> {
    fn batch(&mut self) -> Result<bool> {
        let Self { device, header, payloads, walk, io_bytes, .. } = self;
        let mut slot = walk.next() * *io_bytes * payloads.len() as u64;
        for payload in payloads {
            let (at, padded) = (slot + HEADER, *io_bytes - HEADER);
            if self.writes {
                device.write_buffers(&[WriteAt::new(slot, header)]).all()?;
                device.write_buffers(&[WriteAt::new(at, payload).padded_to(padded)]).all()?;
            } else {
                device.read_buffers(&mut [ReadAt::new(slot, header)]).all()?;
                device.read_buffers(&mut [ReadAt::new(at, payload).padded_to(padded)]).all()?;
            }
            slot += *io_bytes;
        }
        Ok(true)
    }
}
