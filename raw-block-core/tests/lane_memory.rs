//! What a dispatcher keeps from batch to batch. Alone in its file, because it counts what the whole
//! process allocates.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use raw_block_core::{
    AlignedBuf, Dispatcher, Geometry, MemoryBackend, OwnedTransfer, ReadAt, WriteAt,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `start` came from `System`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Transfers of a long batch.
const MANY: usize = 50_000;
/// What may be kept after it, in bytes: it needs eight times as much.
const KEPT: usize = 2 << 20;

/// Reads of every other block, so that nothing is merged.
fn read(device: &Dispatcher, memory: &mut [[u8; 512]]) {
    let mut batch: Vec<_> = (0..)
        .zip(memory)
        .map(|(number, found)| ReadAt::new(1024 * (number % 500), found))
        .collect();
    device.read_buffers(&mut batch).all().unwrap();
}

fn write(device: &Dispatcher, memory: &[[u8; 512]]) {
    let batch: Vec<_> =
        (0..).zip(memory).map(|(number, bytes)| WriteAt::new(1024 * number, bytes)).collect();
    device.write_buffers(&batch).all().unwrap();
}

fn read_by_ticket(device: &Dispatcher, count: usize) {
    let batch = (0..count)
        .map(|number| OwnedTransfer::new(1024 * number as u64, AlignedBuf::zeroed(512).unwrap()))
        .collect();
    let all = device.batched_read(batch).unwrap().wait();
    assert!(all.into_iter().all(|finished| finished.result.is_ok()));
}

#[test]
fn a_long_batch_leaves_little_memory_allocated() {
    // Any memory is direct, so that what is counted are the lists.
    let mut geometry = Geometry::new(1 << 30, 512).unwrap();
    geometry.memory_alignment = 1;
    let device = Dispatcher::new(Arc::new(MemoryBackend::with_geometry(geometry))).unwrap();
    let mut memory = vec![[1; 512]; MANY];
    write(&device, &memory[..500]);
    read(&device, &mut memory[..16]);
    read_by_ticket(&device, 16);

    let before = HELD.load(Ordering::Relaxed);
    read(&device, &mut memory);
    let kept = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(kept <= KEPT, "a batch of {MANY} reads left {kept} bytes allocated");
    read_by_ticket(&device, MANY);
    let kept = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(kept <= KEPT, "and a ticket as long {kept} bytes");

    // What is kept is enough for batches of some thousand, which allocate no more than those of a
    // few.
    let mut allocations = |count: usize| {
        read(&device, &mut memory[..count]);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        read(&device, &mut memory[..count]);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    let (few, many) = (allocations(8), allocations(4096));
    assert!(many <= few, "{many} allocations for 4096 reads, {few} for 8");
}
