//! How a statement is run: with a timeout, and in its own process if it measures the process, or
//! holds the device until the process ends.

use std::env;
use std::panic;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::{Skipped, Subject};

/// A statement that is not over by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Set in a process that runs a single statement.
const ALONE: &str = "RAW_BLOCK_CONFORMANCE_ALONE";

/// Runs a statement that borrows its subject.
pub(super) fn borrowing(
    test: &str,
    make: impl FnOnce() -> Result<Subject, Skipped>,
    statement: fn(&Subject),
) {
    owning(test, make, move |subject| statement(&subject));
}

/// Runs a statement that takes its subject apart.
pub(super) fn owning(
    _test: &str,
    make: impl FnOnce() -> Result<Subject, Skipped>,
    statement: impl FnOnce(Subject) + Send + 'static,
) {
    let subject = match make() {
        Ok(subject) => subject,
        Err(skipped) => return skipped.report(),
    };
    // A backend that hangs would hang the whole test run: it gets a thread that can be abandoned.
    let (running, ended) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("statement").to_owned();
    let statement = move || {
        let _running = running;
        statement(subject);
    };
    let worker = thread::Builder::new().name(name).spawn(statement).unwrap();
    if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        panic!("still running after {} s: it hangs", PATIENCE.as_secs());
    }
    if let Err(reason) = worker.join() {
        panic::resume_unwind(reason);
    }
}

/// Runs a statement about random cases, whose duration the caller decides by their number.
pub(super) fn random(
    test: &str,
    make: impl FnOnce() -> Result<Subject, Skipped>,
    statement: fn(&Subject),
) {
    if env::var_os("PROPTEST_CASES").is_none() {
        return borrowing(test, make, statement);
    }
    match make() {
        Ok(subject) => statement(&subject),
        Err(skipped) => skipped.report(),
    }
}

/// Runs a statement in its own process, where no other test uses the CPU, and after which the
/// device is free even if something was leaked: this test program again, with this one test.
pub(super) fn alone(
    test: &str,
    make: impl FnOnce() -> Result<Subject, Skipped>,
    statement: fn(&Subject),
) {
    if env::var_os(ALONE).is_some() {
        return borrowing(test, make, statement);
    }
    // The test harness leaves out the name of the crate.
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "in its own process:\n{said}");
}
