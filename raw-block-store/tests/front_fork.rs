//! A forked child has none of the threads of the asynchronous front that it inherited: calls fail,
//! and it can drop what it inherited. Alone in its file, as `fork.rs`.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use common::child::{in_a_child, is_forked};
use common::{small, store_on, without_thread};
use raw_block_core::backend::OpKind;
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{Error as DeviceError, Geometry};
use raw_block_store::{
    AsyncOptions, AsyncStats, AsyncStore, CompletionQueue, Finished, OwnedGet, OwnedPut, Pending,
    Store,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn put(key: &[u8]) -> OwnedPut {
    OwnedPut::new(key, vec![1; 1000])
}

/// What a child inherits.
struct Inherited {
    store: AsyncStore,
    queue: CompletionQueue,
    runs: Pending<Vec<Finished<OwnedPut, ()>>>,
    waits: Pending<Vec<Finished<OwnedPut, ()>>>,
}

impl Inherited {
    /// Whether all calls are refused, and nothing blocks.
    fn refuses_all(mut self) -> bool {
        let Self { store, queue, runs, .. } = &mut self;
        let is_pending = {
            let mut context = Context::from_waker(Waker::noop());
            pin!(runs).poll(&mut context).is_pending()
        };
        let refused = is_pending
            && is_forked(block_on(store.put_many([put(b"key")])).remove(0).result)
            && is_forked(
                block_on(store.get_many([OwnedGet::new(b"key", vec![])])).remove(0).result,
            )
            && is_forked(block_on(store.contains_many([b"key".to_vec()])).remove(0).result)
            && is_forked(block_on(store.delete_many([b"key".to_vec()])).remove(0).result)
            && is_forked(block_on(store.flush()))
            && is_forked(queue.submit_put([put(b"key")]).map_err(|refused| refused.error))
            && is_forked(queue.submit_flush())
            && is_forked(queue.drain(&mut Vec::new()))
            && is_forked(store.completions(1))
            && is_forked(store.close(Duration::from_secs(100)))
            && store.stats() == AsyncStats::default();
        drop(self);
        refused
    }
}

#[test]
fn a_forked_child_gets_errors_and_can_drop_a_front() -> Result<(), DeviceError> {
    let device = SimulatedDevice::new(Geometry::new(4 << 20, 512)?, 1)?;
    let backend = device.backend();
    drop(store_on(&backend, &small()));
    let store = Store::open_with(backend, &without_thread()).unwrap();
    let options = AsyncOptions::new().store_threads(1).slow_after(Duration::from_secs(1000));
    let store = AsyncStore::start(store, &options).unwrap();
    let queue = store.completions(10).unwrap();
    queue.submit_put([put(b"first")]).unwrap();
    let mut completions = Vec::new();
    while completions.is_empty() {
        queue.drain(&mut completions).unwrap();
    }
    device.inject(DeviceFault::hold(OpKind::Write));
    let runs = store.put_many([put(b"runs")]);
    while store.stats().running == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let waits = store.put_many([put(b"waits")]);
    // The workers sleep, or wait for the device.
    thread::sleep(Duration::from_millis(20));
    let mut inherited = AssertUnwindSafe(Some(Inherited { store, queue, runs, waits }));
    {
        let inherited = AssertUnwindSafe(&mut inherited);
        in_a_child(move || {
            let AssertUnwindSafe(inherited) = { inherited };
            inherited.take().unwrap().refuses_all()
        });
    }
    // The parent goes on.
    let AssertUnwindSafe(inherited) = inherited;
    let Inherited { store, queue, runs, waits } = inherited.unwrap();
    device.clear_faults();
    assert!(block_on(runs)[0].result.is_ok() && block_on(waits)[0].result.is_ok());
    drop(queue);
    assert!(store.close(Duration::from_secs(100)).unwrap().is_closed);
    assert_eq!(store.store().stats().objects, 3);
    Ok(())
}
