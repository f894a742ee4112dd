//! Wakers: the wait for an op that does not complete ends.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::backend::{Completion, DeviceFile, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::{Direct, Dispatcher, Error, Geometry, ReadAt};
use raw_block_fixtures::temp_file;

use crate::queue::UringQueue;
use crate::ring::{Big, Linux, RingDevice, Standard, Width};

const BLOCK: usize = 512;
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend whose rings transfer from a pipe: reads wait for its other end.
struct PipeBackend<W> {
    file: Arc<DeviceFile>,
    rings: Arc<RingDevice>,
    /// Whether all queues are for any thread.
    shared: bool,
    wakers: Sender<Waker>,
    reaps: Sender<usize>,
    width: PhantomData<W>,
}

/// A queue that reports how many completions each reap returned.
struct ReportingQueue<W: Width> {
    inner: UringQueue<W>,
    reaps: Sender<usize>,
}

impl<W: Width> PipeBackend<W> {
    fn queue(&self, local: bool, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        let mut inner = if local {
            UringQueue::<W>::open_local(file, rings, depth, Linux)?
        } else {
            UringQueue::<W>::open(file, rings, depth, Linux)?
        };
        self.wakers.send(inner.waker()?).unwrap();
        Ok(Box::new(ReportingQueue { inner, reaps: self.reaps.clone() }))
    }
}

impl<W: Width> IoBackend for PipeBackend<W> {
    fn engine(&self) -> &'static str {
        "pipe"
    }

    fn name(&self) -> &'static str {
        "a pipe"
    }

    fn geometry(&self) -> &Geometry {
        self.file.geometry()
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.queue(false, depth)
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.queue(!self.shared, depth)
    }
}

impl<W: Width> IoQueue for ReportingQueue<W> {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        self.inner.submit(ops);
    }

    fn start(&mut self) {
        self.inner.start();
    }

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        let before = done.len();
        self.inner.reap(min, deadline, done);
        let _ = self.reaps.send(done.len() - before);
    }
}

/// Reads two blocks from a pipe, and wakes the queue while nothing is in it.
fn wake_reads<W: Width>(shared: bool, idle: Option<Duration>) {
    let kept = temp_file(1 << 20).unwrap();
    let file = Arc::new(DeviceFile::open(kept.path(), Direct::Off).unwrap());
    let (reader, mut writer) = io::pipe().unwrap();
    let rings = Arc::new(RingDevice::new(reader, "a pipe", idle).unwrap());
    let (send_waker, wakers) = mpsc::channel();
    let (send_reap, reaps) = mpsc::channel();
    let backend = PipeBackend::<W> {
        file,
        rings,
        shared,
        wakers: send_waker,
        reaps: send_reap,
        width: PhantomData,
    };
    let dispatcher = Arc::new(Dispatcher::new(Arc::new(backend)).unwrap());
    let reading = thread::spawn({
        let dispatcher = Arc::clone(&dispatcher);
        move || {
            let mut blocks = [[0; BLOCK]; 2];
            let [first, second] = &mut blocks;
            // Not adjacent, so that each is an op.
            let mut reads = [ReadAt::new(0, first), ReadAt::new(65536, second)];
            dispatcher.read_buffers(&mut reads).all().unwrap();
            blocks
        }
    });
    let next = |reaps: &Receiver<usize>| reaps.recv_timeout(PATIENCE).unwrap();
    let waker = wakers.recv_timeout(PATIENCE).unwrap();
    for _ in 0..5 {
        // The first one may come before the wait.
        waker.wake_by_ref();
        assert_eq!(next(&reaps), 0, "a reap returns for each wake, with nothing");
    }
    writer.write_all(&[7; BLOCK]).unwrap();
    writer.write_all(&[7; BLOCK]).unwrap();
    assert_eq!(reading.join().unwrap(), [[7; BLOCK]; 2]);
    let mut reaped = 0;
    while reaped < 2 {
        let count = next(&reaps);
        assert!(count > 0, "a reap returned early without a wake");
        reaped += count;
    }
    let stats = dispatcher.stats();
    assert_eq!(stats.commands, 2, "the statistics count entries that poll for wakes");
}

#[test]
fn a_wake_ends_a_wait_for_any_ring() {
    for shared in [false, true] {
        wake_reads::<Standard>(shared, None);
        wake_reads::<Big>(shared, None);
    }
}

#[test]
fn a_wake_ends_a_wait_for_a_ring_with_a_polling_thread() {
    for idle in [Duration::from_millis(1), Duration::from_secs(10)] {
        wake_reads::<Standard>(true, Some(idle));
    }
}
