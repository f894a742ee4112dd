//! Writes a file with several batches from registered memory in flight.
//!
//! Usage: `batched_writer [PATH]`; without a path, a temporary file is used.

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use raw_block_uring::{BufferPool, Dispatcher, OwnedTransfer, Ticket, UringBackend, UringOptions};

const BUFFER_LEN: usize = 256 << 10;
/// Transfers in a batch.
const BATCH: usize = 8;
/// Batches in flight at a time.
const IN_FLIGHT: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::NamedTempFile::new_in(".")?;
    temporary.as_file().set_len(64 << 20)?;
    let path = std::env::args_os().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);

    let backend = Arc::new(UringBackend::open(&path, &UringOptions::new())?);
    let pool = BufferPool::new(BUFFER_LEN, BATCH * IN_FLIGHT)?;
    let registration = pool.register_with(backend.clone());
    if let Err(error) = &registration {
        println!("continuing without registered memory: {error}");
    }
    let dispatcher = Dispatcher::new(backend)?;

    let began = Instant::now();
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    let mut offset = 0;
    while offset + (BATCH * BUFFER_LEN) as u64 <= dispatcher.geometry().capacity {
        if tickets.len() == IN_FLIGHT {
            finish(tickets.pop_front())?;
        }
        let mut batch = Vec::with_capacity(BATCH);
        for mut buffer in std::iter::from_fn(|| pool.take()).take(BATCH) {
            buffer.fill(b'x'); // a real writer computes data while earlier batches are written
            batch.push(OwnedTransfer::new(offset, buffer));
            offset += BUFFER_LEN as u64;
        }
        tickets.push_back(dispatcher.batched_write(batch)?);
    }
    for ticket in tickets {
        finish(Some(ticket))?;
    }
    dispatcher.flush()?;
    println!("{} MiB in {:.2?}: {:?}", offset >> 20, began.elapsed(), dispatcher.stats());
    Ok(())
}

fn finish(ticket: Option<Ticket>) -> Result<(), raw_block_uring::Error> {
    // Dropping a result returns its buffer to the pool.
    ticket.map_or(Ok(()), |ticket| ticket.wait().into_iter().try_for_each(|done| done.result))
}
