//! A backend that panics takes its own batch with it, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::collections::VecDeque;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Instant;

use fakes::{Behaviour, Honest, blocks, device, first_queue, kinds, owned, within_seconds, writes};
use raw_block_core::backend::{Completion, IoQueue, Op};
use raw_block_core::{Dispatcher, ErrorKind};

/// Panics when it is asked for completions.
#[derive(Clone, Copy)]
struct PanickingInReap {
    /// So often it says first that there are none.
    calm: usize,
    /// So often it panics then.
    panics: usize,
}

impl Behaviour for PanickingInReap {
    fn reap(
        &mut self,
        honest: &mut dyn IoQueue,
        min: usize,
        deadline: Option<Instant>,
        done: &mut Vec<Completion>,
    ) {
        if self.calm > 0 {
            self.calm -= 1;
        } else if self.panics > 0 {
            self.panics -= 1;
            panic!("as scripted");
        } else {
            honest.reap(min, deadline, done);
        }
    }
}

struct PanickingInSubmit;

impl Behaviour for PanickingInSubmit {
    fn submit(&mut self, _: &mut dyn IoQueue, ops: &mut VecDeque<Op>) {
        ops.pop_front();
        panic!("as scripted");
    }
}

fn panics(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// Asserts that every queue can still be had, and works.
fn assert_works(device: &Dispatcher) {
    let blocks = blocks(5);
    let tickets = [(); 3].map(|()| device.batched_write(owned(&blocks)).unwrap());
    device.write_buffers(&writes(&blocks)).all().unwrap();
    for ticket in tickets {
        let results: Vec<_> = ticket.wait().into_iter().map(|finished| finished.result).collect();
        assert_eq!(kinds(&results), [None; 5]);
    }
    assert_eq!(device.stats().tickets_in_flight, 0, "a ticket that is gone is still counted");
}

#[test]
fn a_panic_in_a_blocking_call_costs_that_call() {
    within_seconds(|| {
        for panics_left in [1, usize::MAX] {
            let device = first_queue(move || PanickingInReap { calm: 0, panics: panics_left });
            assert!(panics(|| drop(device.write_buffers(&writes(&blocks(5))))));
            assert_works(&device);
        }
        let device = first_queue(|| PanickingInSubmit);
        assert!(panics(|| drop(device.write_buffers(&writes(&blocks(5))))));
        assert_works(&device);
    });
}

/// Asserts that a ticket gets an error for each of its transfers, and its buffers.
fn assert_ticket_fails(device: &Dispatcher) {
    let all = device.batched_write(owned(&blocks(5))).unwrap().wait();
    assert!(all.iter().map(|finished| &finished.buffer[..]).eq(&blocks(5)));
    let errors = kinds(all.iter().map(|finished| &finished.result));
    assert_eq!(errors, [Some(ErrorKind::Io); 5]);
}

#[test]
fn a_panic_while_a_ticket_is_in_flight_fails_that_ticket() {
    within_seconds(|| {
        for (calm, panics) in [(0, 1), (0, usize::MAX), (1, 1)] {
            let device = first_queue(move || PanickingInReap { calm, panics });
            assert_ticket_fails(&device);
            assert_works(&device);
        }
        let device = first_queue(|| PanickingInSubmit);
        assert_ticket_fails(&device);
        assert_works(&device);
    });
}

#[test]
fn a_panic_while_a_queue_is_opened_costs_that_call() {
    within_seconds(|| {
        // More panics than queues that may be open at once.
        let device = device(|number| {
            assert!(number >= 10, "as scripted");
            Ok(Box::new(Honest))
        });
        for _ in 0..5 {
            assert!(panics(|| drop(device.write_buffers(&writes(&blocks(5))))));
            assert_ticket_fails(&device);
        }
        assert_works(&device);
    });
}

/// Is broken from the start, and panics when it is closed.
struct PanickingInDrop;

impl Behaviour for PanickingInDrop {
    fn depth(&self, _: &dyn IoQueue) -> usize {
        0
    }
}

impl Drop for PanickingInDrop {
    fn drop(&mut self) {
        panic!("as scripted");
    }
}

#[test]
fn a_panic_while_a_broken_queue_is_closed_costs_that_call() {
    within_seconds(|| {
        let device = device(|number| {
            Ok(if number < 10 { Box::new(PanickingInDrop) } else { Box::new(Honest) })
        });
        for _ in 0..5 {
            assert!(panics(|| drop(device.write_buffers(&writes(&blocks(5))))));
            assert_ticket_fails(&device);
        }
        assert_works(&device);
    });
}

#[test]
fn a_queue_that_goes_on_panicking_does_not_abort_the_process() {
    const CHILD: &str = "RAW_BLOCK_TEST_CHILD";
    if env::var_os(CHILD).is_some() {
        let device = first_queue(|| PanickingInReap { calm: 1, panics: usize::MAX });
        assert!(panics(|| drop(device.write_buffers(&writes(&blocks(5))))));
        return assert_works(&device);
    }
    // In its own process, because a panic while another one unwinds ends the process.
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_queue_that_goes_on_panicking_does_not_abort_the_process"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{}: {said}", child.status);
}

#[test]
fn a_panic_in_a_flush_stops_writes() {
    within_seconds(|| {
        let device = first_queue(|| PanickingInReap { calm: 0, panics: usize::MAX });
        assert!(panics(|| drop(device.flush())));
        let stopped = Some(ErrorKind::WritesStopped);
        assert_eq!(kinds(&*device.write_buffers(&writes(&blocks(2)))), [stopped; 2]);
        assert_eq!(kinds(&[device.flush()]), [stopped]);
    });
}
