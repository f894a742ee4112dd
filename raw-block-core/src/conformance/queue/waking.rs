//! When a queue wakes its user, and that otherwise it rests.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::conformance::Subject;
use crate::conformance::driver::Driver;

/// Patience with a device, in milliseconds.
pub(crate) const SOON: u16 = 10_000;
/// How long a queue is watched doing nothing.
const IDLE: Duration = Duration::from_millis(200);
/// The CPU time that other threads may use in that: a spinning thread uses more, even if it shares
/// a processor with 50 others.
const REST: Duration = Duration::from_millis(2);
/// How often a queue is watched. Threads that the last transfer woke may run late on a busy
/// machine, and a virtual machine may count time in which it did not run.
const WINDOWS: usize = 25;

/// Whether the descriptor becomes readable within this number of milliseconds.
pub(crate) fn is_readable(fd: BorrowedFd<'_>, patience: u16) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(patience)).unwrap() > 0
}

pub(crate) fn a_queue_can_be_driven_by_its_event_fd(subject: &Subject) {
    let mut driver = Driver::open(subject, 8);
    if driver.queue.event_fd().is_none() {
        return;
    }
    for round in 0..100 {
        for number in 0..4 {
            driver.read(subject.at(4 * round + number), subject.block());
        }
        driver.submit();
        driver.reap(0, None);
        while driver.queue.in_flight() > 0 {
            let readable = is_readable(driver.queue.event_fd().unwrap(), SOON);
            assert!(readable, "{} ops in flight, and no signal", driver.queue.in_flight());
            driver.reap(0, None);
        }
    }
}

pub(crate) fn an_event_fd_falls_silent_when_all_is_reaped(subject: &Subject) {
    let mut driver = Driver::open(subject, 8);
    if driver.queue.event_fd().is_none() {
        return;
    }
    for number in 0..20 {
        driver.read(subject.at(number), subject.block());
    }
    driver.run();
    // One late signal may be pending; reaping consumes it.
    let silent = (0..100).any(|_| {
        driver.reap(0, None);
        !is_readable(driver.queue.event_fd().unwrap(), 10)
    });
    assert!(silent, "the descriptor is readable though nothing is in flight");
}

pub(crate) fn an_idle_queue_uses_no_cpu(subject: &Subject) {
    let mut driver = Driver::open(subject, 32);
    rest("before its first transfer");
    for number in 0..200 {
        driver.read(subject.at(number), subject.block());
    }
    driver.run();
    rest("after its last transfer");
}

/// Asserts that other threads do not run while this one sleeps.
pub(super) fn rest(when: &str) {
    let mut used = Duration::MAX;
    for _ in 0..WINDOWS {
        let before = cpu_time_of_others();
        thread::sleep(IDLE);
        used = used.min(cpu_time_of_others().saturating_sub(before));
        if used < REST {
            return;
        }
    }
    panic!("{when} it used at least {used:?} of CPU time in each of {WINDOWS} times {IDLE:?}");
}

/// What all threads of this process but this one have used.
fn cpu_time_of_others() -> Duration {
    let [own, all] = [ClockId::CLOCK_THREAD_CPUTIME_ID, ClockId::CLOCK_PROCESS_CPUTIME_ID]
        .map(|clock| Duration::from(clock_gettime(clock).unwrap()));
    all.saturating_sub(own)
}
