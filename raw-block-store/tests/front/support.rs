//! What the tests of the front share.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::Duration;

use raw_block_core::backend::{IoBackend, OpKind};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Geometry, sync};
use raw_block_store::{
    AlignedBuf, AsyncOptions, AsyncStore, Error, Finished, GetInfo, OwnedGet, OwnedPut, Store,
};

use crate::common::{small, without_thread};

/// Options with which a device is never slow, however busy the machine is.
pub(crate) fn options() -> AsyncOptions {
    AsyncOptions::new().slow_after(Duration::from_secs(1000))
}

/// Memory with these bytes.
pub(crate) fn memory(bytes: &[u8]) -> AlignedBuf {
    let mut memory = AlignedBuf::zeroed(bytes.len()).unwrap();
    memory.copy_from_slice(bytes);
    memory
}

pub(crate) fn put(key: &[u8], payload: &[u8]) -> OwnedPut {
    OwnedPut::new(key, memory(payload))
}

pub(crate) fn get(key: &[u8]) -> OwnedGet {
    OwnedGet::new(key, AlignedBuf::zeroed(8192).unwrap())
}

/// The payload that a get of one key found.
pub(crate) fn found(gets: &[Finished<OwnedGet, Option<GetInfo>>]) -> Option<Vec<u8>> {
    assert!(gets[0].result.is_ok(), "{:?}", gets[0].result);
    gets[0].payload().map(<[u8]>::to_vec)
}

/// The error of the first item.
pub(crate) fn error<R, T: std::fmt::Debug>(finished: &[Finished<R, T>]) -> &Error {
    finished[0].result.as_ref().unwrap_err()
}

/// A store on a simulated device, which a test can stop.
pub(crate) struct Stoppable {
    pub(crate) device: SimulatedDevice,
    /// The one that the store is open on.
    pub(crate) backend: Arc<dyn IoBackend>,
    pub(crate) store: AsyncStore,
}

impl Stoppable {
    pub(crate) fn new(options: &AsyncOptions) -> Self {
        let device = SimulatedDevice::new(Geometry::new(4 << 20, 512).unwrap(), 7).unwrap();
        let backend = device.backend();
        Store::format(backend.clone(), &small()).unwrap();
        let store = start(backend.clone(), options);
        Self { device, backend, store }
    }

    /// From now on ops of these kinds do not complete.
    pub(crate) fn stop(&self, kinds: &[OpKind]) {
        kinds.iter().for_each(|&kind| self.device.inject(DeviceFault::hold(kind)));
    }

    /// All ops complete.
    pub(crate) fn go_on(&self) {
        self.device.clear_faults();
    }

    /// Waits until that many requests run.
    pub(crate) fn wait_for_running(&self, count: usize) {
        until(|| self.store.stats().running == count);
    }
}

pub(crate) fn start(device: Arc<dyn IoBackend>, options: &AsyncOptions) -> AsyncStore {
    AsyncStore::start(Store::open_with(device, &without_thread()).unwrap(), options).unwrap()
}

/// Waits until this is true.
pub(crate) fn until(mut is_true: impl FnMut() -> bool) {
    while !is_true() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a future in this thread: the smallest executor.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let signal = Arc::new(Signal::default());
    let waker = Arc::clone(&signal).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        signal.wait();
    }
}

/// Wakes a thread, also one that the scheduler of a simulation runs.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut woken = sync::lock(&self.woken);
        while !*woken {
            woken = sync::wait(&self.changed, &self.woken, woken);
        }
        *woken = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *sync::lock(&self.woken) = true;
        self.changed.notify_one();
    }
}
