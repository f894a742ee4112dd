//! A device in memory whose queues can be made to misbehave.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::{
    AlignedBuf, Completion, Dispatcher, DispatcherOptions, Error, ErrorKind, Geometry, IoBackend,
    IoQueue, MemoryBackend, Op, OwnedTransfer, Stats, WriteAt,
};

/// What a queue does otherwise than the honest one inside it.
pub(crate) trait Behaviour: Send {
    fn submit(&mut self, honest: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        honest.submit(ops);
    }

    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        honest.reap(min, deadline, done);
    }

    fn in_flight(&self, honest: &dyn IoQueue) -> usize {
        honest.in_flight()
    }
}

pub(crate) struct Honest;
impl Behaviour for Honest {}

struct Queue {
    honest: Box<dyn IoQueue>,
    behaviour: Box<dyn Behaviour>,
}

impl IoQueue for Queue {
    fn depth(&self) -> usize {
        self.honest.depth()
    }

    fn in_flight(&self) -> usize {
        self.behaviour.in_flight(&*self.honest)
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.behaviour.submit(&mut *self.honest, ops);
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        self.behaviour.reap(&mut *self.honest, min, deadline, done);
    }
}

struct Backend<F> {
    memory: MemoryBackend,
    opened: AtomicUsize,
    behaviour: F,
}

impl<F> IoBackend for Backend<F>
where
    F: Fn(usize) -> Result<Box<dyn Behaviour>, Error> + Send + Sync,
{
    fn engine(&self) -> &'static str {
        "fake"
    }

    fn device(&self) -> &'static str {
        "fake device"
    }

    fn geometry(&self) -> &Geometry {
        self.memory.geometry()
    }

    fn stats(&self) -> &Stats {
        self.memory.stats()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let behaviour = (self.behaviour)(self.opened.fetch_add(1, Ordering::SeqCst))?;
        Ok(Box::new(Queue { honest: self.memory.open_queue(depth)?, behaviour }))
    }
}

/// A dispatcher over a device of 1 MiB in blocks of 512 bytes. `behaviour` is asked for each queue that
/// is opened, with its number from 0 on.
pub(crate) fn device<F>(behaviour: F) -> Dispatcher
where
    F: Fn(usize) -> Result<Box<dyn Behaviour>, Error> + Send + Sync + 'static,
{
    let memory = MemoryBackend::new(1 << 20).unwrap();
    let backend = Backend { memory, opened: AtomicUsize::new(0), behaviour };
    let options = DispatcherOptions { queue_depth: 16, max_queues: 4 };
    Dispatcher::with_options(Arc::new(backend), options).unwrap()
}

/// A dispatcher whose first queue misbehaves; all later ones are honest.
pub(crate) fn first_queue<B: Behaviour + 'static>(
    make: impl Fn() -> B + Send + Sync + 'static,
) -> Dispatcher {
    device(move |number| Ok(if number == 0 { Box::new(make()) } else { Box::new(Honest) }))
}

/// Runs `test`, which must not hang.
pub(crate) fn within_seconds<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || send.send(test()));
    match receive.recv_timeout(Duration::from_secs(20)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().unwrap_err())
        }
    }
}

/// `count` writes of one block each, far enough apart not to be merged, of a byte that is its number.
pub(crate) fn writes(blocks: &[[u8; 512]]) -> Vec<WriteAt<'_>> {
    (0..).zip(blocks).map(|(number, block)| WriteAt::new(place(number), block)).collect()
}

/// Blocks to write, each of its own bytes.
pub(crate) fn blocks(count: u8) -> Vec<[u8; 512]> {
    (0..count).map(|number| [number + 1; 512]).collect()
}

/// Where write `number` goes.
pub(crate) fn place(number: u64) -> u64 {
    4096 * number
}

/// The same writes with buffers of their own.
pub(crate) fn owned(blocks: &[[u8; 512]]) -> Vec<OwnedTransfer> {
    (0..)
        .zip(blocks)
        .map(|(number, block)| {
            let mut buffer = AlignedBuf::zeroed(block.len()).unwrap();
            buffer.copy_from_slice(block);
            OwnedTransfer::new(place(number), buffer)
        })
        .collect()
}

/// What went wrong with each transfer: `None` for nothing.
pub(crate) fn kinds<'a>(
    results: impl IntoIterator<Item = &'a Result<(), Error>>,
) -> Vec<Option<ErrorKind>> {
    results.into_iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
}
