//! A broken ring is replaced. Alone in its file, because it breaks every ring of its process.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer, ReadAt, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// Replaces every ring of the process by a file under the same descriptor. Returns the number of
/// rings.
fn break_rings() -> usize {
    let other = File::open("/dev/null").unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let rings = descriptors.filter(|path| {
        fs::read_link(path).is_ok_and(|target| target.to_str() == Some("anon_inode:[io_uring]"))
    });
    let rings: Vec<i32> =
        rings.map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
    for &ring in &rings {
        // SAFETY: both descriptors are open. The owner of the ring still has an open descriptor,
        // and the memory of the ring stays mapped.
        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), ring) }, ring);
    }
    rings.len()
}

#[test]
fn a_broken_ring_fails_its_batch_and_is_replaced() {
    let file = temp_file(1 << 20).unwrap();
    let backend = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    for round in 1..=3 {
        buffer.fill(round);
        dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
        assert!(break_rings() > 0, "there was a ring");
        let apart = [WriteAt::new(0, &buffer[..512]), WriteAt::new(8192, &buffer[..512])];
        assert!(dispatcher.write_buffers(&apart).iter().all(Result::is_err));
        dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
        assert!(buffer.iter().all(|&byte| byte == round));

        let owned = || vec![OwnedTransfer::new(0, AlignedBuf::zeroed(4096).unwrap())];
        // Tickets have their own ring.
        // The first finds out that it is broken, and the second opens another one.
        drop(dispatcher.batched_read(owned()).unwrap().wait());
        assert!(dispatcher.batched_read(owned()).unwrap().wait()[0].result.is_ok());
        break_rings();
        assert!(dispatcher.batched_read(owned()).unwrap().wait()[0].result.is_err());
        let read = dispatcher.batched_read(owned()).unwrap().wait();
        assert!(read[0].result.is_ok() && read[0].buffer.iter().all(|&byte| byte == round));
        // The ring of blocking calls broke as well.
        assert!(dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().is_err());
    }
}
