//! A discard reaches a block device as a discard, not as zeroes or a write.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Direct, Dispatcher, ReadAt, WriteAt};
use raw_block_fixtures::{LoopDevice, zeroed_file};
use raw_block_uring::{UringBackend, UringOptions};

const MIB: u64 = 1 << 20;

#[test]
fn a_block_device_sees_a_discard_and_no_write() {
    let loop_device = match LoopDevice::attach(16 * MIB, 4096) {
        Ok(attached) => attached,
        Err(skipped) => return skipped.tell(),
    };
    let (written, discards) = match loop_device.written_and_discards(None) {
        Ok(counts) => counts,
        Err(skipped) => return skipped.tell(),
    };
    let backend = UringBackend::open(loop_device.path(), &UringOptions::new()).unwrap();
    let device = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut buffer = AlignedBuf::zeroed(3 << 20).unwrap();
    buffer.fill(9);
    device.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    device.flush().unwrap();

    device.discard(MIB, MIB).unwrap();
    let expected = (written + 3 * MIB, discards + 1);
    assert_eq!(loop_device.written_and_discards(Some(expected)).unwrap(), expected);

    buffer.fill(0);
    device.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer[..1 << 20].iter().all(|&byte| byte == 9));
    assert!(buffer[2 << 20..].iter().all(|&byte| byte == 9));
}

#[test]
fn zeroes_replace_dirty_pages_of_the_page_cache() {
    let loop_device = match LoopDevice::attach(16 * MIB, 4096) {
        Ok(attached) => attached,
        Err(skipped) => return skipped.tell(),
    };
    let options = UringOptions::new().direct(Direct::Off);
    let backend = UringBackend::open(loop_device.path(), &options).unwrap();
    let device = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut bytes = vec![9; 1 << 20];
    device.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
    // Whole blocks, parts of two, and a part of one.
    for (offset, len) in [(4096, 8192), (65_000, 10_000), (100_001, 5)] {
        device.write_zeroes(offset as u64, len as u64).unwrap();
        bytes[offset..offset + len].fill(0);
        device.discard(512 << 10, 4096).unwrap();
        let mut found = vec![1; 512 << 10];
        device.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
        assert!(found == bytes[..512 << 10], "zeroes of {len} bytes at {offset}");
    }
}

/// Writes a block before a range, at both of its ends and after it, discards the range, and checks
/// the blocks outside.
fn discard_between_blocks(device: &Dispatcher, offset: u64, len: u64) {
    let block = 4096;
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    buffer.fill(9);
    let (before, last, after) = (offset - block, offset + len - block, offset + len);
    let writes = [before, offset, last, after].map(|at| WriteAt::new(at, &buffer));
    device.write_buffers(&writes).all().unwrap();
    device.flush().unwrap();
    device.discard(offset, len).unwrap();
    for at in [before, after] {
        buffer.fill(0);
        device.read_buffers(&mut [ReadAt::new(at, &mut buffer)]).all().unwrap();
        assert!(buffer.iter().all(|&byte| byte == 9), "the block at {at} is outside");
    }
}

#[test]
fn a_discard_of_a_gibibyte_of_a_file_is_one_hole() {
    const LEN: u64 = 1 << 30;
    let file = match zeroed_file(MIB) {
        Ok(file) => file,
        Err(skipped) => return skipped.tell(),
    };
    // Sparse, so that it needs no space.
    let opened = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
    opened.set_len(LEN + 2 * MIB).unwrap();
    drop(opened);
    let options = UringOptions::new().direct(Direct::Preferred);
    let backend = UringBackend::open(file.path(), &options).unwrap();
    let device = Dispatcher::new(Arc::new(backend)).unwrap();
    let allocated = || fs::metadata(file.path()).unwrap().blocks() * 512;
    discard_between_blocks(&device, MIB, LEN);
    let mut last = AlignedBuf::zeroed(4096).unwrap();
    last.fill(1);
    device.read_buffers(&mut [ReadAt::new(LEN + MIB - 4096, &mut last)]).all().unwrap();
    assert!(last.iter().all(|&byte| byte == 0), "the last block is in the hole");
    assert!(allocated() <= 2 * MIB, "{} bytes are allocated", allocated());
}
