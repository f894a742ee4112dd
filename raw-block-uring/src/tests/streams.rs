//! Placement handles on the block path: write streams in submission entries.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use io_uring::squeue;
use raw_block_core::backend::{Completion, DeviceFile, FlushState, IoBackend, IoQueue, Op, Stats};
use raw_block_core::conformance::{Skipped, Subject};
use raw_block_core::{
    AlignedBuf, Direct, Dispatcher, Error, ErrorKind, Geometry, MemoryBackend, ReadAt, WriteAt,
    WriteOptions,
};
use raw_block_fixtures::{LoopDevice, temp_file};

use super::scripted::{OnResult, Script, Scripted, backend_on};
use crate::entry;
use crate::ring::{Lookup, Standard};

/// Opcodes of `linux/io_uring.h`.
const WRITEV: u8 = 2;
const WRITE_FIXED: u8 = 5;
const WRITE: u8 = 23;
const WRITEV_FIXED: u8 = 61;

fn placed(placement: Option<u16>) -> WriteOptions {
    WriteOptions::new().placement(placement)
}

/// Opcode and write stream of an entry.
fn code_and_stream(entry: &squeue::Entry) -> (u8, u8) {
    let bytes = std::ptr::from_ref(entry).cast::<[u8; 64]>();
    // SAFETY: an entry has 64 bytes, all initialised (`struct io_uring_sqe`).
    let bytes = unsafe { &*bytes };
    (bytes[0], bytes[44])
}

/// A backend in memory that records the entries that a ring would get, with or without registered
/// memory.
struct Noting {
    memory: MemoryBackend,
    geometry: Geometry,
    lookup: Lookup,
    noted: Arc<Mutex<Vec<(u8, u8)>>>,
}

struct NotingQueue {
    inner: Box<dyn IoQueue>,
    lookup: Lookup,
    noted: Arc<Mutex<Vec<(u8, u8)>>>,
}

impl IoBackend for Noting {
    fn engine(&self) -> &'static str {
        "noting"
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn stats(&self) -> &Stats {
        self.memory.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.memory.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (inner, noted) = (self.memory.open_queue(depth)?, Arc::clone(&self.noted));
        Ok(Box::new(NotingQueue { inner, lookup: self.lookup, noted }))
    }
}

impl IoQueue for NotingQueue {
    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn submit(&mut self, ops: &mut VecDeque<Op>) {
        for op in ops.iter() {
            let entry = entry::of(op, op.iovecs(), true, self.lookup);
            self.noted.lock().unwrap().push(code_and_stream(&entry));
        }
        self.inner.submit(ops);
    }

    fn start(&mut self) {}

    fn reap(&mut self, min: usize, deadline: Option<Instant>, done: &mut Vec<Completion>) {
        self.inner.reap(min, deadline, done);
    }
}

/// The entries of writes of one and of two segments through these handles.
fn entries(handles: &[Option<u16>], lookup: Lookup) -> Vec<(u8, u8)> {
    let memory = MemoryBackend::new(1 << 20).unwrap();
    let mut geometry = *memory.geometry();
    geometry.placement_handles = entry::MAX_STREAMS;
    let noted = Arc::default();
    let backend = Noting { memory, geometry, lookup, noted: Arc::clone(&noted) };
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let block = AlignedBuf::zeroed(4096).unwrap();
    for &handle in handles {
        let one = WriteAt::new(0, &block).with_options(placed(handle));
        dispatcher.write_buffers(&[one]).all().unwrap();
        let two = WriteAt::gather(8192, [&block, &block]).with_options(placed(handle));
        dispatcher.write_buffers(&[two]).all().unwrap();
    }
    drop(dispatcher);
    Arc::into_inner(noted).unwrap().into_inner().unwrap()
}

#[test]
fn handles_are_write_streams_from_one_in_all_entries() {
    let handles = [None, Some(0), Some(6), Some(254)];
    let streams = [0, 1, 7, 255];
    for (lookup, one, two) in
        [(Lookup::Plain, WRITE, WRITEV), (Lookup::Region(0), WRITE_FIXED, WRITEV_FIXED)]
    {
        let expected: Vec<_> =
            streams.iter().flat_map(|&stream| [(one, stream), (two, stream)]).collect();
        assert_eq!(entries(&handles, lookup), expected, "{lookup:?}");
    }
}

#[test]
fn the_rest_of_a_short_write_keeps_its_stream() {
    let file = match temp_file(1 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let results = [OnResult::Replace(512), OnResult::Replace(-libc::EAGAIN)].into();
    let kernel = Scripted(Arc::new(Mutex::new(Script { results, ..Script::default() })));
    let opened = DeviceFile::open(file.path(), Direct::Off).unwrap();
    // File systems ignore the stream.
    let dispatcher = Dispatcher::new(backend_on::<Standard>(opened, kernel, None, 3)).unwrap();
    let bytes = [7; 4096];
    let write = WriteAt::new(4096, &bytes).with_options(placed(Some(2)));
    dispatcher.write_buffers(&[write]).all().unwrap();
    let mut found = [0; 4096];
    dispatcher.read_buffers(&mut [ReadAt::new(4096, &mut found)]).all().unwrap();
    assert_eq!(found, bytes);
    let refused = WriteAt::new(0, &bytes).with_options(placed(Some(3)));
    let error = dispatcher.write_buffers(&[refused]).all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_kernel_sees_the_stream_of_a_write_to_a_block_device() {
    let (attached, opened) = match LoopDevice::attach(1 << 20, 4096) {
        Ok(attached) => {
            let opened = DeviceFile::open(attached.path(), Direct::Required).unwrap();
            (attached, opened)
        }
        Err(skipped) => return skipped.report(),
    };
    let path = attached.path().file_name().unwrap().to_str().unwrap();
    if std::fs::read_to_string(format!("/sys/block/{path}/queue/max_write_streams")).is_err() {
        return Skipped::because("this kernel has no write streams").report();
    }
    assert_eq!(opened.write_streams(), 0, "a loop device has none");
    let backend = backend_on::<Standard>(opened, Scripted::default(), None, 2);
    let dispatcher = Dispatcher::new(backend).unwrap();
    let block = AlignedBuf::zeroed(4096).unwrap();
    let write = |handle| {
        let one = WriteAt::new(0, &block).with_options(placed(handle));
        dispatcher.write_buffers(&[one]).all()
    };
    write(None).unwrap();
    // The backend reported streams that the device does not have.
    let error = write(Some(1)).unwrap_err();
    let errno = error.os_error().and_then(std::io::Error::raw_os_error);
    assert_eq!(errno, Some(libc::EINVAL));
}

raw_block_core::conformance_suite!(with_handles, || {
    let file = temp_file(16 << 20)?;
    let opened = DeviceFile::open(file.path(), Direct::Preferred).unwrap();
    Ok(Subject::new(backend_on::<Standard>(opened, Scripted::default(), None, 5)).keeping(file))
});
