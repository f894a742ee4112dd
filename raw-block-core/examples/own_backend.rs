//! A backend in safe code: any `std::fs::File`, one op at a time. The conformance suite tests it:
//! `cargo test -p raw-block-core --example own_backend` runs it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use raw_block_core::backend::{Completion, FlushState, IoBackend, IoQueue, Op, OpKind, Stats};
use raw_block_core::{Dispatcher, Error, Geometry, ReadAt, WriteAt};

/// A file, through the page cache.
struct FileBackend {
    file: Arc<File>,
    geometry: Geometry,
    stats: Arc<Stats>,
    flush_state: FlushState,
}

impl FileBackend {
    fn new(file: File) -> Result<Self, Error> {
        let len = file.metadata().map_err(|error| Error::os("ask for the size", error))?.len();
        // Blocks of 512 bytes, and neither discard nor write-zeroes.
        let geometry = Geometry::new(len, 512)?;
        let file = Arc::new(file);
        Ok(Self { file, geometry, stats: Arc::default(), flush_state: FlushState::new() })
    }
}

impl IoBackend for FileBackend {
    fn engine(&self) -> &str {
        "file"
    }

    fn name(&self) -> &str {
        "a file"
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.flush_state
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, stats) = (Arc::clone(&self.file), Arc::clone(&self.stats));
        Ok(Box::new(FileQueue { file, stats, depth, accepted: VecDeque::new() }))
    }
}

/// Accepts ops, and executes them when they are reaped.
struct FileQueue {
    file: Arc<File>,
    stats: Arc<Stats>,
    depth: usize,
    accepted: VecDeque<Op>,
}

impl IoQueue for FileQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.accepted.len()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        let accepted = ops.len().min(self.depth - self.accepted.len());
        self.accepted.extend(ops.drain(..accepted));
    }

    /// Nothing works on this queue but the calls that reap, so nothing can be started before. For
    /// the same reason there is no wait that a [waker](IoQueue::waker) could end, and the default
    /// of that method suffices.
    fn start(&mut self) {}

    fn reap(&mut self, _: usize, _: Option<Instant>, done: &mut Vec<Completion>) {
        if !self.accepted.is_empty() {
            self.stats.update(|stats| stats.submissions += 1);
        }
        done.extend(self.accepted.drain(..).map(|op| transfer(&self.file, op)));
    }
}

impl Drop for FileQueue {
    /// Executes what was accepted.
    fn drop(&mut self) {
        self.reap(0, None, &mut Vec::new());
    }
}

/// Executes one op.
fn transfer(file: &File, mut op: Op) -> Completion {
    let result = match op.kind() {
        OpKind::Read => {
            let mut at = op.offset();
            op.destination().try_for_each(|segment| {
                let read = file.read_exact_at(segment, at);
                at += segment.len() as u64;
                read
            })
        }
        OpKind::Write => {
            let mut at = op.offset();
            op.source().iter().try_for_each(|segment| {
                let written = file.write_all_at(segment, at);
                at += segment.len() as u64;
                written
            })
        }
        OpKind::Flush => file.sync_data(),
        // The dispatcher submits no op that the geometry does not offer.
        OpKind::Discard | OpKind::WriteZeroes => Err(io::Error::from(ErrorKind::Unsupported)),
    };
    match result {
        Ok(()) => op.complete(),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => op.fail_at_end(),
        Err(error) => op.fail(error),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = tempfile::tempfile()?;
    file.set_len(1 << 20)?;
    let device = Dispatcher::new(Arc::new(FileBackend::new(file)?))?;
    device.write_buffers(&[WriteAt::new(4096, b"some bytes").padded_to(512)]).all()?;
    let mut found = [0; 10];
    device.read_buffers(&mut [ReadAt::new(4096, &mut found).padded_to(512)]).all()?;
    println!("read back: {}", String::from_utf8_lossy(&found));
    Ok(())
}

#[cfg(test)]
mod tests {
    use raw_block_core::conformance::{Skipped, Subject};

    use super::*;

    raw_block_core::conformance_suite!(file, || {
        let file = tempfile::tempfile().map_err(Skipped::because)?;
        file.set_len(16 << 20).unwrap();
        Ok(Subject::new(Arc::new(FileBackend::new(file).unwrap())))
    });
}
