//! Copies a file or block device to another one of the same size, in batches of 32 x 256 KiB.
//!
//! `cargo run --release --example copy -- <from> <to>`; without arguments it copies 64 MiB from one
//! temporary file to another.

use std::sync::Arc;
use std::time::Instant;

use raw_block_core::{AlignedBuf, Dispatcher, Error, ReadAt, WriteAt};
use raw_block_posix::{PosixBackend, PosixOptions};

const PART: usize = 256 << 10;
const BATCH: usize = 32 * PART;

fn open(path: &str) -> Result<Dispatcher, Error> {
    Dispatcher::new(Arc::new(PosixBackend::open(path, &PosixOptions::default())?))
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
    if to.geometry().capacity != len {
        return Err("the two are not of the same size".into());
    }

    let began = Instant::now();
    let mut memory = AlignedBuf::zeroed(BATCH)?;
    for first in (0..len).step_by(BATCH) {
        let places = (first..).step_by(PART);
        let memory = &mut memory[..BATCH.min(usize::try_from(len - first)?)];
        let parts = places.clone().zip(memory.chunks_mut(PART));
        let mut reads: Vec<_> = parts.map(|(place, part)| ReadAt::new(place, part)).collect();
        from.read_buffers(&mut reads).all()?;

        let parts = places.zip(memory.chunks(PART));
        let writes: Vec<_> = parts.map(|(place, part)| WriteAt::new(place, part)).collect();
        to.write_buffers(&writes).all()?;
    }
    to.flush()?;
    println!("copied {} MiB in {:.3} s", len >> 20, began.elapsed().as_secs_f64());
    Ok(())
}
