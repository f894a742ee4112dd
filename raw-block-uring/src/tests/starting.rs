//! The system calls of a ticket, and tickets whose ring breaks.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use raw_block_core::{
    AlignedBuf, Dispatcher, DispatcherOptions, ErrorKind, Finished, OwnedTransfer, Ticket,
};
use raw_block_fixtures::TempFile;

use super::scripted::{OnEnter, Script, Scripted, backend};
use crate::ring::Standard;

const BLOCK: usize = 4096;
const DEPTH: usize = 4;
/// The timeout for a device.
const SOON: Duration = Duration::from_secs(60);

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

/// Polls a ticket until it has completed, and calls `each` after each poll.
fn try_to_the_end(mut ticket: Ticket, mut each: impl FnMut()) -> Vec<Finished> {
    let deadline = Instant::now() + SOON;
    loop {
        let tried = ticket.try_wait();
        each();
        if let Some(all) = tried {
            return all;
        }
        assert!(Instant::now() < deadline, "the ticket does not complete");
        thread::yield_now();
    }
}

#[test]
fn a_ticket_that_fits_its_ring_is_started_by_one_system_call() {
    let (dispatcher, script, _file) = stage();
    let ticket = start(&dispatcher, DEPTH);
    assert_eq!(script.lock().unwrap().calls, 1);
    assert_eq!(script.lock().unwrap().taken, DEPTH);
    assert!(ticket.wait().into_iter().all(|finished| finished.result.is_ok()));
    assert_eq!(dispatcher.stats().submissions, 1);
}

#[test]
fn a_poll_is_one_system_call_and_one_more_for_a_refill() {
    let (dispatcher, script, _file) = stage();
    let mut before = (0, 0);
    let mut check = || {
        let now = (script.lock().unwrap().calls as u64, dispatcher.stats().retries);
        assert!(now.0 - before.0 <= 2 + now.1 - before.1, "{before:?}, then {now:?}");
        before = now;
    };
    let ticket = start(&dispatcher, 100);
    check();
    let all = try_to_the_end(ticket, check);
    assert!(all.into_iter().all(|finished| finished.result.is_ok()));
    assert!(script.lock().unwrap().taken >= 100);
}

#[test]
fn a_ticket_whose_ring_breaks_completes() {
    for calls in 0..12 {
        let (dispatcher, script, _file) = stage();
        script.lock().unwrap().enters = [OnEnter::Pass].repeat(calls).into();
        script.lock().unwrap().enters.push_back(OnEnter::Fail(libc::EBADF));
        let all = try_to_the_end(start(&dispatcher, 40), || {});
        assert_eq!(all.len(), 40);
        let done = all.iter().filter(|finished| finished.result.is_ok()).count();
        assert_eq!(done, script.lock().unwrap().taken, "exactly the entries that the kernel took");
        let failed = all.iter().filter_map(|finished| finished.result.as_ref().err());
        assert!(failed.into_iter().all(|error| error.kind() == ErrorKind::Io), "{calls}");
        drop(all);
        // A fast device may need fewer system calls.
        script.lock().unwrap().enters.clear();
        let all = try_to_the_end(start(&dispatcher, 40), || {});
        assert!(all.into_iter().all(|finished| finished.result.is_ok()), "with a new ring");
    }
}
