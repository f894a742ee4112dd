//! What a batch costs above the device: the check whether it can go as it is, and its whole way
//! through the dispatcher to a device in memory.
//!
//! The device copies each byte once, so that part of a batch is the same in every case; what
//! differs between the cases is the dispatcher's.

#![allow(clippy::unwrap_used, reason = "a benchmark panics to fail")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use raw_block_core::{AlignedBuf, Dispatcher, Geometry, MemoryBackend, WriteAt, can_batch};

/// Bytes of one transfer on the device.
const LEN: usize = 4096;
/// Transfers in a batch that is written.
const BATCH: usize = 32;

/// Buffers of one transfer each, contiguous in aligned memory.
fn buffers(count: usize) -> AlignedBuf {
    let mut memory = AlignedBuf::zeroed(count * LEN).unwrap();
    memory.fill(7);
    memory
}

/// A write from each of the buffers, of which `payload` bytes are the payload, `distance` bytes
/// from one to the next on the device.
fn writes(memory: &[u8], payload: usize, distance: usize) -> Vec<WriteAt<'_>> {
    let offsets = (0..).step_by(distance);
    memory
        .chunks(LEN)
        .zip(offsets)
        .map(|(buffer, offset)| WriteAt::new(offset, &buffer[..payload]).padded_to(LEN as u64))
        .collect()
}

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("can_batch");
    let geometry = Geometry::new(1 << 30, 512).unwrap();
    for count in [BATCH, 1024] {
        let memory = buffers(count);
        let batch = writes(&memory, LEN, 2 * LEN);
        assert!(can_batch(&batch, &geometry), "the slowest answer is the one without an exception");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| can_batch(black_box(&batch), black_box(&geometry)));
        });
    }
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write_buffers");
    group.throughput(Throughput::Elements(BATCH as u64));
    let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 30).unwrap())).unwrap();
    let memory = buffers(BATCH);
    // Each with whether the dispatcher copies part of it, and whether it merges it, which is
    // checked.
    let cases = [
        ("aligned", LEN, 2 * LEN, false, false),
        ("padded", LEN - 100, 2 * LEN, true, false),
        ("neighbouring", LEN, LEN, false, true),
    ];
    for (name, payload, distance, staged, merged) in cases {
        let batch = writes(&memory, payload, distance);
        let before = device.stats();
        device.write_buffers(&batch).all().unwrap();
        let after = device.stats();
        assert_eq!(after.staged_bytes > before.staged_bytes, staged, "{name}");
        assert_eq!(after.ops - before.ops < BATCH as u64, merged, "{name}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| device.write_buffers(black_box(&batch)).all().unwrap());
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    check(&mut criterion);
    write(&mut criterion);
    criterion.final_summary();
}
