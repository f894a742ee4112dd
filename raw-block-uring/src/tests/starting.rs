//! The system calls of a ticket, and tickets whose ring breaks.

use std::sync::{Arc, Mutex};

use raw_block_core::{AlignedBuf, Dispatcher, DispatcherOptions, ErrorKind, OwnedTransfer, Ticket};
use raw_block_fixtures::TempFile;

use super::scripted::{OnEnter, Script, Scripted, backend};
use crate::ring::Standard;

const BLOCK: usize = 4096;
const DEPTH: usize = 4;

/// A dispatcher with short queues over a backend with a scripted kernel.
fn stage() -> (Dispatcher, Arc<Mutex<Script>>, TempFile) {
    let kernel = Scripted::default();
    let script = Arc::clone(&kernel.0);
    let (backend, file) = backend::<Standard>(1 << 20, kernel, None).unwrap();
    let options = DispatcherOptions::new().queue_depth(DEPTH).max_queues(4);
    (Dispatcher::with_options(backend, options).unwrap(), script, file)
}

fn start(dispatcher: &Dispatcher, count: usize) -> Ticket {
    let transfer = |at| OwnedTransfer::new(at * 8192, AlignedBuf::zeroed(BLOCK).unwrap());
    dispatcher.batched_write((0..count as u64).map(transfer).collect()).unwrap()
}

#[test]
fn a_ticket_that_fits_its_ring_is_submitted_at_once() {
    let (dispatcher, script, _file) = stage();
    for round in 1..=10 {
        let all = start(&dispatcher, DEPTH).wait();
        assert!(all.into_iter().all(|finished| finished.result.is_ok()));
        // The first one arms the ring for wakes, which is one more entry.
        assert_eq!(dispatcher.stats().submissions, round + 1);
    }
    assert!(script.lock().unwrap().taken > 10 * DEPTH);
}

#[test]
fn a_ticket_whose_ring_breaks_completes() {
    for calls in 0..12 {
        let (dispatcher, script, _file) = stage();
        script.lock().unwrap().enters = [OnEnter::Pass].repeat(calls).into();
        script.lock().unwrap().enters.push_back(OnEnter::Fail(libc::EBADF));
        let all = start(&dispatcher, 40).wait();
        assert_eq!(all.len(), 40);
        let done = all.iter().filter(|finished| finished.result.is_ok()).count();
        let taken = script.lock().unwrap().taken;
        // Each of two rings has one further entry, for wakes.
        assert!((done..=done + 2).contains(&taken), "{done} succeeded, the kernel took {taken}");
        let failed = all.iter().filter_map(|finished| finished.result.as_ref().err());
        assert!(failed.into_iter().all(|error| error.kind() == ErrorKind::Io), "{calls}");
        drop(all);
        // A fast device may need fewer system calls.
        script.lock().unwrap().enters.clear();
        let all = start(&dispatcher, 40).wait();
        assert!(all.into_iter().all(|finished| finished.result.is_ok()), "with a new ring");
    }
}
