//! A thread closes its ring when it ends. The only test of its process, because it counts rings.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::sync::Arc;
use std::thread;

use raw_block_core::{BufferPool, Dispatcher, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// The number of open rings of this process.
fn rings() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:[io_uring]").count()
}

#[test]
fn threads_that_ended_leave_no_rings_open() {
    let file = temp_file(1 << 20).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let pool = BufferPool::new(4096, 1).unwrap();
    let _registration = pool.register_with(backend.clone());
    let dispatcher = Dispatcher::new(backend).unwrap();
    let before = rings();
    for _ in 0..300 {
        let work = || {
            dispatcher.write_buffers(&[WriteAt::new(0, &pool.take().unwrap())]).all().unwrap();
            rings()
        };
        let during = thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert_eq!(during, before + 1, "the thread has a ring, and no earlier one is left");
    }
    // Where the kernel has no local rings, one ring serves all threads.
    assert!(rings() <= before + 1);
}
