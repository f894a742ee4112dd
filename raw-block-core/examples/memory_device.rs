//! Tries code that works on a device without one: a batch is written while other work goes on, then
//! read back in one go.

use std::sync::Arc;

use raw_block_core::backend::Transfer;
use raw_block_core::{BufferPool, Dispatcher, Error, MemoryBackend, OwnedTransfer, ReadAt};

const RECORD: usize = 4096;

fn main() -> Result<(), Error> {
    let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20)?))?;
    let pool = BufferPool::new(RECORD, 16)?;

    // A ticket owns its buffers, so this thread is free while the batch runs.
    let batch: Vec<_> = (0..16)
        .zip(std::iter::from_fn(|| pool.take()))
        .map(|(number, mut buffer)| {
            buffer.fill(number);
            OwnedTransfer::new(u64::from(number) * RECORD as u64, buffer)
        })
        .collect();
    let ticket = device.batched_write(batch).map_err(|refused| refused.error)?;
    println!("batch {} is in flight", ticket.id());
    for finished in ticket.wait() {
        finished.result?;
    }
    device.flush()?;

    // A blocking batch borrows any memory; unaligned memory is staged.
    let mut records = vec![[0; 100]; 16];
    let mut reads: Vec<_> = (0_u64..)
        .zip(&mut records)
        .map(|(number, record)| {
            ReadAt::new(number * RECORD as u64, record).padded_to(RECORD as u64)
        })
        .collect();
    assert!(reads.iter().all(|read| read.payload_len() == 100));
    device.read_buffers(&mut reads).all()?;
    assert!((0..).zip(&records).all(|(number, record)| record.iter().all(|&byte| byte == number)));
    println!("{:?}", device.stats());
    Ok(())
}
