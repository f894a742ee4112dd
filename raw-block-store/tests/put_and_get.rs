//! Putting, getting and deleting on an open store.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{bytes, check_segments, get_one, payload, put_all, store, store_on};
use raw_block_core::simulated::SimulatedDevice;
use raw_block_core::{AlignedBuf, Geometry};
use raw_block_store::{Error, FormatOptions, Get, Put};

/// Payload bytes that fit into a header block of 512 bytes after a key of three bytes.
const INLINE: usize = 512 - 128 - 3;

#[test]
fn payloads_of_every_shape_come_back_as_they_were_put() {
    let (_, store) = store(1 << 20);
    let largest = usize::try_from(store.max_payload()).unwrap();
    let lengths = [0, 1, INLINE, INLINE + 1, 511, 512, 513, 4096, 20_000, largest - 1, largest];
    let keys: Vec<_> = (0..lengths.len()).map(|number| format!("k{number:02}")).collect();
    let payloads: Vec<_> = (0..).zip(lengths).map(|(seed, len)| bytes(seed, len)).collect();
    let puts: Vec<_> =
        keys.iter().zip(&payloads).map(|(key, value)| Put::new(key.as_bytes(), value)).collect();
    put_all(&store, &puts);
    for (key, expected) in keys.iter().zip(&payloads) {
        assert_eq!(payload(&store, key.as_bytes()).as_ref(), Some(expected), "{key}");
    }

    let mut buffers: Vec<_> = lengths.iter().map(|len| vec![0xEE; len + 7]).collect();
    let mut gets: Vec<_> = keys
        .iter()
        .zip(&mut buffers)
        .map(|(key, buffer)| Get::new(key.as_bytes(), buffer))
        .collect();
    let found = store.get_many(&mut gets);
    for ((found, expected), buffer) in found.into_iter().zip(&payloads).zip(&buffers) {
        assert_eq!(found.unwrap().unwrap().payload_len, expected.len());
        assert_eq!(&buffer[..expected.len()], expected);
        assert_eq!(&buffer[expected.len()..], [0xEE; 7], "nothing after the payload is touched");
    }
}

#[test]
fn metadata_comes_back_with_the_payload() {
    let (_, store) = store(1 << 20);
    let payload = bytes(1, 8192);
    put_all(&store, &[Put::new(b"key", &payload).with_metadata(b"f16, 2x2048")]);
    let object = store.get(b"key").unwrap().unwrap();
    assert_eq!((object.payload(), object.metadata()), (&payload[..], &b"f16, 2x2048"[..]));

    let (mut buffer, mut metadata) = (vec![0; 8192], [0; 64]);
    let get = Get::new(b"key", &mut buffer).with_metadata(&mut metadata);
    let found = store.get_many(&mut [get]).remove(0).unwrap().unwrap();
    assert_eq!(&metadata[..found.metadata_len], b"f16, 2x2048");
}

#[test]
fn a_key_that_was_never_put_is_a_miss() {
    let (_, store) = store(1 << 20);
    put_all(&store, &[Put::new(b"there", b"x")]);
    assert!(store.get(b"elsewhere").unwrap().is_none());
    assert!(store.contains(b"there").unwrap() && !store.contains(b"elsewhere").unwrap());
    assert_eq!((store.stats().hits, store.stats().misses), (0, 1));
}

