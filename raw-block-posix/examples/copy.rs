//! Copies an image to a file or block device of at least its size: reads one batch of 32 x 256 KiB
//! while it writes the batch before.
//!
//! `cargo run --release --example copy -- <from> <to>`; without arguments it copies 64 MiB between
//! temporary files.

use std::sync::Arc;
use std::time::Instant;

use raw_block_posix::{
    Buffer, BufferPool, Dispatcher, Error, OwnedTransfer, PosixBackend, PosixOptions, Ticket,
};

/// Bytes in a transfer.
const PART_LEN: usize = 256 << 10;
/// Transfers in a batch.
const BATCH: usize = 32;

fn open(path: &str) -> Result<Dispatcher, Error> {
    Dispatcher::new(Arc::new(PosixBackend::open(path, &PosixOptions::new())?))
}

/// The transfer at `offset` of an image of `len` bytes; the last one may be short.
fn part(offset: u64, len: u64, buffer: Buffer) -> OwnedTransfer {
    let payload_len = buffer.len().min(usize::try_from(len - offset).unwrap_or(PART_LEN));
    OwnedTransfer::new(offset, buffer).with_payload_len(payload_len)
}

/// Starts reading the batch that begins at `first`.
fn read(from: &Dispatcher, pool: &BufferPool, first: u64, len: u64) -> Result<Ticket, Error> {
    let offsets = (first..len).step_by(PART_LEN).take(BATCH);
    let buffers = std::iter::from_fn(|| pool.take());
    let batch =
        offsets.zip(buffers).map(|(offset, buffer)| part(offset, len, buffer.into())).collect();
    from.batched_read(batch).map_err(|refused| refused.error)
}

/// Starts writing the batch that `reading` reads.
fn write(to: &Dispatcher, first: u64, len: u64, reading: Ticket) -> Result<Ticket, Error> {
    let mut batch = Vec::with_capacity(BATCH);
    for (offset, finished) in (first..len).step_by(PART_LEN).zip(reading.wait()) {
        finished.result?;
        batch.push(part(offset, len, finished.buffer));
    }
    to.batched_write(batch).map_err(|refused| refused.error)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut paths: Vec<_> = std::env::args().skip(1).collect();
    let files = [tempfile::NamedTempFile::new_in(".")?, tempfile::NamedTempFile::new_in(".")?];
    if paths.is_empty() {
        for file in &files {
            file.as_file().set_len(64 << 20)?;
            paths.push(file.path().display().to_string());
        }
    }
    let [from, to] = &paths[..] else { return Err("pass two paths: from and to".into()) };
    let (from, to) = (open(from)?, open(to)?);
    let len = from.geometry().capacity;
    if to.geometry().capacity < len {
        return Err("the destination is smaller than the image".into());
    }

    let began = Instant::now();
    let pool = BufferPool::new(PART_LEN, 2 * BATCH)?;
    let mut writing: Option<Ticket> = None;
    let mut reading = read(&from, &pool, 0, len)?;
    for first in (0..len).step_by(BATCH * PART_LEN) {
        // Dropping the results of the previous batch returns its buffers to the pool.
        if let Some(ticket) = writing.take() {
            ticket.wait().into_iter().try_for_each(|written| written.result)?;
        }
        writing = Some(write(&to, first, len, reading)?);
        reading = read(&from, &pool, len.min(first + (BATCH * PART_LEN) as u64), len)?;
    }
    if let Some(ticket) = writing {
        ticket.wait().into_iter().try_for_each(|written| written.result)?;
    }
    to.flush()?;
    let seconds = began.elapsed().as_secs_f64();
    println!("copied {} MiB in {seconds:.3} s", len >> 20);
    Ok(())
}
