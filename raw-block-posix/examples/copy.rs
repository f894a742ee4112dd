//! Copies an image to a file or block device of at least its size, at full depth: while one batch of 32 x 256 KiB
//! is written, the next is read.
//!
//! `cargo run --release --example copy -- <from> <to>`; without arguments it copies 64 MiB from one
//! temporary file to another.

use std::sync::Arc;
use std::time::Instant;

use raw_block_core::{AlignedBuf, BufferPool, Dispatcher, Error, OwnedTransfer, Ticket};
use raw_block_posix::{PosixBackend, PosixOptions};

const PART: usize = 256 << 10;
const BATCH: usize = 32;

fn open(path: &str) -> Result<Dispatcher, Error> {
    Dispatcher::new(Arc::new(PosixBackend::open(path, &PosixOptions::default())?))
}

/// A transfer of the part of an image of `len` bytes that begins at `place`; the last one may be short.
fn part(place: u64, len: u64, buffer: AlignedBuf) -> OwnedTransfer {
    let payload_len = buffer.len().min(usize::try_from(len - place).unwrap_or(PART));
    let total_len = payload_len as u64;
    OwnedTransfer { payload_len, total_len, ..OwnedTransfer::new(place, buffer) }
}

/// Starts reading the batch that begins at `first`.
fn read(from: &Dispatcher, pool: &BufferPool, first: u64, len: u64) -> Result<Ticket, Error> {
    let places = (first..len).step_by(PART).take(BATCH);
    let buffers = std::iter::from_fn(|| pool.take());
    let batch = places.zip(buffers).map(|(place, buffer)| part(place, len, buffer)).collect();
    from.batched_read(batch).map_err(|refused| refused.error)
}

/// Starts writing what was read.
fn write(to: &Dispatcher, first: u64, len: u64, was_read: Ticket) -> Result<Ticket, Error> {
    let mut batch = Vec::with_capacity(BATCH);
    for (place, finished) in (first..len).step_by(PART).zip(was_read.wait()) {
        finished.result?;
        batch.push(part(place, len, finished.buffer));
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
    let [from, to] = &paths[..] else { return Err("it takes two paths, from and to".into()) };
    let (from, to) = (open(from)?, open(to)?);
    let len = from.geometry().capacity;
    if to.geometry().capacity < len {
        return Err("the second is smaller than the first".into());
    }

    let began = Instant::now();
    let pool = BufferPool::new(PART, 2 * BATCH)?;
    let mut writing: Option<Ticket> = None;
    let mut reading = read(&from, &pool, 0, len)?;
    for first in (0..len).step_by(BATCH * PART) {
        // The buffers of the batch before go back to the pool as its results are dropped.
        if let Some(ticket) = writing.take() {
            ticket.wait().into_iter().try_for_each(|written| written.result)?;
        }
        writing = Some(write(&to, first, len, reading)?);
        reading = read(&from, &pool, len.min(first + (BATCH * PART) as u64), len)?;
    }
    if let Some(ticket) = writing {
        ticket.wait().into_iter().try_for_each(|written| written.result)?;
    }
    to.flush()?;
    let seconds = began.elapsed().as_secs_f64();
    println!("copied {} MiB in {seconds:.3} s", len >> 20);
    Ok(())
}