#[test]
fn an_empty_batch_is_empty() {
    let (_, store) = store(1 << 20);
    assert!(store.put_many(&[]).is_empty());
    assert!(store.get_many(&mut []).is_empty());
    assert!(store.delete_many(&[]).is_empty());
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_is_put() {
    let (_, store) = store(1 << 20);
    let long_key = vec![b'k'; 512 - 128 + 1];
    let long_payload = vec![0; usize::try_from(store.max_payload()).unwrap() + 1];
    let results = store.put_many(&[
        Put::new(b"first", b"1"),
        Put::new(b"", b"no key"),
        Put::new(&long_key, b"long key"),
        Put::new(b"key", b"long metadata").with_metadata(&long_key),
        Put::new(b"payload", &long_payload),
        Put::new(b"last", b"2"),
    ]);
    assert!(results[0].is_ok() && results[5].is_ok());
    assert!(matches!(results[1], Err(Error::Key { key_len: 0, limit: 384, .. })));
    assert!(matches!(results[2], Err(Error::Key { key_len: 385, .. })));
    assert!(matches!(results[3], Err(Error::Key { metadata_len: 385, .. })));
    assert!(matches!(results[4], Err(Error::PayloadTooLarge { len, limit })
        if len as u64 == limit + 1 && limit == store.max_payload()));
    assert_eq!(payload(&store, b"first").unwrap(), b"1");
    assert_eq!(payload(&store, b"last").unwrap(), b"2");
    assert!(store.put(&long_key[1..], b"").is_ok(), "the longest key there is");
}

#[test]
fn of_two_puts_of_a_key_in_one_batch_the_later_wins() {
    let (_, store) = store(1 << 20);
    let puts = [Put::new(b"key", b"first"), Put::new(b"other", b"x"), Put::new(b"key", b"second")];
    put_all(&store, &puts);
    assert_eq!(payload(&store, b"key").unwrap(), b"second");
    assert_eq!(store.stats().objects, 2);
}

#[test]
fn a_key_can_be_got_twice_in_one_batch() {
    let (_, store) = store(1 << 20);
    let value = bytes(1, 8192);
    store.put(b"key", &value).unwrap();
    let (mut one, mut two) = (vec![0; 8192], vec![0; 8192]);
    let found = store.get_many(&mut [Get::new(b"key", &mut one), Get::new(b"key", &mut two)]);
    assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
    assert!(one == value && two == value);
}

#[test]
fn aligned_memory_is_written_and_read_without_a_copy() {
    let (_, store) = store(1 << 20);
    let staged = || store.dispatcher().stats().staged_bytes;
    let before = staged();
    let mut buffer = AlignedBuf::zeroed(8192).unwrap();
    buffer.copy_from_slice(&bytes(1, 8192));
    put_all(&store, &[Put::new(b"key", &buffer)]);
    let mut found = AlignedBuf::zeroed(8192).unwrap();
    assert_eq!(get_one(&store, b"key", &mut found).unwrap(), Some(8192));
    assert!(found[..] == buffer[..]);
    assert_eq!(staged(), before);
}

#[test]
fn a_buffer_that_is_too_small_is_said_to_be() {
    let (_, store) = store(1 << 20);
    put_all(&store, &[Put::new(b"key", &[1; 8192]).with_metadata(b"meta")]);
    assert!(matches!(
        get_one(&store, b"key", &mut [0; 8191]),
        Err(Error::BufferTooSmall { what: "payload", needed: 8192, given: 8191 })
    ));
    let (mut payload, mut metadata) = ([0; 8192], [0; 3]);
    let get = Get::new(b"key", &mut payload).with_metadata(&mut metadata);
    assert!(matches!(
        store.get_many(&mut [get]).remove(0),
        Err(Error::BufferTooSmall { what: "metadata", needed: 4, given: 3 })
    ));
}

#[test]
fn an_overwrite_replaces_and_a_delete_removes() {
    let (_, store) = store(1 << 20);
    store.put(b"a", b"one").unwrap();
    store.put(b"b", b"keep").unwrap();
    store.put(b"a", b"two").unwrap();
    assert_eq!(payload(&store, b"a").unwrap(), b"two");
    let deleted: Vec<_> =
        store.delete_many(&[b"a", b"never"]).into_iter().map(Result::unwrap).collect();
    assert_eq!(deleted, [true, false]);
    assert_eq!(payload(&store, b"a"), None);
    assert_eq!(payload(&store, b"b").unwrap(), b"keep");
    store.put(b"a", b"three").unwrap();
    assert_eq!(payload(&store, b"a").unwrap(), b"three");
}

#[test]
fn a_full_store_takes_puts_again_after_deletes() {
    let (_, store) = store(1 << 20);
    let value = bytes(1, 5000);
    let keys: Vec<_> = (0..300_u32).map(u32::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &value)).collect();
    let results = store.put_many(&puts);
    let count = results.iter().take_while(|result| result.is_ok()).count();
    assert!(count > 100, "{count}");
    let is_full = |result: &Result<(), Error>| matches!(result, Err(Error::OutOfSpace { objects, .. }) if *objects == count as u64);
    assert!(results[count..].iter().all(is_full), "{:?}", results[count]);
    // Six objects fill a segment. Space is gained by segments: deleting those of two makes space
    // for those of one.
    let (deleted, kept) = keys[..count].split_at(12);
    for key in deleted {
        assert!(store.delete(key).unwrap());
    }
    put_all(&store, &puts[count..count + 6]);
    for key in kept.iter().chain(&keys[count..count + 6]) {
        assert_eq!(payload(&store, key).unwrap(), value);
    }
}

#[test]
fn deletes_never_fill_a_store() {
    let (_, store) = store(1 << 20);
    for round in 0..2000_u64 {
        store.put(&round.to_le_bytes(), b"x").unwrap();
        assert!(store.delete(&round.to_le_bytes()).unwrap());
    }
    // In one call, more keys than a segment has tombstones.
    let keys: Vec<_> = (0..30_000_u64).map(u64::to_le_bytes).collect();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    store.put(&29_999_u64.to_le_bytes(), b"x").unwrap();
    let deleted = store.delete_many(&keys);
    assert_eq!(deleted.len(), 30_000);
    assert_eq!(deleted.into_iter().map(Result::unwrap).filter(|&present| present).count(), 1);
    assert_eq!(store.stats().objects, 0);
    check_segments(&store);
}

