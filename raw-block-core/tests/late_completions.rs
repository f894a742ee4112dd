//! A slow device: no call returns before its ops have completed, and calls that must not wait do
//! not.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fakes::{
    Gate, Gated, blocks, device, kinds, owned, until_no_ticket_is_in_flight, within_seconds, writes,
};
use raw_block_core::Dispatcher;

fn gated() -> (Dispatcher, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let shared = Arc::clone(&gate);
    (device(move |_| Ok(Box::new(Gated::new(&shared)))), gate)
}

/// Opens the gate in a while, and asserts that `run` has not returned before.
fn ends_only_when_open(gate: &Gate, run: impl FnOnce()) {
    let opening = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            opening.store(true, Ordering::SeqCst);
            gate.open();
        });
        run();
        assert!(opening.load(Ordering::SeqCst), "it returned while its ops were in flight");
    });
}

#[test]
fn a_blocking_call_waits() {
    within_seconds(|| {
        let (device, gate) = gated();
        ends_only_when_open(&gate, || {
            device.write_buffers(&writes(&blocks(40))).all().unwrap();
        });
    });
}

#[test]
fn waiting_for_a_ticket_waits_and_dropping_it_does_not() {
    within_seconds(|| {
        let (device, gate) = gated();
        let ticket = device.batched_write(owned(&blocks(40))).unwrap();
        ends_only_when_open(&gate, || {
            assert!(ticket.wait().iter().all(|finished| finished.result.is_ok()));
        });

        let (device, gate) = gated();
        let ticket = device.batched_write(owned(&blocks(40))).unwrap();
        drop(ticket);
        assert_eq!(device.stats().tickets_in_flight, 1);
        gate.open();
        until_no_ticket_is_in_flight(&device);
    });
}

#[test]
fn trying_does_not_wait_and_a_deadline_is_kept() {
    within_seconds(|| {
        for count in [3, 40] {
            let (device, gate) = gated();
            let mut ticket = device.batched_write(owned(&blocks(count))).unwrap();
            for _ in 0..3 {
                assert!(ticket.try_wait().is_none());
                let deadline = Instant::now() + Duration::from_millis(5);
                assert!(ticket.wait_deadline(deadline).is_none());
                assert!(Instant::now() >= deadline, "it gave up before the deadline");
                assert!(ticket.wait_deadline(Instant::now()).is_none());
            }
            gate.open();
            let far = Instant::now() + Duration::from_secs(3600);
            let all = ticket.wait_deadline(far).expect("nothing holds it back any more");
            let results: Vec<_> = all.into_iter().map(|finished| finished.result).collect();
            assert_eq!(kinds(&results), vec![None; usize::from(count)]);
        }
    });
}

#[test]
fn a_flush_waits_while_a_ticket_is_in_flight() {
    within_seconds(|| {
        let (device, gate) = gated();
        let ticket = device.batched_write(owned(&blocks(3))).unwrap();
        ends_only_when_open(&gate, || device.flush().unwrap());
        assert!(ticket.wait().iter().all(|finished| finished.result.is_ok()));
    });
}
