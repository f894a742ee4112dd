//! Keys of every length, and payloads that look like a part of the store.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use common::{bytes, flip, layout, memory, newest, payload, put_all, read, small, store_on, write};
use raw_block_core::IoBackend;
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
        let options = FormatOptions {
            segment_size: Some(segment_size),
            block_size: Some(block_size),
            ..FormatOptions::default()
        };
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
    let mut store = store_on(&device, &small());
    let keys = [b"a", b"b", b"c", b"d"];
    let put_keys = |store: &Store, fill| {
        let value = [fill; 3000];
        put_all(store, &keys.map(|key| Put::new(key, &value)));
    };
    let layout = layout(&device);
    let image_len = usize::try_from(store.max_payload()).unwrap();
    let (mut places, mut previous) = (Vec::new(), None::<Vec<u8>>);
    for fill in 1..=24 {
        if fill % 3 == 0 {
            store.put(b"shift", &vec![0; image_len]).unwrap();
        }
        store.put(b"deleted", &[fill; 100]).unwrap();
        put_keys(&store, fill - 1);
        let segment = newest(&device, b"a").segment;
        store.delete(b"deleted").unwrap();
        put_keys(&store, fill);
        // The payload of an object alone in its segment begins with the third block, and so does this part of another
        // segment: all headers in it are in the right block, and sometimes in the right segment.
        let image = read(&device, layout.block_offset(segment, 2), image_len);
        store.put(b"image", &image).unwrap();
        let version = newest(&device, b"image");
        assert_eq!(version.payload, layout.block_offset(version.segment, 2));
        places.push((version.segment, segment));

        // The headers count least if nothing says that they lie in a payload.
        let copies = [copy(&device), copy(&device)];
        flip(&copies[1], version.slot + 100);
        for (damaged, copy) in [false, true].into_iter().zip(copies) {
            let store = open(&copy);
            assert!(keys.iter().all(|key| payload(&store, *key).unwrap() == [fill; 3000]));
            assert_eq!(payload(&store, b"deleted"), None);
            // A header that is damaged looks like that of a put which never reached the device.
            let expected = if damaged { previous.as_deref() } else { Some(&image[..]) };
            assert!(payload(&store, b"image").as_deref() == expected, "round {fill}, {damaged}");
        }
        previous = Some(image.to_vec());
        if fill % 7 == 0 {
            drop(store);
            store = open(&device);
        }
    }
    let repeated = |(of_image, _): &(u32, u32)| places.iter().any(|(_, from)| from == of_image);
    assert!(places.iter().any(repeated), "no image lies where one was taken: {places:?}");
}
