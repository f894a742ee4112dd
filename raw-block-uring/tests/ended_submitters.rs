//! A thread ends while what it submitted is in flight. What the kernel then cancels is submitted again.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use raw_block_core::conformance::fixture::temp_file;
use raw_block_core::{AlignedBuf, Direct, Dispatcher, OwnedTransfer};
use raw_block_uring::{UringBackend, UringOptions};

const LEN: u64 = 4 << 20;

/// Makes the kernel forget what it has cached of a file.
fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open, and no memory is named.
    assert_eq!(unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

#[test]
fn reads_of_a_thread_that_ended_succeed() {
    let file = temp_file(LEN).unwrap();
    let expected = std::fs::read(file.path()).unwrap();
    let options = UringOptions { direct: Direct::Off, ..UringOptions::default() };
    let backend = Arc::new(UringBackend::open(file.path(), &options).unwrap());
    let device = Dispatcher::new(backend).unwrap();
    for _ in 0..8 {
        drop_cache(file.path());
        let batch = (0..64)
            .map(|number| OwnedTransfer::new(number << 16, AlignedBuf::zeroed(4096).unwrap()))
            .collect();
        let start = || device.batched_read(batch).unwrap();
        let ticket = thread::scope(|scope| scope.spawn(start).join().unwrap());
        for (number, finished) in ticket.wait().into_iter().enumerate() {
            finished.result.unwrap();
            assert!(finished.buffer[..] == expected[number << 16..][..4096]);
        }
    }
}
