//! Writes a file through the ring with several batches under way, from registered memory.
//!
//! Usage: `batched_writer [PATH]`; without a path, a temporary file is used.

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use raw_block_core::{BufferPool, Dispatcher, OwnedTransfer, Ticket};
use raw_block_uring::{UringBackend, UringOptions};

const BUFFER: usize = 256 << 10;
const BATCH: usize = 8;
const UNDER_WAY: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::NamedTempFile::new_in(".")?;
    temporary.as_file().set_len(64 << 20)?;
    let path = std::env::args_os().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);

    let backend = Arc::new(UringBackend::open(&path, &UringOptions::default())?);
    let pool = BufferPool::new(BUFFER, BATCH * UNDER_WAY)?;
    let registration = pool.register_with(backend.clone());
    if let Err(error) = &registration {
        println!("going on without registered memory: {error}");
    }
    let device = Dispatcher::new(backend)?;

    let started = Instant::now();
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    let mut offset = 0;
    while offset + (BATCH * BUFFER) as u64 <= device.geometry().capacity {
        if tickets.len() == UNDER_WAY {
            finish(tickets.pop_front())?;
        }
        let mut batch = Vec::with_capacity(BATCH);
        for mut buffer in std::iter::from_fn(|| pool.take()).take(BATCH) {
            buffer.fill(b'x'); // what a real writer computes while earlier batches are written
            batch.push(OwnedTransfer::new(offset, buffer));
            offset += BUFFER as u64;
        }
        tickets.push_back(device.batched_write(batch)?);
    }
    for ticket in tickets {
        finish(Some(ticket))?;
    }
    device.flush()?;
    println!("{} MiB in {:.2?}: {:?}", offset >> 20, started.elapsed(), device.stats());
    Ok(())
}

fn finish(ticket: Option<Ticket>) -> Result<(), raw_block_core::Error> {
    // The buffers go back to the pool as the results are dropped.
    ticket.map_or(Ok(()), |ticket| ticket.wait().into_iter().try_for_each(|done| done.result))
}