#[test]
fn a_batch_is_one_submission_and_of_large_puts_two() {
    let (_, store) = store(64 << 20);
    for (len, submissions) in [(8 << 10, 1), (256 << 10, 2)] {
        let value = bytes(1, len);
        let keys: Vec<_> = (0..16_u8).map(|key| [key]).collect();
        let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &value)).collect();
        let before = store.dispatcher().stats().submissions;
        put_all(&store, &puts);
        let between = store.dispatcher().stats().submissions;
        // The headers of large objects are submitted later than their payloads.
        assert_eq!(between - before, submissions, "{len}");
        let mut buffers = vec![vec![0; len]; 16];
        let mut gets: Vec<_> =
            keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
        let found = store.get_many(&mut gets);
        assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
        assert_eq!(store.dispatcher().stats().submissions - between, 1);
    }
}

#[test]
fn small_objects_of_a_batch_share_a_header_and_are_one_transfer() {
    let (_, store) = store(16 << 20);
    let value = bytes(1, 4096);
    // As many as fit one header block of 512 bytes.
    let keys: Vec<_> = (0..8_u8).map(|key| [key]).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &value)).collect();
    store.put(b"first", &value).unwrap();
    let before = store.dispatcher().stats();
    put_all(&store, &puts);
    let after = store.dispatcher().stats();
    assert_eq!(after.transfers - before.transfers, 8 + 1);
    assert_eq!(after.ops - before.ops, 1);
    assert_eq!(after.written_bytes - before.written_bytes, 8 * 4096 + 512);
}

#[test]
fn the_header_of_objects_that_share_it_is_read_once() {
    let (_, store) = store(16 << 20);
    let value = bytes(1, 4096);
    let keys: Vec<_> = (0..4_u8).map(|key| [key]).collect();
    let put = |key| Put::new(key, &value).with_metadata(key);
    put_all(&store, &keys.iter().map(|key| put(key)).collect::<Vec<_>>());
    let mut payloads = vec![vec![0; 4096]; 4];
    let mut metadata = [[0]; 4];
    let mut gets: Vec<_> = keys
        .iter()
        .zip(payloads.iter_mut().zip(&mut metadata))
        .map(|(key, (payload, metadata))| Get::new(key, payload).with_metadata(metadata))
        .collect();
    gets.swap(1, 3);
    let before = store.dispatcher().stats();
    store.get_many(&mut gets).all().unwrap();
    let after = store.dispatcher().stats();
    assert_eq!(after.read_bytes - before.read_bytes, 4 * 4096 + 512);
    assert_eq!(after.ops - before.ops, 1);
    assert_eq!(metadata, *keys);
    assert!(payloads.iter().all(|payload| *payload == value));
}

#[test]
fn a_batch_of_ten_thousand_small_objects_is_put_and_got() {
    let (_, store) = store(64 << 20);
    let keys: Vec<_> = (0..10_000_u32).map(u32::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, key)).collect();
    put_all(&store, &puts);
    let mut buffers = vec![[0; 4]; keys.len()];
    let mut gets: Vec<_> =
        keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    assert!(store.get_many(&mut gets).iter().all(|found| matches!(found, Ok(Some(_)))));
    assert_eq!(buffers, keys);
}

#[test]
fn threads_never_see_the_bytes_of_each_other() {
    let (_, store) = store(1 << 20);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..100 {
                    let key = format!("{thread}/{}", round % 5);
                    let value = bytes(thread << 32 | round, 5000 + usize::try_from(round).unwrap());
                    store.put(key.as_bytes(), &value).unwrap();
                    assert_eq!(payload(store, key.as_bytes()).unwrap(), value);
                    if round % 3 == 0 {
                        assert!(store.delete(key.as_bytes()).unwrap());
                        assert_eq!(payload(store, key.as_bytes()), None);
                    }
                }
            });
        }
    });
    check_segments(&store);
}

#[test]
fn no_payload_is_longer_than_its_length_can_say() {
    let geometry = Geometry::new(66 << 30, 512).unwrap();
    let device = SimulatedDevice::new(geometry, 1).unwrap();
    let options = FormatOptions::default().segment_size(8 << 30).block_size(65_536);
    let store = store_on(&device.backend(), &options);
    assert_eq!(store.max_payload(), u32::MAX.into());
}
