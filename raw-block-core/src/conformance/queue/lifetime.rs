//! Queues that are dropped, moved between threads, or live longer than their backend.

use std::collections::VecDeque;
use std::thread;

use crate::backend::OpKind;
use crate::conformance::Subject;
use crate::conformance::bytes::{assert_same, pattern};
use crate::conformance::driver::{Driver, Memory, bare_op};

/// Enough for a device to be busy with.
const WRITES: usize = 32;

/// A queue that accepted writes of four blocks each, and what they write.
fn with_writes(subject: &Subject) -> (Driver, Vec<u8>) {
    accepting_writes(subject, Driver::open(subject, WRITES))
}

fn accepting_writes(subject: &Subject, mut driver: Driver) -> (Driver, Vec<u8>) {
    let len = 4 * subject.block();
    let bytes = pattern(50, WRITES.min(driver.queue.depth()) * len);
    for (number, bytes) in bytes.chunks(len).enumerate() {
        driver.write(subject.at(4 * number), bytes);
    }
    driver.submit();
    (driver, bytes)
}

fn drop_and_check(subject: &Subject, driver: Driver, bytes: &[u8]) {
    let memory = driver.drop_queue();
    assert!(memory.iter().all(Memory::is_released), "memory is still in use");
    let found = Driver::open(subject, 4).read_now(0, bytes.len());
    assert_same(&found, bytes, "written by a queue that was dropped");
}

pub(crate) fn dropping_a_queue_completes_what_it_accepted(subject: &Subject) {
    let (driver, bytes) = with_writes(subject);
    drop_and_check(subject, driver, &bytes);
}

pub(crate) fn dropping_a_queue_completes_what_it_started(subject: &Subject) {
    let (mut driver, bytes) = with_writes(subject);
    driver.reap(0, None);
    drop_and_check(subject, driver, &bytes);
}

pub(crate) fn dropping_a_queue_completes_what_it_reaped_in_part(subject: &Subject) {
    let (mut driver, bytes) = with_writes(subject);
    driver.reap(1, None);
    drop_and_check(subject, driver, &bytes);
}

pub(crate) fn dropping_an_idle_queue_is_nothing(subject: &Subject) {
    drop(subject.queue(4));
    let mut driver = Driver::open(subject, 4);
    driver.read_now(0, subject.block());
    assert!(driver.drop_queue().iter().all(Memory::is_released));
}

pub(crate) fn a_queue_can_be_moved_to_another_thread(subject: &Subject) {
    let (mut driver, bytes) = accepting_writes(subject, Driver::open_shared(subject, WRITES));
    thread::scope(|scope| {
        scope.spawn(move || driver.run()).join().unwrap();
    });
    let found = Driver::open(subject, 4).read_now(0, bytes.len());
    assert_same(&found, &bytes, "reaped on another thread");
}

pub(crate) fn ops_survive_the_thread_that_started_them(subject: &Subject) {
    for _ in 0..10 {
        let (mut driver, bytes) = thread::scope(|scope| {
            let started = scope.spawn(|| {
                let driver = Driver::open_shared(subject, WRITES);
                let (mut driver, bytes) = accepting_writes(subject, driver);
                driver.reap(0, None);
                (driver, bytes)
            });
            started.join().unwrap()
        });
        driver.run();
        assert_same(&driver.read_now(0, bytes.len()), &bytes, "started on a thread that ended");
    }
}

pub(crate) fn a_queue_of_one_thread_does_nothing_on_another(subject: &Subject) {
    let mut queue = subject.backend.open_local_queue(4).unwrap();
    let local = queue.is_local();
    let (op, memory) = bare_op(OpKind::Flush, 0, 0, 0);
    let mut waiting = VecDeque::from([op]);
    let mut done = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            queue.submit(&mut waiting);
            queue.reap(1, None, &mut done);
        });
    });
    assert_eq!((waiting.len(), done.len()), if local { (1, 0) } else { (0, 1) });
    queue.submit(&mut waiting);
    queue.reap(1, None, &mut done);
    assert_eq!((waiting.len(), done.len()), (0, 1), "on its own thread it works");
    thread::scope(|scope| scope.spawn(|| drop(queue)).join().unwrap());
    drop(done);
    assert!(memory.is_released());
}

pub(crate) fn queues_work_side_by_side_on_several_threads(subject: &Subject) {
    thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                let mut driver = Driver::open(subject, 8);
                let first = subject.at(100 * worker);
                for round in 0..10 {
                    let bytes = pattern(60 + round + 100 * worker as u64, 20 * subject.block());
                    for (number, part) in bytes.chunks(subject.block()).enumerate() {
                        driver.write(first + subject.at(number), part);
                    }
                    driver.run();
                    assert_same(&driver.read_now(first, bytes.len()), &bytes, "of one thread");
                }
            });
        }
    });
}

pub(crate) fn a_queue_outlives_its_backend(subject: Subject) {
    let (mut driver, bytes) = with_writes(&subject);
    let block = subject.block();
    let Subject { backend, kept, .. } = subject;
    drop(backend);
    driver.run();
    assert_same(&driver.read_now(0, bytes.len()), &bytes, "without its backend");
    driver.write(0, &pattern(51, block));
    driver.run();
    drop(driver);
    drop(kept);
}
