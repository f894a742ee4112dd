//! Starting: what was accepted begins, and no completion is taken.

use crate::conformance::Subject;
use crate::conformance::driver::{Driver, Memory};
use crate::conformance::queue::waking::{SOON, is_readable};

pub(crate) fn starting_takes_no_completions(subject: &Subject) {
    let mut driver = Driver::open(subject, 16);
    driver.start();
    for number in 0..8 {
        driver.read(subject.at(number), subject.block());
        driver.submit();
        driver.start();
        assert_eq!(driver.queue.in_flight(), number + 1);
    }
    driver.start();
    assert_eq!(driver.reap(8, None), 8);
    driver.start();
    assert_eq!(driver.queue.in_flight(), 0);
}

pub(crate) fn a_queue_that_is_topped_up_reaches_its_end(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    for number in 0..200 {
        driver.read(subject.at(number), subject.block());
    }
    while !driver.is_idle() {
        driver.submit();
        driver.start();
        driver.reap(1, None);
    }
}

pub(crate) fn what_was_started_wakes_its_user(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    if driver.queue.event_fd().is_none() {
        return;
    }
    for number in 0..200 {
        driver.read(subject.at(number), subject.block());
    }
    while !driver.is_idle() {
        driver.submit();
        driver.start();
        let readable = is_readable(driver.queue.event_fd().unwrap(), SOON);
        assert!(readable, "{} ops were started, and no signal", driver.queue.in_flight());
        driver.reap(0, None);
    }
}

pub(crate) fn dropping_a_queue_completes_what_was_started(subject: &Subject) {
    let mut driver = Driver::open(subject, 16);
    for number in 0..8 {
        driver.read(subject.at(number), subject.block());
    }
    driver.submit();
    driver.start();
    assert!(driver.drop_queue().iter().all(Memory::is_released));
}
