//! A kernel thread polls for submissions (`SQPOLL`).
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use raw_block_core::{AlignedBuf, Direct, Dispatcher, DispatcherOptions, OwnedTransfer};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

#[test]
fn no_op_is_lost_when_the_submission_queue_is_full() {
    const BATCH: u64 = 8;
    let file = temp_file(1 << 20).unwrap();
    // Through the page cache, so that completions arrive before the thread frees their entries.
    let options =
        UringOptions::new().direct(Direct::Off).kernel_polling(Some(Duration::from_millis(100)));
    let backend = Arc::new(UringBackend::open(file.path(), &options).unwrap());
    let options = DispatcherOptions::new().queue_depth(2).max_queues(2);
    let dispatcher = Dispatcher::with_options(backend, options).unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    let mut batches = 0;
    while Instant::now() < end {
        let batch = (0..BATCH)
            .map(|number| OwnedTransfer::new(number * 8192, AlignedBuf::zeroed(4096).unwrap()))
            .collect();
        let mut ticket = dispatcher.batched_read(batch).unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        let finished = loop {
            if let Some(finished) = ticket.try_wait() {
                break finished;
            }
            if Instant::now() > limit {
                std::mem::forget(ticket);
                panic!("batch {batches} never ended");
            }
        };
        assert!(finished.iter().all(|finished| finished.result.is_ok()), "{finished:?}");
        batches += 1;
    }
    assert_eq!(dispatcher.stats().commands, batches * BATCH, "each submitted once");
}
