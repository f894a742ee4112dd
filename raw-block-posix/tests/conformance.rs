//! The backend keeps the contract, however it is opened.

use std::sync::Arc;

use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::{Direct, conformance_suite};
use raw_block_fixtures::{LoopDevice, temp_file};
use raw_block_posix::{PosixBackend, PosixOptions};

const CAPACITY: u64 = Subject::MIN_CAPACITY;

fn file(direct: Direct, threads: usize) -> Result<Subject, Skipped> {
    let file = temp_file(CAPACITY)?;
    let backend =
        PosixBackend::open(file.path(), &PosixOptions::new().direct(direct).threads(threads))
            .map_err(Skipped::because)?;
    Ok(Subject::new(Arc::new(backend)).keeping(file))
}

fn loop_device(sector_size: u32, direct: Direct, threads: usize) -> Result<Subject, Skipped> {
    let device = LoopDevice::attach(CAPACITY, sector_size)?;
    let options = PosixOptions::new().direct(direct).threads(threads);
    let backend =
        PosixBackend::open(device.path(), &options).unwrap_or_else(|error| panic!("{error}"));
    Ok(Subject::new(Arc::new(backend)).keeping(device))
}

conformance_suite!(direct_one_thread, || file(Direct::Required, 1));
conformance_suite!(direct_two_threads, || file(Direct::Required, 2));
conformance_suite!(direct_many_threads, || file(Direct::Required, 32));
conformance_suite!(page_cache_one_thread, || file(Direct::Off, 1));
conformance_suite!(page_cache_many_threads, || file(Direct::Off, 8));
conformance_suite!(loop_device_512, || loop_device(512, Direct::Required, 8));
conformance_suite!(loop_device_4096, || loop_device(4096, Direct::Required, 8));
conformance_suite!(loop_device_through_the_page_cache, || loop_device(4096, Direct::Off, 8));
