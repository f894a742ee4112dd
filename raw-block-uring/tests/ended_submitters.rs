//! A thread ends while its ops are in flight. Ops that the kernel then cancels are submitted again.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use raw_block_core::{AlignedBuf, Direct, Dispatcher, OwnedTransfer, Refused, Ticket};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

const LEN: u64 = 4 << 20;

/// Drops a file from the page cache.
fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open, and the call takes no memory.
    assert_eq!(unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

/// Starts a batch in a thread that ends at once.
fn start(start: impl FnOnce() -> Result<Ticket, Refused> + Send) -> Ticket {
    thread::scope(|scope| scope.spawn(start).join().unwrap()).unwrap()
}

#[test]
fn transfers_of_a_thread_that_ended_succeed() {
    const PLACES: std::ops::Range<u64> = 0..64;
    for direct in [Direct::Off, Direct::Preferred] {
        let file = temp_file(LEN).unwrap();
        let expected = fs::read(file.path()).unwrap();
        let options = UringOptions::new().direct(direct);
        let backend = Arc::new(UringBackend::open(file.path(), &options).unwrap());
        let dispatcher = Dispatcher::new(backend).unwrap();
        let batch = |byte| {
            let transfer = |place| {
                let mut buffer = AlignedBuf::zeroed(4096).unwrap();
                buffer.fill(byte);
                OwnedTransfer::new(place << 16, buffer)
            };
            PLACES.map(transfer).collect::<Vec<_>>()
        };
        for _ in 0..8 {
            drop_cache(file.path());
            let ticket = start(|| dispatcher.batched_read(batch(0)));
            for (place, finished) in PLACES.zip(ticket.wait()) {
                finished.result.unwrap();
                let place = usize::try_from(place << 16).unwrap();
                assert!(finished.buffer[..] == expected[place..][..4096]);
            }
        }
        for byte in 0..8 {
            let ticket = start(|| dispatcher.batched_write(batch(byte)));
            ticket.wait().into_iter().for_each(|finished| finished.result.unwrap());
            let ticket = start(|| dispatcher.batched_read(batch(0)));
            for finished in ticket.wait() {
                finished.result.unwrap();
                assert!(finished.buffer.iter().all(|&found| found == byte));
            }
        }
    }
}
