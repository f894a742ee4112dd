//! Memory is pinned while it is registered. The only test of its process, because the kernel counts
//! the pinned pages of a process.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_core::{BufferPool, Dispatcher, ErrorKind, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

const BUFFER: usize = 1 << 20;
/// The buffers of two pools, one and its successor, are less than the 8 MiB that a user may lock by
/// default.
const BUFFERS: usize = 2;
/// More than what a pool of one page takes, in each of two rings, and less than a buffer.
const SMALL: usize = 64 << 10;

/// The pinned memory of this process, in bytes.
fn pinned() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// Whether soon at most this much is pinned. The kernel takes a ring down after its owner has
/// closed it.
fn is_pinned_soon(at_most: usize) -> bool {
    (0..2000).any(|_| {
        let enough = pinned() <= at_most;
        if !enough {
            thread::sleep(Duration::from_millis(10));
        }
        enough
    })
}

#[test]
fn memory_is_unpinned_when_its_registration_ends() {
    let file = temp_file(16 << 20).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let dispatcher = Dispatcher::new(backend.clone()).unwrap();
    // Alone, then next to memory that stays registered.
    let small = BufferPool::new(4096, 1).unwrap();
    for others in [0, 1] {
        let other: Vec<_> = (0..others).map(|_| small.register_with(backend.clone())).collect();
        let pinned_by_others = others * SMALL;
        for _ in 0..8 {
            let pool = BufferPool::new(BUFFER, BUFFERS).unwrap();
            let registration = match pool.register_with(backend.clone()) {
                Ok(registration) => registration,
                Err(error) if error.kind() == ErrorKind::OutOfResources => {
                    return Skipped::because(error).report();
                }
                Err(error) => panic!("{error}"),
            };
            let write = |offset| {
                let buffer = pool.take().unwrap();
                dispatcher.write_buffers(&[WriteAt::new(offset, &buffer)]).all().unwrap();
            };
            write(0);
            // On another thread, whose queue is closed when it ends.
            thread::scope(|scope| scope.spawn(|| write(4 << 20)).join().unwrap());
            assert!(pinned() > pinned_by_others, "it is registered");
            // Before Linux 6.12 the queue of this thread pins it a second time.
            let limit = 2 * BUFFERS * BUFFER + pinned_by_others;
            assert!(is_pinned_soon(limit), "{} bytes are pinned", pinned());
            drop(registration);
        }
        // The queue of this thread unpins it at its next use.
        let use_queue = || dispatcher.write_buffers(&[WriteAt::new(0, &[0; 4096])]).all().unwrap();
        use_queue();
        assert!(is_pinned_soon(pinned_by_others), "{} bytes are pinned", pinned());
        drop(other);
        use_queue();
        assert!(is_pinned_soon(0), "{} bytes are pinned", pinned());
    }

    // Registrations end with the backend, even if one of its queues remains.
    let pool = BufferPool::new(BUFFER, BUFFERS).unwrap();
    let registration = pool.register_with(backend.clone()).unwrap();
    let queue = backend.open_queue(4).unwrap();
    drop((dispatcher, backend));
    assert!(is_pinned_soon(0), "{} bytes are pinned", pinned());
    drop((registration, queue));
}
