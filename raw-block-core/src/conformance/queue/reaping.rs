//! Reaping: how many, how long, and never less than what is there.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{Completion, OpKind};
use crate::conformance::Subject;
use crate::conformance::driver::{self, Driver};

/// Patience with an op that was started.
const SOON: Duration = Duration::from_secs(60);

/// A queue that accepted `count` reads.
fn with_reads(subject: &Subject, count: usize) -> Driver {
    let mut driver = Driver::open(subject, 16);
    for number in 0..count {
        driver.read(subject.at(number), subject.block());
    }
    assert_eq!(driver.submit(), count);
    driver
}

pub(crate) fn reaping_returns_at_least_as_many_as_asked_for(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let first = driver.reap(3, None);
    assert!((3..=8).contains(&first), "3 of 8 were asked for, {first} came");
    assert_eq!(first + driver.reap(8 - first, None), 8);
}

pub(crate) fn reaping_one_at_a_time_reaches_the_end(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let mut reaped = 0;
    while driver.queue.in_flight() > 0 {
        let some = driver.reap(1, None);
        assert!(some >= 1);
        reaped += some;
    }
    assert_eq!(reaped, 8);
}

pub(crate) fn reaping_more_than_is_in_flight_ends_with_the_last(subject: &Subject) {
    let mut driver = with_reads(subject, 5);
    assert_eq!(driver.reap(1000, None), 5);
}

pub(crate) fn reaping_with_nothing_in_flight_returns_at_once(subject: &Subject) {
    let mut driver = Driver::open(subject, 4);
    let far = Instant::now() + Duration::from_secs(24 * 3600);
    for min in [0, 1, 100] {
        assert_eq!(driver.reap(min, None), 0);
        assert_eq!(driver.reap(min, Some(far)), 0);
    }
    driver.read_now(0, subject.block());
    assert_eq!(driver.reap(1, None), 0, "nothing is in flight any more");
}

pub(crate) fn reaping_none_starts_what_was_accepted(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let deadline = Instant::now() + SOON;
    let mut reaped = 0;
    while reaped < 8 {
        assert!(Instant::now() < deadline, "{reaped} of 8 ops ended, the others were not started");
        reaped += driver.reap(0, None);
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_deadline_in_the_past_loses_nothing(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let past = Instant::now();
    let first = driver.reap(8, Some(past));
    let second = driver.reap(8, Some(past));
    assert_eq!(first + second + driver.reap(8, None), 8);
}

pub(crate) fn a_deadline_in_the_past_starts_what_was_accepted(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let past = Instant::now();
    let mut reaped = 0;
    while reaped < 8 {
        assert!(past.elapsed() < SOON, "{reaped} of 8 ops ended, the others were not started");
        reaped += driver.reap(8, Some(past));
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_deadline_far_away_does_not_delay_completions(subject: &Subject) {
    let mut driver = with_reads(subject, 8);
    let far = Instant::now() + Duration::from_secs(24 * 3600);
    let first = driver.reap(3, Some(far));
    assert!(first >= 3, "the deadline has not passed, and only {first} of 3 came");
    assert_eq!(first + driver.reap(8, Some(far)), 8);
}

pub(crate) fn reaping_appends_to_what_was_reaped_before(subject: &Subject) {
    let mut queue = subject.queue(4);
    let (mut ops, mut memory): (VecDeque<_>, Vec<_>) = (VecDeque::new(), Vec::new());
    let mut done: Vec<Completion> = Vec::new();
    for index in 0..3 {
        let (op, kept) = driver::bare_op(OpKind::Flush, index, 0, 0);
        ops.push_back(op);
        memory.push(kept);
        queue.submit(&mut ops);
        queue.reap(1, None, &mut done);
    }
    let order: Vec<_> = done.iter().map(|completion| completion.op().index).collect();
    assert_eq!(order, [0, 1, 2]);
    assert!(done.iter().all(|completion| completion.result().is_ok()));
}
