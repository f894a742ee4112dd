//! The conformance suite, with an allocator that detects writes to freed memory.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod quarantine;

use std::sync::Arc;
use std::thread;

use quarantine::Quarantine;
use raw_block_core::Direct;
use raw_block_core::conformance::{Skipped, Subject};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

/// Checks freed memory when it is dropped, which is after the backend. Other tests run
/// concurrently, so it releases nothing. Memory that they free must be intact too.
struct Check;

impl Drop for Check {
    fn drop(&mut self) {
        if !thread::panicking() {
            quarantine::check();
        }
    }
}

fn on_a_file(direct: Direct) -> Result<Subject, Skipped> {
    let file = temp_file(Subject::MIN_CAPACITY)?;
    let backend = UringBackend::open(file.path(), &UringOptions::new().direct(direct)).unwrap();
    Ok(Subject::new(Arc::new(backend)).keeping(file).keeping(Check))
}

raw_block_core::conformance_suite!(file, || on_a_file(Direct::Required));
raw_block_core::conformance_suite!(queues_of_one_thread, || {
    on_a_file(Direct::Required).map(Subject::with_local_queues)
});
raw_block_core::conformance_suite!(file_through_the_page_cache, || on_a_file(Direct::Off));
