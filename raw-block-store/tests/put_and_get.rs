//! Putting, getting and deleting on an open store.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{bytes, get_one, payload, put_all, read, store, store_on, superblock};
use raw_block_store::{Error, FormatOptions, Get, Put};

/// What fits into a header block of 4096 bytes beside a key of three bytes.
const INLINE: usize = 4096 - 128 - 3;

#[test]
fn payloads_of_every_shape_come_back_as_they_were_put() {
    let (_, store) = store(64 << 10, 100);
    let lengths = [0, 1, 511, 512, INLINE, INLINE + 1, 4095, 4096, 4097, 60_000, 64 << 10];
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
        assert_eq!(&buffer[expected.len()..], [0xEE; 7], "nothing behind the payload is touched");
    }
}

#[test]
fn metadata_comes_back_beside_the_payload() {
    let (_, store) = store(8192, 10);
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
    let (_, store) = store(4096, 10);
    put_all(&store, &[Put::new(b"there", b"x")]);
    assert!(store.get(b"elsewhere").unwrap().is_none());
    assert!(store.contains(b"there") && !store.contains(b"elsewhere"));
    assert_eq!((store.stats().hits, store.stats().misses), (0, 1));
}

#[test]
fn an_empty_batch_is_empty() {
    let (_, store) = store(4096, 10);
    assert!(store.put_many(&[]).is_empty());
    assert!(store.get_many(&mut []).is_empty());
    assert!(store.delete_many(&[]).is_empty());
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_of_its_batch_is_put() {
    let (_, store) = store(8192, 10);
    let long_key = vec![b'k'; 4096 - 128 + 1];
    let long_payload = vec![0; 8193];
    let results = store.put_many(&[
        Put::new(b"first", b"1"),
        Put::new(b"", b"no key"),
        Put::new(&long_key, b"long key"),
        Put::new(b"key", b"long metadata").with_metadata(&long_key),
        Put::new(b"payload", &long_payload),
        Put::new(b"last", b"2"),
    ]);
    assert!(results[0].is_ok() && results[5].is_ok());
    assert!(matches!(results[1], Err(Error::Key { key_len: 0, limit: 3968, .. })));
    assert!(matches!(results[2], Err(Error::Key { key_len: 3969, .. })));
    assert!(matches!(results[3], Err(Error::Key { metadata_len: 3969, .. })));
    assert!(matches!(results[4], Err(Error::PayloadTooLarge { len: 8193, limit: 8192 })));
    assert_eq!(payload(&store, b"first").unwrap(), b"1");
    assert_eq!(payload(&store, b"last").unwrap(), b"2");
    assert!(store.put(&long_key[1..], b"").is_ok(), "the longest key there is");
}

#[test]
fn of_two_puts_of_a_key_in_one_batch_the_later_wins() {
    let (_, store) = store(4096, 10);
    let puts = [Put::new(b"key", b"first"), Put::new(b"other", b"x"), Put::new(b"key", b"second")];
    put_all(&store, &puts);
    assert_eq!(payload(&store, b"key").unwrap(), b"second");
    let stats = store.stats();
    assert_eq!((stats.live_slots, stats.waiting_slots, stats.free_slots), (2, 1, 7));
}

#[test]
fn a_key_can_be_got_twice_in_one_batch() {
    let (_, store) = store(8192, 10);
    let value = bytes(1, 8192);
    store.put(b"key", &value).unwrap();
    let (mut one, mut two) = (vec![0; 8192], vec![0; 8192]);
    let found = store.get_many(&mut [Get::new(b"key", &mut one), Get::new(b"key", &mut two)]);
    assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
    assert!(one == value && two == value);
}

#[test]
fn an_object_in_a_slot_buffer_is_one_piece_of_memory() {
    let (device, store) = store(8192, 10);
    let pool = store.slot_pool(3).unwrap();
    let mut buffers: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((buffers.len(), pool.count(), pool.available()), (3, 3, 0));
    let expected = bytes(1, 8192);
    buffers[0].copy_from_slice(&expected);
    {
        let (room, payload) = buffers[0].split();
        assert_eq!(room.as_ptr() as usize + room.len(), payload.as_ptr() as usize);
        let puts = [Put::new(b"key", payload).with_room(room)];
        // The room is there again for the next batch.
        for _ in 0..2 {
            put_all(&store, &puts);
        }
    }
    let slots = superblock(&device).slots_offset.get();
    let slot_size = superblock(&device).slot_size.get();
    let (room, payload) = buffers[0].split();
    let written = [&*room, &*payload].concat();
    let found = read(&device, slots + slot_size, written.len());
    assert!(*found == *written, "header and payload lie in the second slot");

    let (room, payload) = buffers[1].split();
    let found = store.get_many(&mut [Get::new(b"key", payload).with_room(room)]).remove(0);
    assert_eq!(found.unwrap().unwrap().payload_len, 8192);
    assert_eq!(&buffers[1][..], expected);
    assert_eq!(buffers[1].split().0, &written[..4096], "the header is in the room");
    assert_eq!(device.stats().snapshot().staged_bytes, 0);
}

#[test]
fn room_of_another_length_than_a_block_is_not_used() {
    let (_, store) = store(8192, 10);
    for len in [0, 512, 8192] {
        let (mut room, value) = (vec![0xEE; len], bytes(len as u64, 5000));
        put_all(&store, &[Put::new(b"key", &value).with_room(&mut room)]);
        let mut payload = vec![0; 5000];
        let get = Get::new(b"key", &mut payload).with_room(&mut room);
        assert!(matches!(store.get_many(&mut [get]).remove(0), Ok(Some(_))));
        assert_eq!(payload, value);
        assert_eq!(room, vec![0xEE; len]);
    }
}

#[test]
fn a_buffer_that_is_too_small_is_said_to_be() {
    let (_, store) = store(8192, 10);
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
    let (_, store) = store(4096, 10);
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
fn a_full_store_says_so_and_takes_puts_again_after_a_delete() {
    let (_, store) = store(4096, 4);
    let keys = [b"0", b"1", b"2", b"3", b"4", b"5"];
    let results = store.put_many(&keys.map(|key| Put::new(key, key)));
    assert!(results[..4].iter().all(Result::is_ok));
    assert!(results[4..].iter().all(|result| matches!(result, Err(Error::Full { slots: 4, .. }))));
    assert!(store.delete_many(&[b"1"]).remove(0).unwrap());
    store.put(b"new", b"value").unwrap();
    assert_eq!(payload(&store, b"new").unwrap(), b"value");
    assert!(matches!(store.put(b"more", b"value"), Err(Error::Full { .. })));
}

#[test]
fn overwriting_for_ever_needs_no_more_slots_than_one_to_spare() {
    let (_, store) = store(4096, 3);
    store.put(b"other", b"stays").unwrap();
    for round in 0..50_u64 {
        store.put(b"key", &round.to_le_bytes()).unwrap();
        assert_eq!(payload(&store, b"key").unwrap(), round.to_le_bytes());
    }
    assert_eq!(payload(&store, b"other").unwrap(), b"stays");
    assert!(store.stats().checkpoints > 10);
}

#[test]
fn deletes_go_on_when_the_log_is_full() {
    let (_, store) = store(512, 2000);
    // The log has 64 blocks; each call takes one at least.
    for round in 0..200_u64 {
        store.put(&round.to_le_bytes(), b"x").unwrap();
        assert!(store.delete_many(&[&round.to_le_bytes()]).remove(0).unwrap());
    }
    // And more records in one call than the whole log has.
    let keys: Vec<_> = (0..30_000_u64).map(u64::to_le_bytes).collect();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    store.put(&29_999_u64.to_le_bytes(), b"x").unwrap();
    let deleted = store.delete_many(&keys);
    assert_eq!(deleted.len(), 30_000);
    assert_eq!(deleted.into_iter().map(Result::unwrap).filter(|&there| there).count(), 1);
    assert_eq!(store.stats().live_slots, 0);
    assert!(store.stats().checkpoints >= 4);
}

#[test]
fn a_batch_is_one_submission() {
    let (_, store) = store(256 << 10, 64);
    let value = bytes(1, 256 << 10);
    let keys: Vec<_> = (0..32_u8).map(|key| [key]).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &value)).collect();
    let before = store.device().stats();
    put_all(&store, &puts);
    let between = store.device().stats();
    assert_eq!(between.submissions - before.submissions, 1);
    let mut buffers = vec![vec![0; 256 << 10]; 32];
    let mut gets: Vec<_> =
        keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    let found = store.get_many(&mut gets);
    assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
    assert_eq!(store.device().stats().submissions - between.submissions, 1);
}

