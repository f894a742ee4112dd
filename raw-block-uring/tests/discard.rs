//! A discard reaches a block device as a discard, not as zeroes or a write.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Direct, Dispatcher, ReadAt, WriteAt};
use raw_block_fixtures::{LoopDevice, discard_a_gibibyte};
use raw_block_uring::{UringBackend, UringOptions};

const MIB: u64 = 1 << 20;

#[test]
fn a_block_device_sees_a_discard_and_no_write() {
    let loop_device = match LoopDevice::attach(16 * MIB, 4096) {
        Ok(attached) => attached,
        Err(skipped) => return skipped.report(),
    };
    let (written, discards) = match loop_device.written_and_discards(None) {
        Ok(counts) => counts,
        Err(skipped) => return skipped.report(),
    };
    let backend = UringBackend::open(loop_device.path(), &UringOptions::new()).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut buffer = AlignedBuf::zeroed(3 << 20).unwrap();
    buffer.fill(9);
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    dispatcher.flush().unwrap();

    dispatcher.discard(MIB, MIB).unwrap();
    let expected = (written + 3 * MIB, discards + 1);
    assert_eq!(loop_device.written_and_discards(Some(expected)).unwrap(), expected);

    buffer.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer[..1 << 20].iter().all(|&byte| byte == 9));
    assert!(buffer[2 << 20..].iter().all(|&byte| byte == 9));
}

#[test]
fn zeroes_replace_dirty_pages_of_the_page_cache() {
    let loop_device = match LoopDevice::attach(16 * MIB, 4096) {
        Ok(attached) => attached,
        Err(skipped) => return skipped.report(),
    };
    let options = UringOptions::new().direct(Direct::Off);
    let backend = UringBackend::open(loop_device.path(), &options).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut bytes = vec![9; 1 << 20];
    dispatcher.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
    // Whole blocks, parts of two, and a part of one.
    for (offset, len) in [(4096, 8192), (65_000, 10_000), (100_001, 5)] {
        dispatcher.write_zeroes(offset as u64, len as u64).unwrap();
        bytes[offset..offset + len].fill(0);
        dispatcher.discard(512 << 10, 4096).unwrap();
        let mut found = vec![1; 512 << 10];
        dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
        assert!(found == bytes[..512 << 10], "zeroes of {len} bytes at {offset}");
    }
}

#[test]
fn a_discard_of_a_gibibyte_of_a_file_is_one_hole() {
    let open = |path: &Path| {
        let backend = UringBackend::open(path, &UringOptions::new()).unwrap();
        Dispatcher::new(Arc::new(backend)).unwrap()
    };
    if let Err(skipped) = discard_a_gibibyte(open) {
        skipped.report();
    }
}
