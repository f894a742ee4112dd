//! Memory that an open store takes for each key. Alone in its file, because it counts what the
//! whole process allocates.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{memory, put_all, store_on, without_thread};
use raw_block_store::{EvictionPolicy, FormatOptions, Put, Store};

struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and `start` came from `System`.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Objects. The 300 KB that an empty store takes are little next to them.
const KEYS: u64 = 80_000;

#[test]
fn an_open_store_takes_at_most_64_bytes_a_key() {
    let device = memory(64 << 20);
    let options = FormatOptions::default().block_size(512);
    let store = store_on(&device, &options);
    let keys: Vec<_> = (0..KEYS).map(u64::to_le_bytes).collect();
    for keys in keys.chunks(1000) {
        put_all(&store, &keys.iter().map(|key| Put::new(key, b"")).collect::<Vec<_>>());
    }
    store.close().unwrap();
    for eviction in [EvictionPolicy::None, EvictionPolicy::S3Fifo] {
        for clean in [true, false] {
            let before = IN_USE.load(Ordering::Relaxed);
            let options = without_thread().eviction(eviction);
            let store = Store::open_with(device.clone(), &options).unwrap();
            let taken = IN_USE.load(Ordering::Relaxed) - before;
            let stats = store.stats();
            assert_eq!(stats.objects, KEYS);
            assert!(stats.index_memory <= taken as u64, "{taken} bytes, {stats:?}");
            let per_key = taken as f64 / KEYS as f64;
            println!("{per_key:.1} bytes a key, {eviction:?}, clean: {clean}");
            assert!(per_key <= 64.0, "{per_key} bytes a key, {eviction:?}, clean: {clean}");
            // The next opening finds the store open, the one after that closed.
            if clean { drop(store) } else { store.close().unwrap() }
        }
    }
}
