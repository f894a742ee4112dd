//! A batch allocates no memory per key. Alone in its file, because it counts the allocations of the
//! whole process.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{put_all, without_thread};
use raw_block_core::{AlignedBuf, Direct};
use raw_block_fixtures::zeroed_file;
use raw_block_store::{Engine, FormatOptions, Get, Put, Store, open_backend};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `start` came from `System`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `run` makes.
fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// What a put, a put of gathered payloads and a get of the first `count` keys allocate.
fn cost(store: &Store, keys: &[[u8; 2]], count: usize, buffers: &mut [AlignedBuf]) -> [u64; 3] {
    let puts: Vec<_> =
        keys[..count].iter().zip(&*buffers).map(|(key, buffer)| Put::new(key, buffer)).collect();
    let put = allocations(|| put_all(store, &puts));
    let halves: Vec<_> = buffers[..count]
        .iter()
        .map(|buffer| [&buffer[..4096], &buffer[4096..]].map(IoSlice::new))
        .collect();
    let puts: Vec<_> =
        keys[..count].iter().zip(&halves).map(|(key, halves)| Put::gather(key, halves)).collect();
    let gathered = allocations(|| put_all(store, &puts));
    let mut gets: Vec<_> =
        keys[..count].iter().zip(buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    let get = allocations(|| {
        assert!(store.get_many(&mut gets).iter().all(|found| matches!(found, Ok(Some(_)))));
    });
    [put, gathered, get]
}

#[test]
fn a_batch_allocates_nothing_per_key() {
    let file = zeroed_file(64 << 20).unwrap();
    for engine in [Engine::Uring, Engine::Posix] {
        let device = open_backend(file.path(), engine, Direct::Preferred).unwrap();
        let options = FormatOptions::default().force(true);
        Store::format(device.clone(), &options).unwrap();
        let store = Store::open_with(device, &without_thread()).unwrap();
        let keys: Vec<_> = (0..128_u16).map(u16::to_le_bytes).collect();
        let mut buffers: Vec<_> = keys.iter().map(|_| AlignedBuf::zeroed(8192).unwrap()).collect();
        // Often enough that everything is kept that is kept from batch to batch, and for the
        // threads that the engine posix spawns while it has work for them.
        let mut least = |count| {
            (0..60)
                .map(|_| cost(&store, &keys, count, &mut buffers))
                .reduce(|least, cost| std::array::from_fn(|call| least[call].min(cost[call])))
                .unwrap()
        };
        let [many, few] = [least(128), least(8)];
        // The objects of a put share slots, and each slot costs some allocations.
        let slots = 3;
        for put in 0..2 {
            assert!(many[put] <= few[put] + 3 * slots, "puts: {many:?}, {few:?}, {engine:?}");
        }
        assert!(many[2] <= few[2], "gets: {many:?}, {few:?}, {engine:?}");
    }
}
