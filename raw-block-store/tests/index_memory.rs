//! What an open store keeps in memory for each key. Alone in its file, because it counts what the whole
//! process allocates.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::put_all;
use raw_block_core::{IoBackend, MemoryBackend};
use raw_block_store::{EvictionPolicy, FormatOptions, OpenOptions, Put, Store, Verification};

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

#[test]
fn an_open_store_takes_at_most_64_bytes_a_key() {
    // With the first number the tables have the most room to spare.
    for slots in [214_400, 200_000_u64] {
        let device: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(256 << 20).unwrap());
        let options = FormatOptions {
            slot_count: Some(slots),
            block_size: Some(512),
            ..FormatOptions::for_payloads(0)
        };
        Store::format(device.clone(), &options).unwrap();
        let store = Store::open(device.clone()).unwrap();
        let keys: Vec<_> = (0..slots).map(u64::to_le_bytes).collect();
        for keys in keys.chunks(1000) {
            put_all(&store, &keys.iter().map(|key| Put::new(key, b"value")).collect::<Vec<_>>());
        }
        store.close().unwrap();

        for eviction in [EvictionPolicy::None, EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
            for clean in [true, false] {
                let before = IN_USE.load(Ordering::Relaxed);
                let verification = Verification::Header;
                let options = OpenOptions { eviction, verification, ..OpenOptions::default() };
                let store = Store::open_with(device.clone(), &options).unwrap();
                let taken = IN_USE.load(Ordering::Relaxed) - before;
                assert_eq!(store.stats().live_slots, slots);
                let per_key = taken as f64 / slots as f64;
                assert!(per_key <= 64.0, "{per_key} bytes a key, {eviction:?}, clean: {clean}");
                println!("{per_key:.1} bytes a key, {eviction:?}, {slots} slots");
                // The next one finds it not closed in order, the one after that closed.
                if clean { drop(store) } else { store.close().unwrap() }
            }
        }
    }
}