#[test]
fn small_objects_put_together_are_merged_into_few_transfers() {
    let (_, store) = store(4096, 64);
    let value = bytes(1, 4096);
    let keys: Vec<_> = (0..32_u8).map(|key| [key]).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &value)).collect();
    let before = store.device().stats();
    put_all(&store, &puts);
    let after = store.device().stats();
    assert_eq!(after.transfers - before.transfers, 32);
    assert_eq!(after.merged_transfers - before.merged_transfers, 32);
    assert_eq!(after.ops - before.ops, 1, "32 slots of 8 KiB are 256 KiB");
    assert_eq!(after.written_bytes - before.written_bytes, 32 * 8192);
}

#[test]
fn a_batch_of_a_hundred_thousand_small_objects_is_put_and_got() {
    let device = common::memory(256 << 20);
    let options = FormatOptions { block_size: Some(512), ..FormatOptions::for_payloads(0) };
    let store = store_on(&device, &options);
    let keys: Vec<_> = (0..100_000_u32).map(u32::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, key)).collect();
    put_all(&store, &puts);
    let mut buffers = vec![[0; 4]; keys.len()];
    let mut gets: Vec<_> =
        keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    assert!(store.get_many(&mut gets).iter().all(|found| matches!(found, Ok(Some(_)))));
    assert_eq!(buffers, keys);
}

#[test]
fn many_threads_put_get_and_delete_without_seeing_each_others_bytes() {
    let (_, store) = store(8192, 100);
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
                        assert!(store.delete_many(&[key.as_bytes()]).remove(0).unwrap());
                        assert_eq!(payload(store, key.as_bytes()), None);
                    }
                }
            });
        }
    });
    let stats = store.stats();
    assert_eq!(stats.live_slots + stats.free_slots + stats.waiting_slots, stats.slots);
}
