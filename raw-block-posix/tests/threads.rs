//! Threads: when they are started, their cost, and when they end.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, fork};
use raw_block_core::{AlignedBuf, Direct, Dispatcher, OwnedTransfer, ReadAt};
use raw_block_posix::{PosixBackend, PosixOptions};
use support::{passed_on, prefixed, run_again};
use tempfile::NamedTempFile;

const BLOCK: usize = 4096;
/// Blocks of the device.
const BLOCKS: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

/// The threads of this process are counted by one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    wait_for_the_end_of_workers();
    alone
}

/// Waits until the kernel lists no thread of a backend. It still lists a thread for a while after
/// it was joined.
fn wait_for_the_end_of_workers() {
    let end = Instant::now() + PATIENCE;
    while !workers().is_empty() {
        assert!(Instant::now() < end, "threads are left: {:?}", workers());
        thread::sleep(Duration::from_millis(1));
    }
}

fn open(threads: usize) -> (NamedTempFile, Dispatcher) {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len((BLOCKS * BLOCK) as u64).unwrap();
    let options = PosixOptions::new().direct(Direct::Preferred).threads(threads);
    let backend = PosixBackend::open(file.path(), &options).unwrap();
    (file, Dispatcher::new(Arc::new(backend)).unwrap())
}

/// Reads this many blocks, no two of them adjacent, in one batch.
fn read(dispatcher: &Dispatcher, count: usize) {
    let mut buffers: Vec<_> = (0..count).map(|_| AlignedBuf::zeroed(BLOCK).unwrap()).collect();
    let places = (0..).step_by(2 * BLOCK);
    let mut batch: Vec<_> =
        places.zip(&mut buffers).map(|(place, buffer)| ReadAt::new(place, buffer)).collect();
    dispatcher.read_buffers(&mut batch).all().unwrap();
}

/// The number of voluntary context switches of each thread of a backend in this process.
fn workers() -> Vec<(String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| {
            // A thread may end in the meantime.
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            let is_worker = field("Name:")? == "raw-block-posix";
            let waits = field("voluntary_ctxt_switches:")?.parse().ok()?;
            is_worker.then_some((field("Pid:")?, waits))
        })
        .collect()
}

#[test]
fn one_thread_is_the_callers_own() {
    let _alone = alone();
    let (_file, dispatcher) = open(1);
    read(&dispatcher, 64);
    let batch = vec![OwnedTransfer::new(0, AlignedBuf::zeroed(BLOCK).unwrap())];
    let _ = dispatcher.batched_read(batch).unwrap().wait();
    assert_eq!(workers(), []);
}

#[test]
fn a_batch_of_one_transfer_starts_no_thread() {
    let _alone = alone();
    let (_file, dispatcher) = open(8);
    for _ in 0..10 {
        read(&dispatcher, 1);
        dispatcher.flush().unwrap();
    }
    assert_eq!(workers(), []);
}

#[test]
fn threads_start_when_there_is_work_and_end_with_the_backend() {
    let _alone = alone();
    let (_file, dispatcher) = open(4);
    assert_eq!(workers(), [], "opening starts none");
    for _ in 0..50 {
        read(&dispatcher, 64);
        let count = workers().len();
        assert!(count <= 3, "{count} threads besides the caller's");
    }
    // A thread has its name only once it runs.
    let end = Instant::now() + PATIENCE;
    while workers().is_empty() {
        assert!(Instant::now() < end, "no thread took part");
        thread::sleep(Duration::from_millis(1));
    }
    drop(dispatcher);
    wait_for_the_end_of_workers();
}

#[test]
fn idle_threads_do_not_wake_up() {
    let _alone = alone();
    let (_file, dispatcher) = open(8);
    read(&dispatcher, 64);
    // On a busy machine, threads that were woken for the last op may run late.
    let rested = (0..50).any(|_| {
        let before = workers();
        thread::sleep(Duration::from_millis(200));
        !before.is_empty() && workers() == before
    });
    assert!(rested, "threads wake up again and again: {:?}", workers());
}

#[test]
fn many_callers_share_the_threads() {
    let _alone = alone();
    let (_file, dispatcher) = open(4);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for count in 1..30 {
                    read(&dispatcher, count);
                }
            });
        }
    });
    assert!(workers().len() <= 3);
}

#[test]
fn with_one_thread_the_thread_of_tickets_executes_their_ops() {
    let _alone = alone();
    let (_file, dispatcher) = open(1);
    let batch = (0..8).map(|number| {
        OwnedTransfer::new(number * 2 * BLOCK as u64, AlignedBuf::zeroed(BLOCK).unwrap())
    });
    let all = dispatcher.batched_read(batch.collect()).unwrap().wait();
    assert!(all.iter().all(|finished| finished.result.is_ok()));
    assert_eq!(dispatcher.stats().submissions, 8);
    assert_eq!(workers().len(), 0);
}

#[test]
fn without_more_threads_the_available_ones_do_the_work() {
    let Some(limit) = passed_on() else {
        for limit in ["1", "2", "4"] {
            let test = "without_more_threads_the_available_ones_do_the_work";
            // The limit does not restrict root, and it counts all threads of another user. So no
            // other run of this test may have the same user.
            let user = format!("--reuid=3{:08}{limit}", process::id());
            run_again(test, limit, |command| {
                let command = prefixed("prlimit", &[&format!("--nproc={limit}"), "--"], &command);
                if !support::is_root() {
                    return command;
                }
                prefixed("setpriv", &[&user, "--clear-groups", "--"], &command)
            });
        }
        return;
    };
    let (_file, dispatcher) = open(16);
    read(&dispatcher, 64);
    let batch = (0..64).map(|number| {
        OwnedTransfer::new(number * 2 * BLOCK as u64, AlignedBuf::zeroed(BLOCK).unwrap())
    });
    // Where no thread can be started for tickets, the calling thread does the work.
    let all = dispatcher.batched_read(batch.collect()).unwrap().wait();
    assert!(all.iter().all(|finished| finished.result.is_ok()));
    read(&dispatcher, 64);
    let count = workers().len();
    let limit: usize = limit.to_str().unwrap().parse().unwrap();
    assert!(count < limit, "{count} threads besides this one");
}

#[test]
fn a_forked_child_can_drop_inherited_queues() {
    let _alone = alone();
    let (_file, dispatcher) = open(4);
    read(&dispatcher, 64);
    // SAFETY: the child only drops inherited values and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // Ends a child that hangs.
            alarm::set(120);
            drop(dispatcher);
            // SAFETY: it only ends the process.
            unsafe { nix::libc::_exit(0) };
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    read(&dispatcher, 64);
    let path = dispatcher.backend().name().to_owned();
    let again = PosixBackend::open(&path, &PosixOptions::new());
    assert!(again.is_err(), "the child released the lock of its parent");
}
