//! No thread waits for another's completions: while one queue stands still, the others go on.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fakes::{
    Gate, Gated, Honest, blocks, device, first_queue, owned, place, within_seconds, writes,
};
use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer, ReadAt, WriteAt};

/// How long the others may take for what takes them milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// With the stalled one, as many threads as there are queues.
const OTHERS: u8 = 3;
const ROUNDS: u8 = 20;
/// More blocks than the queue accepts, so that some wait in the dispatcher.
const STALLED: u8 = 40;

/// A device whose first queue completes nothing before the gate is open.
fn with_a_stalled_queue() -> (Dispatcher, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let shared = Arc::clone(&gate);
    (first_queue(move || Gated::new(&shared)), gate)
}

/// The operations of a thread on the device, at its own places after those of the stalled batch.
/// With `tickets`, which share a queue, it reads by tickets too.
fn use_device(device: &Dispatcher, thread: u8, tickets: bool) {
    let place = |block: u8| place(u64::from(STALLED + 4 * thread + block));
    for round in 1..=ROUNDS {
        let bytes = [round + thread * ROUNDS; 512];
        let batch: Vec<_> = (0..4).map(|block| WriteAt::new(place(block), &bytes)).collect();
        device.write_buffers(&batch).all().unwrap();
        device.flush().unwrap();
        let mut found = [[0; 512]; 4];
        let mut batch: Vec<_> =
            (0..).zip(&mut found).map(|(block, found)| ReadAt::new(place(block), found)).collect();
        device.read_buffers(&mut batch).all().unwrap();
        assert_eq!(found, [bytes; 4]);
        device.discard(place(0), 512).unwrap();
        device.write_zeroes(place(1), 512).unwrap();
        if tickets {
            let read = OwnedTransfer::new(place(2), AlignedBuf::zeroed(512).unwrap());
            let read = device.batched_read(vec![read]).unwrap().wait();
            assert_eq!(read[0].buffer[..], bytes);
        }
        assert!(device.stats().submissions > 0);
    }
}

/// Asserts that other threads carry out their batches while `is_stalled`; then opens the gate.
fn others_go_on(
    device: &Dispatcher,
    gate: &Gate,
    tickets: bool,
    is_stalled: impl FnOnce() -> bool,
) {
    let (over, is_over) = mpsc::channel();
    thread::scope(|scope| {
        for thread in 0..OTHERS {
            let over = over.clone();
            scope.spawn(move || {
                use_device(device, thread, tickets);
                over.send(()).unwrap();
            });
        }
        drop(over);
        let deadline = Instant::now() + PATIENCE;
        let went_on = (0..OTHERS).all(|_| {
            is_over.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
        });
        let stalled = is_stalled();
        // Before any assertion: otherwise the waiting threads would never end, and neither would
        // this one.
        gate.open();
        assert!(went_on, "other threads wait for the stalled queue");
        assert!(stalled, "nothing was stalled");
    });
}

/// As [`others_go_on`], while a thread is inside `stalled`.
fn others_continue_in_parallel(
    device: &Dispatcher,
    gate: &Gate,
    tickets: bool,
    stalled: impl FnOnce() + Send,
) {
    thread::scope(|scope| {
        let stalled = scope.spawn(stalled);
        gate.until_someone_waits();
        others_go_on(device, gate, tickets, || !stalled.is_finished());
    });
}

fn assert_written(device: &Dispatcher, blocks: &[[u8; 512]]) {
    let mut found = vec![[0; 512]; blocks.len()];
    let mut batch: Vec<_> =
        (0..).zip(&mut found).map(|(number, found)| ReadAt::new(place(number), found)).collect();
    device.read_buffers(&mut batch).all().unwrap();
    assert_eq!(found, blocks);
}

#[test]
fn a_stalled_queue_holds_up_no_other_thread() {
    within_seconds(|| {
        let (device, gate) = with_a_stalled_queue();
        let blocks = blocks(STALLED);
        others_continue_in_parallel(&device, &gate, true, || {
            device.write_buffers(&writes(&blocks)).all().unwrap();
        });
        assert_written(&device, &blocks);
    });
}

#[test]
fn waiting_for_a_ticket_of_a_stalled_queue_delays_no_other() {
    within_seconds(|| {
        let (device, gate) = with_a_stalled_queue();
        let blocks = blocks(STALLED);
        let ticket = device.batched_write(owned(&blocks)).unwrap();
        gate.until_someone_waits();
        others_continue_in_parallel(&device, &gate, false, || {
            let all = ticket.wait();
            assert_eq!(all.len(), blocks.len());
            assert!(all.iter().all(|finished| finished.result.is_ok()));
        });
        assert_written(&device, &blocks);
        assert_eq!(device.stats().tickets_in_flight, 0);
    });
}

#[test]
fn a_ticket_that_is_out_on_a_stalled_queue_holds_up_no_thread() {
    within_seconds(|| {
        let (device, gate) = with_a_stalled_queue();
        let blocks = blocks(STALLED);
        let mut ticket = device.batched_write(owned(&blocks)).unwrap();
        gate.until_someone_waits();
        others_go_on(&device, &gate, false, || ticket.try_wait().is_none());
        let all = ticket.wait();
        assert_eq!(all.len(), blocks.len());
        assert!(all.iter().all(|finished| finished.result.is_ok()));
        assert_written(&device, &blocks);
    });
}

#[test]
fn a_queue_that_takes_long_to_open_holds_up_no_other_thread() {
    within_seconds(|| {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let device = device(move |number| {
            if number == 0 {
                shared.wait(None);
            }
            Ok(Box::new(Honest))
        });
        let blocks = blocks(STALLED);
        others_continue_in_parallel(&device, &gate, true, || {
            device.write_buffers(&writes(&blocks)).all().unwrap();
        });
        assert_written(&device, &blocks);
    });
}
