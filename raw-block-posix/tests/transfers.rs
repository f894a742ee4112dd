//! Transfers that fail or are short, and the statistics of the others.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Direct, Dispatcher, Error, ErrorKind, ReadAt, WriteAt};
use raw_block_posix::{PosixBackend, PosixOptions};
use tempfile::NamedTempFile;

const BLOCK: usize = 4096;
const LEN: usize = 1 << 20;

fn open(path: impl AsRef<Path>, direct: Direct, threads: usize) -> Dispatcher {
    let backend =
        PosixBackend::open(path, &PosixOptions::new().direct(direct).threads(threads)).unwrap();
    Dispatcher::new(Arc::new(backend)).unwrap()
}

fn file() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![9; LEN]).unwrap();
    file
}

/// Reads 4 blocks from each offset, in one batch. Returns the kinds of the errors.
fn read(dispatcher: &Dispatcher, places: &[usize]) -> Vec<Option<ErrorKind>> {
    let mut buffers: Vec<_> =
        places.iter().map(|_| AlignedBuf::zeroed(4 * BLOCK).unwrap()).collect();
    let mut batch: Vec<_> = places
        .iter()
        .zip(&mut buffers)
        .map(|(&place, buffer)| ReadAt::new(place as u64, buffer))
        .collect();
    let result = dispatcher.read_buffers(&mut batch);
    result.iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
}

#[test]
fn a_device_that_shrank_fails_only_transfers_past_its_end() {
    for direct in [Direct::Preferred, Direct::Off] {
        for threads in [1, 4] {
            let file = file();
            let dispatcher = open(file.path(), direct, threads);
            // Ends once between two blocks and once inside a block, which leaves an unaligned rest.
            for len in [LEN / 2, LEN / 4 + 100] {
                let other = OpenOptions::new().write(true).open(file.path()).unwrap();
                other.set_len(len as u64).unwrap();
                let block = len / BLOCK * BLOCK;
                let places = [0, block - 2 * BLOCK, LEN - 4 * BLOCK];
                let ended = Some(ErrorKind::EndOfDevice);
                assert_eq!(read(&dispatcher, &places), [None, ended, ended], "{direct:?} {len}");
            }
        }
    }
}

#[test]
fn one_thread_and_several_leave_the_same_bytes() {
    let write = |threads| {
        let file = file();
        let dispatcher = open(file.path(), Direct::Preferred, threads);
        let mut random = 1_u64;
        for round in 0..40_u8 {
            // Offsets in their own order. Those that overlap are refused, the same ones each time.
            let buffers: Vec<_> = (0..40_u8)
                .map(|number| {
                    let mut buffer = AlignedBuf::zeroed(usize::from(number % 7 + 1) * 512).unwrap();
                    buffer.fill(round.wrapping_mul(41).wrapping_add(number));
                    buffer
                })
                .collect();
            let batch: Vec<_> = buffers
                .iter()
                .map(|buffer| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let block = (random >> 33) % (LEN / BLOCK) as u64;
                    WriteAt::new(block * BLOCK as u64, buffer).padded_to(BLOCK as u64)
                })
                .collect();
            let _ = dispatcher.write_buffers(&batch);
        }
        dispatcher.flush().unwrap();
        drop(dispatcher);
        fs::read(file.path()).unwrap()
    };
    let serial = write(1);
    for threads in [2, 3, 16] {
        assert!(write(threads) == serial, "{threads} threads differ from one");
    }
}

#[test]
fn each_system_call_is_counted() {
    for threads in [1, 8] {
        let file = file();
        let dispatcher = open(file.path(), Direct::Preferred, threads);
        for batch in 1..=10 {
            let places: Vec<_> = (0..20).map(|number| number * 8 * BLOCK).collect();
            assert_eq!(read(&dispatcher, &places), [None; 20]);
            let stats = dispatcher.stats();
            assert_eq!((stats.submissions, stats.retries), (20 * batch, 0), "{threads} threads");
        }
    }
}

#[test]
fn zeroes_are_written_where_the_file_system_only_has_holes() {
    // Linux keeps these files in memory. They have holes, but no FALLOC_FL_ZERO_RANGE.
    let Ok(file) = NamedTempFile::new_in("/dev/shm") else {
        let _ = io::stderr().write_all(b"skipped: /dev/shm cannot be written to\n");
        return;
    };
    fs::write(file.path(), vec![9; LEN]).unwrap();
    let dispatcher = open(file.path(), Direct::Off, 1);
    dispatcher.write_zeroes(512, 100 * 512).unwrap();
    dispatcher.discard(200 * 512, 512).unwrap();
    drop(dispatcher);
    let found = fs::read(file.path()).unwrap();
    assert_eq!(found.len(), LEN);
    assert!(found[512..101 * 512].iter().all(|&byte| byte == 0));
    assert_eq!((found[511], found[101 * 512]), (9, 9));
}
