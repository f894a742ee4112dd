//! All queues share one polling thread of the kernel. Alone in its file, because it counts the
//! threads of its process.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use raw_block_core::{AlignedBuf, Dispatcher, OwnedTransfer};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// The number of polling threads that the kernel runs for this process. It may run other threads,
/// for ops that would block.
fn polling_threads() -> usize {
    let names = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-sqp-")).count()
}

#[test]
fn queues_share_one_polling_thread_of_the_kernel() {
    let file = temp_file(1 << 20).unwrap();
    let kernel_polling = Some(Duration::from_millis(500));
    let options = UringOptions::new().kernel_polling(kernel_polling);
    let dispatcher = Dispatcher::new(Arc::new(UringBackend::open(file.path(), &options).unwrap()));
    let dispatcher = dispatcher.unwrap();
    let owned = || vec![OwnedTransfer::new(0, AlignedBuf::zeroed(4096).unwrap())];
    let tickets: Vec<_> = (0..8).map(|_| dispatcher.batched_read(owned()).unwrap()).collect();
    assert_eq!(polling_threads(), 1);
    for ticket in tickets {
        ticket.wait().remove(0).result.unwrap();
    }
    assert_eq!(polling_threads(), 1);
}
