//! A process for which the kernel cannot start worker threads. Alone in its file, because it drops
//! rights of its process.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setuid};
use raw_block_core::conformance::Skipped;
use raw_block_core::{AlignedBuf, Direct, Dispatcher, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// Makes this process unable to start threads.
fn reach_the_limit() -> Result<(), Skipped> {
    if Uid::effective().is_root() {
        // The limit does not restrict root, but a user without other processes.
        setuid(Uid::from_raw(54_321)).map_err(Skipped::because)?;
    }
    setrlimit(Resource::RLIMIT_NPROC, 1, 1).map_err(Skipped::because)?;
    match thread::Builder::new().spawn(|| {}) {
        Ok(_) => Err(Skipped::because("this user may start threads without limit")),
        Err(_) => Ok(()),
    }
}

#[test]
fn a_process_at_its_limit_of_processes_reads_writes_and_flushes() {
    let kernel_polling = Some(Duration::from_millis(1));
    let devices = [
        UringOptions::new().direct(Direct::Off),
        UringOptions::new(),
        UringOptions::new().kernel_polling(kernel_polling),
    ]
    .map(|options| {
        // Deleted now, while the rights suffice.
        let file = temp_file(1 << 20).unwrap();
        let backend = UringBackend::open(file.path(), &options).unwrap();
        Dispatcher::new(Arc::new(backend)).unwrap()
    });
    if let Err(skipped) = reach_the_limit() {
        return skipped.report();
    }
    for device in devices {
        let mut buffers: Vec<_> = (1..=8)
            .map(|number| {
                let mut buffer = AlignedBuf::zeroed(4096).unwrap();
                buffer.fill(number);
                buffer
            })
            .collect();
        let writes: Vec<_> =
            (0..).zip(&buffers).map(|(at, buffer)| WriteAt::new(at * 8192, buffer)).collect();
        device.write_buffers(&writes).all().unwrap();
        device.flush().unwrap();
        device.write_zeroes(0, 4096).unwrap();
        device.discard(8192, 4096).unwrap();
        let mut reads: Vec<_> =
            (0..).zip(&mut buffers).map(|(at, buffer)| ReadAt::new(at * 8192, buffer)).collect();
        device.read_buffers(&mut reads).all().unwrap();
        assert!(buffers[0].iter().all(|&byte| byte == 0));
        for (number, buffer) in buffers.iter().enumerate().skip(2) {
            assert!(buffer.iter().all(|&byte| usize::from(byte) == number + 1), "block {number}");
        }
    }
    let file = match temp_file(1 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let options = UringOptions::new().kernel_polling(kernel_polling);
    let error = UringBackend::open(file.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfResources);
    assert!(error.to_string().contains("RLIMIT_NPROC"), "{error}");
}
