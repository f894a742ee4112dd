//! A backend with scripted results on `/dev/null`, which accepts passthrough commands and does
//! nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raw_block_core::backend::{FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::conformance::Skipped;
use raw_block_core::{Dispatcher, Error, Geometry};
use raw_block_uring::ring::{Enter, Kernel, RingDevice};

use super::identifying::{controller, namespace};
use crate::device::NvmeDevice;
use crate::identify::Namespace;
use crate::polling;
use crate::queue::NvmeQueue;

#[derive(Debug, Default)]
struct Script {
    /// The results of completions, in order; after the last one, those of the kernel.
    results: VecDeque<i32>,
    /// If set, all system calls after this many fail.
    passing: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Kernel for Scripted {
    const PAUSE: Duration = Duration::from_millis(1);

    fn enter(
        &mut self,
        enter: Enter,
        call: impl FnOnce(Enter) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if let Some(passing) = &mut self.0.lock().unwrap().passing {
            *passing = passing.checked_sub(1).ok_or(io::Error::from_raw_os_error(libc::EBADF))?;
        }
        call(enter)
    }

    fn free_entries(&mut self, free: usize) -> usize {
        free
    }

    fn result(&mut self, result: i32) -> i32 {
        self.0.lock().unwrap().results.pop_front().unwrap_or(result)
    }
}

struct Backend {
    device: Arc<NvmeDevice>,
    rings: Arc<RingDevice>,
    kernel: Scripted,
}

impl Backend {
    fn parts(&self) -> (Arc<NvmeDevice>, Arc<RingDevice>, Scripted) {
        (Arc::clone(&self.device), Arc::clone(&self.rings), self.kernel.clone())
    }
}

impl IoBackend for Backend {
    fn engine(&self) -> &'static str {
        "nvme"
    }

    fn name(&self) -> &'static str {
        "/dev/null"
    }

    fn geometry(&self) -> &Geometry {
        &self.device.geometry
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (device, rings, kernel) = self.parts();
        Ok(Box::new(NvmeQueue::open(device, rings, depth, kernel)?))
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (device, rings, kernel) = self.parts();
        Ok(Box::new(NvmeQueue::open_local(device, rings, depth, kernel)?))
    }
}

/// A dispatcher over such a backend, and the script.
pub(super) struct Stage {
    backend: Arc<Backend>,
    pub(super) dispatcher: Dispatcher,
}

impl Stage {
    /// `None` where this kernel has no io_uring for passthrough.
    pub(super) fn new() -> Option<Self> {
        Self::with(Ok)
    }

    /// The same, with queues that poll for completions.
    pub(super) fn polling() -> Option<Self> {
        Self::with(RingDevice::polling_completions)
    }

    fn with(rings: impl FnOnce(RingDevice) -> Result<RingDevice, Error>) -> Option<Self> {
        match Self::open(rings) {
            Ok(stage) => Some(stage),
            Err(error) => {
                Skipped::because(error.to_string()).report();
                None
            }
        }
    }

    fn open(set_up: impl FnOnce(RingDevice) -> Result<RingDevice, Error>) -> Result<Self, Error> {
        raw_block_uring::probe()?;
        let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
        let namespace = Namespace::parse(1, &namespace(9, &[])).unwrap();
        let device = NvmeDevice::without_device(null(), controller(0), namespace)?;
        let rings = set_up(RingDevice::new(null(), "/dev/null", None)?)?;
        let kernel = Scripted::default();
        let backend = Backend { device: Arc::new(device), rings: Arc::new(rings), kernel };
        let backend = Arc::new(backend);
        let dispatcher = Dispatcher::new(Arc::<Backend>::clone(&backend))?;
        Ok(Self { backend, dispatcher })
    }

    /// Checks whether the kernel polls for passthrough commands.
    pub(super) fn check_polling(&self) -> Result<(), Error> {
        polling::check_kernel(&self.backend.rings, &self.backend.device.translator)
    }

    pub(super) fn local_queue(&self) -> Box<dyn IoQueue> {
        self.backend.open_local_queue(4).unwrap()
    }

    /// Sets the results of the completions from now on.
    pub(super) fn script(&self, results: &[i32]) {
        self.backend.kernel.0.lock().unwrap().results = results.iter().copied().collect();
    }

    /// The results of the script that no completion has used.
    pub(super) fn left(&self) -> Vec<i32> {
        self.backend.kernel.0.lock().unwrap().results.iter().copied().collect()
    }

    /// Makes all system calls after the next `passing` ones fail, which breaks the rings.
    pub(super) fn break_after(&self, passing: u32) {
        self.backend.kernel.0.lock().unwrap().passing = Some(passing);
    }
}
