//! Payloads that are gathered from several slices.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::IoSlice;
use std::ops::ControlFlow;

use common::{bytes, payload, store};
use raw_block_core::{AlignedBuf, WriteAt};
use raw_block_store::{Error, Put, Store};

/// A payload in slices of these lengths.
fn slices<'a>(mut payload: &'a [u8], lengths: &[usize]) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::new();
    for &len in lengths {
        let (first, rest) = payload.split_at(len);
        slices.push(IoSlice::new(first));
        payload = rest;
    }
    slices
}

#[test]
fn gathered_payloads_come_back_in_one_piece() {
    let (device, store) = store(64 << 20);
    let many: Vec<usize> = (0..3000).map(|number| 7 * number % 800).collect();
    let lists = [
        vec![],
        vec![0],
        vec![100, 0, 150],
        vec![512, 512],
        vec![511, 1, 513],
        vec![1, 4096, 4096, 7],
        vec![1 << 20, 1, (1 << 19) - 1],
        many,
    ];
    let keys: Vec<_> = (0..lists.len()).map(|key| [b'a' + u8::try_from(key).unwrap()]).collect();
    let payloads: Vec<_> =
        (0..).zip(&lists).map(|(seed, of)| bytes(seed, of.iter().sum())).collect();
    let gathered: Vec<_> = payloads.iter().zip(&lists).map(|(of, list)| slices(of, list)).collect();
    let mut puts: Vec<_> =
        keys.iter().zip(&gathered).map(|(key, of)| Put::gather(key, of)).collect();
    puts[2] = puts[2].with_metadata(b"inline");
    puts.push(Put::new(b"one", &payloads[6]));
    store.put_many(&puts).all().unwrap();
    assert_eq!(store.get(&keys[2]).unwrap().unwrap().metadata(), b"inline");
    // A recovery and a scrub verify the same bytes.
    drop(store);
    let store = Store::open(device).unwrap();
    for (key, expected) in keys.iter().zip(&payloads) {
        assert_eq!(payload(&store, key).as_ref(), Some(expected), "{key:?}");
    }
    assert_eq!(payload(&store, b"one").unwrap(), payloads[6]);
    assert!(store.scrub(|_| ControlFlow::Continue(())).unwrap().findings.is_empty());
}

#[test]
fn slices_of_whole_blocks_are_written_without_a_copy() {
    let (_, store) = store(16 << 20);
    let memory = AlignedBuf::zeroed(64 << 10).unwrap();
    // Apart in memory, and the last one does not fill its block.
    let apart = [&memory[..4096], &memory[16_384..24_576], &memory[32_768..33_780]];
    let list = apart.map(IoSlice::new);
    let before = store.dispatcher().stats();
    store.put_many(&[Put::gather(b"key", &list)]).all().unwrap();
    let after = store.dispatcher().stats();
    assert_eq!(after.batches - before.batches, 1);
    assert_eq!(after.staged_bytes - before.staged_bytes, 512);
    assert_eq!(payload(&store, b"key").unwrap(), apart.concat());
}

#[test]
fn a_gathered_payload_that_does_not_fit_is_refused() {
    let (_, store) = store(1 << 20);
    let largest = usize::try_from(store.max_payload()).unwrap();
    let memory = vec![7; largest];
    let long = [IoSlice::new(&memory), IoSlice::new(&memory[..1])];
    // The same memory again and again is longer than any memory.
    let longest = vec![IoSlice::new(&memory); 1 << 19];
    let many = vec![IoSlice::new(&[]); WriteAt::MAX_SEGMENTS + 1];
    let puts = [
        Put::gather(b"fits", &long[..1]),
        Put::gather(b"long", &long),
        Put::gather(b"longest", &longest),
        Put::gather(b"many", &many),
    ];
    let results = store.put_many(&puts);
    assert!(results[0].is_ok());
    for (result, expected) in results[1..3].iter().zip([largest + 1, largest << 19]) {
        assert!(matches!(result, Err(Error::PayloadTooLarge { len, .. }) if *len == expected));
    }
    let Err(error @ Error::TooManySlices { .. }) = &results[3] else { panic!("{results:?}") };
    assert_eq!(
        error.to_string(),
        "a payload in 1048577 slices cannot be put: join some, at most 1048576 are written"
    );
    assert_eq!((store.stats().objects, store.stats().bad_segments), (1, 0));
}
