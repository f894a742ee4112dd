//! Keys of every length, and payloads that look like a part of the store.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use common::{
    BLOCK, bytes, flip, layout, memory, newest, payload, put_all, read, small, store_on, write,
};
use raw_block_core::backend::IoBackend;
use raw_block_store::{Error, FormatOptions, Put, Store};

const LEN: u64 = 1 << 20;

fn open(device: &Arc<dyn IoBackend>) -> Store {
    Store::open(device.clone()).unwrap()
}

/// The same store on another device.
fn copy(device: &Arc<dyn IoBackend>) -> Arc<dyn IoBackend> {
    let copy = memory(LEN);
    write(&copy, 0, &read(device, 0, usize::try_from(LEN).unwrap()));
    copy
}

#[test]
fn the_shortest_and_the_longest_keys_survive_restarts() {
    for (block_size, segment_size, longest) in [(512, 32 << 10, 384), (65536, 512 << 10, 65408)] {
        let device = memory(32 * segment_size);
        let options = FormatOptions::default().segment_size(segment_size).block_size(block_size);
        let mut store = store_on(&device, &options);
        let long = bytes(1, longest);
        let other = [&long[..longest - 1], b"!"].concat();
        let metadata = bytes(2, longest - 1);
        put_all(
            &store,
            &[
                Put::new(b"k", b"short").with_metadata(&metadata),
                Put::new(&long, &[3; 5000]),
                Put::new(&other, b"differs at its end"),
            ],
        );
        let too_long = [&long[..], b"!"].concat();
        assert!(
            matches!(store.put(&too_long, b""), Err(Error::Key { limit, .. }) if limit == longest)
        );
        let check = |store: &Store| {
            let object = store.get(b"k").unwrap().unwrap();
            assert_eq!((object.payload(), object.metadata()), (&b"short"[..], &metadata[..]));
            assert_eq!(payload(store, &long).unwrap(), [3; 5000]);
            assert_eq!(payload(store, &other).unwrap(), b"differs at its end");
            assert_eq!(payload(store, &too_long), None);
            assert_eq!(payload(store, &long[1..]), None);
        };
        check(&store);
        drop(store);
        store = open(&device);
        check(&store);
        store.close().unwrap();
        store = open(&device);
        check(&store);
        assert!(store.delete(&long).unwrap() && !store.delete(&too_long).unwrap());
        drop(store);
        assert_eq!(payload(&open(&device), &long), None);
    }
}

#[test]
fn headers_in_an_image_that_is_a_payload_do_not_count() {
    let device = memory(LEN);
    let store = store_on(&device, &small());
    let layout = layout(&device);
    let whole_segment = vec![0; usize::try_from(store.max_payload()).unwrap()];
    for round in 0..6 {
        // In a fresh segment: a slot of three blocks, and one of 21 blocks from block 4 on.
        store.put(b"fills a segment", &whole_segment).unwrap();
        store.put(b"short", &[round; 1000]).unwrap();
        store.put(b"long", &[round; 10_000]).unwrap();
        let from = newest(&device, b"long");
        assert_eq!(from.slot, layout.block_offset(from.segment, 4));
        // In another: blocks 2 to 4 of the first one as a payload in blocks 2 to 4, and after it an
        // object where the slot would be that the header in block 4 claims.
        let image = read(&device, layout.block_offset(from.segment, 2), 3 * BLOCK);
        store.put(b"fills a segment", &whole_segment).unwrap();
        store.put(b"image", &image).unwrap();
        store.put(b"after", &[round; 1000]).unwrap();
        let to = newest(&device, b"image");
        assert_eq!(to.payload, layout.block_offset(to.segment, 2));
        assert_eq!(newest(&device, b"after").slot, layout.block_offset(to.segment, 5));

        // If the header of the image is damaged, nothing says that the others lie in a payload.
        let copies = [copy(&device), copy(&device)];
        flip(&copies[1], to.slot + 100);
        for copy in copies {
            let store = open(&copy);
            assert_eq!(payload(&store, b"short").unwrap(), [round; 1000]);
            assert_eq!(payload(&store, b"long").unwrap(), [round; 10_000]);
            assert_eq!(payload(&store, b"after").unwrap(), [round; 1000], "round {round}");
        }
        assert_eq!(payload(&open(&copy(&device)), b"image").unwrap(), image[..]);
    }
}
