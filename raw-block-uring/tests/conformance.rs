//! The conformance suite on files and loop devices.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::Duration;

use raw_block_core::Direct;
use raw_block_core::conformance::{Skipped, Subject};
use raw_block_fixtures::{LoopDevice, temp_file};
use raw_block_uring::{UringBackend, UringOptions};

const LEN: u64 = Subject::MIN_CAPACITY;

fn on_a_file(direct: Direct) -> Result<Subject, Skipped> {
    let file = temp_file(LEN)?;
    let backend = UringBackend::open(file.path(), &UringOptions::new().direct(direct)).unwrap();
    Ok(Subject::new(Arc::new(backend)).keeping(file))
}

fn on_a_loop_device(sector_size: u32, direct: Direct) -> Result<Subject, Skipped> {
    let device = LoopDevice::attach(LEN, sector_size)?;
    let options = UringOptions::new().direct(direct);
    let backend = UringBackend::open(device.path(), &options).unwrap();
    Ok(Subject::new(Arc::new(backend)).keeping(device))
}

fn with_kernel_polling() -> Result<Subject, Skipped> {
    let file = temp_file(LEN)?;
    // The thread sleeps most of the time, so that wake-ups are tested too.
    let kernel_polling = Some(Duration::from_millis(1));
    let options = UringOptions::new().kernel_polling(kernel_polling);
    let backend = UringBackend::open(file.path(), &options).unwrap();
    Ok(Subject::new(Arc::new(backend)).keeping(file))
}

raw_block_core::conformance_suite!(file, || on_a_file(Direct::Required));
raw_block_core::conformance_suite!(queues_of_one_thread, || {
    on_a_file(Direct::Required).map(Subject::with_local_queues)
});
raw_block_core::conformance_suite!(file_through_the_page_cache, || on_a_file(Direct::Off));
raw_block_core::conformance_suite!(loop_device_512, || on_a_loop_device(512, Direct::Required));
raw_block_core::conformance_suite!(loop_device_4096, || on_a_loop_device(4096, Direct::Required));
raw_block_core::conformance_suite!(loop_device_through_the_page_cache, || {
    on_a_loop_device(4096, Direct::Off)
});
raw_block_core::conformance_suite!(file_with_kernel_polling, with_kernel_polling);
