//! Wakers: a wake ends a wait early, and changes nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::conformance::Subject;
use crate::conformance::bytes::{assert_same, pattern};
use crate::conformance::driver::{Driver, Memory};
use crate::conformance::queue::waking::rest;

/// Ops in flight at once.
const OPS: usize = 8;

/// Submits reads of one block each.
fn submit_reads(subject: &Subject, driver: &mut Driver) {
    for number in 0..OPS {
        driver.read(subject.at(number), subject.block());
    }
    assert_eq!(driver.submit(), OPS);
}

pub(crate) fn a_wake_shortens_one_reap_at_most(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    for round in 0..50 {
        // From the second wake on, those before a reap change nothing.
        (0..=round % 3).for_each(|_| waker.wake_by_ref());
        submit_reads(subject, &mut driver);
        let first = driver.reap_woken(OPS);
        if first < OPS {
            assert_eq!(driver.reap(OPS - first, None), OPS - first, "no wake came since");
        } else {
            // It did not have to wait, so the next reap that would wait may return at once.
            submit_reads(subject, &mut driver);
            let first = driver.reap_woken(OPS);
            assert_eq!(first + driver.reap_woken(OPS - first), OPS, "two reaps, and one wake");
        }
        assert!(driver.is_idle());
    }
}

pub(crate) fn a_wake_with_nothing_in_flight_loses_nothing(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    for _ in 0..10 {
        waker.wake_by_ref();
        assert_eq!(driver.reap(OPS, None), 0);
        submit_reads(subject, &mut driver);
        while driver.queue.in_flight() > 0 {
            driver.reap_woken(1);
        }
    }
}

pub(crate) fn a_queue_that_is_woken_each_time_reaches_its_end(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    for _ in 0..20 {
        submit_reads(subject, &mut driver);
        while driver.queue.in_flight() > 0 {
            waker.wake_by_ref();
            driver.reap_woken(OPS);
        }
    }
}

pub(crate) fn wakes_of_other_threads_lose_no_completion(subject: &Subject) {
    const ROUNDS: usize = 100;
    let mut driver = Driver::open(subject, OPS);
    let wakers = [driver.queue.waker().unwrap(), driver.queue.waker().unwrap().clone()];
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for waker in &wakers {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    waker.wake_by_ref();
                    thread::yield_now();
                }
            });
        }
        let mut reaped = 0;
        for round in 0..ROUNDS {
            submit_reads(subject, &mut driver);
            while driver.queue.in_flight() > 0 {
                reaped += driver.reap_woken([1, OPS][round % 2]);
            }
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(reaped, ROUNDS * OPS);
    });
}

pub(crate) fn a_woken_queue_completes_its_ops_when_it_is_dropped(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    let bytes = pattern(70, OPS * subject.block());
    for (number, part) in bytes.chunks(subject.block()).enumerate() {
        driver.write(subject.at(number), part);
    }
    driver.submit();
    waker.wake_by_ref();
    assert!(driver.drop_queue().iter().all(Memory::is_released), "memory is still in use");
    let found = Driver::open(subject, OPS).read_now(0, bytes.len());
    assert_same(&found, &bytes, "written by a queue that was dropped");
}

pub(crate) fn a_waker_outlives_its_queue(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    driver.drop_queue();
    let mut other = Driver::open(subject, OPS);
    other.queue.waker().unwrap();
    waker.wake();
    submit_reads(subject, &mut other);
    assert_eq!(other.reap(OPS, None), OPS, "the wake was meant for another queue");
}

pub(crate) fn an_idle_queue_that_is_woken_uses_no_cpu(subject: &Subject) {
    let mut driver = Driver::open(subject, OPS);
    let waker = driver.queue.waker().unwrap();
    submit_reads(subject, &mut driver);
    while driver.queue.in_flight() > 0 {
        waker.wake_by_ref();
        driver.reap_woken(OPS);
    }
    waker.wake_by_ref();
    rest("after it was woken");
}
