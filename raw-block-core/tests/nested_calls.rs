//! The functions that read a batch in parts may call the dispatcher, however few queues there are.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fakes::{
    Behaviour, Honest, blocks, device_with_queues, is_driver, owned, within_seconds, writes,
};
use raw_block_core::{Dispatcher, Error, ErrorKind, ReadAt};

/// A queue that is counted while it is open.
struct Counted(Arc<AtomicUsize>);

impl Behaviour for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reads a block and calls `then` before the read has returned its queue.
fn during_a_read(device: &Dispatcher, then: impl Fn()) {
    let mut found = [0; 512];
    device.read_buffers_with(&mut [ReadAt::new(0, &mut found)], |_, read| {
        read.unwrap();
        then();
    });
}

/// All calls that take a queue.
fn use_in_all_ways(device: &Dispatcher) {
    let blocks = blocks(3);
    device.write_buffers(&writes(&blocks)).all().unwrap();
    device.flush().unwrap();
    device.discard(0, 512).unwrap();
    let mut found = [0; 512];
    device.read_buffers(&mut [ReadAt::new(4096, &mut found)]).all().unwrap();
    assert_eq!(found, blocks[1]);
    match device.batched_read(owned(&blocks)) {
        Ok(ticket) => assert!(ticket.wait().iter().all(|finished| finished.result.is_ok())),
        Err(refused) => assert_eq!(refused.error.kind(), ErrorKind::Busy),
    }
}

#[test]
fn calls_from_within_a_read_work_when_all_queues_are_in_use() {
    within_seconds(|| {
        for max_queues in [1, 2, 3] {
            let open = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&open);
            let device = device_with_queues(max_queues, move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Box::new(Counted(Arc::clone(&count))))
            });
            let threads = 4;
            let all_read = Barrier::new(max_queues);
            thread::scope(|scope| {
                for _ in 0..max_queues {
                    scope.spawn(|| {
                        during_a_read(&device, || {
                            // Now no queue is left.
                            all_read.wait();
                            use_in_all_ways(&device);
                            during_a_read(&device, || use_in_all_ways(&device));
                        });
                    });
                }
                for _ in 0..threads {
                    scope.spawn(|| use_in_all_ways(&device));
                }
            });
            // One more serves the tickets.
            let open = open.load(Ordering::SeqCst);
            assert!(open <= max_queues + 1, "{open} of {max_queues} queues are open");
            use_in_all_ways(&device);
        }
    });
}

#[test]
fn a_call_from_within_a_read_that_gets_no_queue_is_an_error() {
    within_seconds(|| {
        let device = device_with_queues(2, |wanted| {
            if wanted.number > 0 && !is_driver() {
                return Err(Error::new(ErrorKind::OutOfResources, "open a queue", "as scripted"));
            }
            Ok(Box::new(Honest))
        });
        during_a_read(&device, || {
            let no_queue = device.flush().unwrap_err();
            assert_eq!(no_queue.kind(), ErrorKind::OutOfResources);
            let no_queue = device.write_buffers(&writes(&blocks(1))).all().unwrap_err();
            assert_eq!(no_queue.kind(), ErrorKind::OutOfResources);
        });
        use_in_all_ways(&device);
    });
}
