//! A store on a file and on a block device, written with one engine and read with another.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{bytes, payload, put_all, store_on};
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_fixtures::{LoopDevice, without_io_uring, zeroed_file};
use raw_block_store::{Engine, Error, FormatOptions, Get, OpenOptions, Put, Store, open_backend};

const LEN: u64 = 32 << 20;

/// The ways to reach a device.
const WAYS: [(Engine, Direct); 4] = [
    (Engine::Uring, Direct::Preferred),
    (Engine::Posix, Direct::Preferred),
    (Engine::Posix, Direct::Off),
    (Engine::Auto, Direct::Off),
];

fn open(path: &Path, (engine, direct): (Engine, Direct)) -> Arc<dyn IoBackend> {
    open_backend(path, engine, direct).unwrap()
}

/// Objects of many lengths: empty, inline, ending inside a block, ending with one.
fn objects() -> Vec<(String, Vec<u8>)> {
    let lengths = (0..40).map(|number| number * 512);
    (0..)
        .zip(lengths)
        .map(|(seed, len)| (format!("key {seed}"), bytes(seed, len + len % 3)))
        .collect()
}

/// Writes with each way and reads with each, after an orderly close and without one.
fn mix(path: &Path) {
    let objects = objects();
    let puts: Vec<_> = objects.iter().map(|(key, value)| Put::new(key.as_bytes(), value)).collect();
    for writer in WAYS {
        for reader in WAYS {
            for orderly in [true, false] {
                let options = FormatOptions::default().force(true);
                let store = store_on(&open(path, writer), &options);
                put_all(&store, &puts);
                assert!(store.delete(b"key 7").unwrap());
                if orderly {
                    store.close().unwrap();
                }
                drop(store);
                let store = Store::open(open(path, reader)).unwrap();
                for (key, value) in &objects {
                    let expected = (key != "key 7").then_some(value);
                    let found = payload(&store, key.as_bytes());
                    assert_eq!(found.as_ref(), expected, "{key}, {writer:?} to {reader:?}");
                }
            }
        }
    }
}

#[test]
fn what_one_engine_wrote_to_a_file_every_other_reads() {
    mix(zeroed_file(LEN).unwrap().path());
}

#[test]
fn what_one_engine_wrote_to_a_device_every_other_reads() {
    for sector_size in [512, 4096] {
        match LoopDevice::attach(LEN, sector_size) {
            Ok(device) => mix(device.path()),
            Err(skipped) => return println!("skipped: {skipped}"),
        }
    }
}

#[test]
fn a_store_of_smaller_blocks_than_the_device_is_opened_buffered() {
    let device = match LoopDevice::attach(LEN, 4096) {
        Ok(device) => device,
        Err(skipped) => return println!("skipped: {skipped}"),
    };
    let options = FormatOptions::default().block_size(512);
    let store = store_on(&open(device.path(), (Engine::Posix, Direct::Off)), &options);
    put_all(&store, &[Put::new(b"key", b"value")]);
    store.close().unwrap();
    drop(store);

    for engine in [Engine::Posix, Engine::Uring] {
        let direct = open(device.path(), (engine, Direct::Required));
        let refused = Store::open(direct).map(drop).unwrap_err();
        assert!(matches!(refused, Error::UnusableStore { .. }), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("512") && text.contains("Direct::Off"), "{text}");
        assert!(!text.contains("format"), "{text}");

        let store = Store::open(open(device.path(), (engine, Direct::Preferred))).unwrap();
        assert_eq!(payload(&store, b"key").unwrap(), b"value");
        put_all(&store, &[Put::new(b"key", b"value")]);
        store.close().unwrap();
    }
}

#[test]
fn a_batch_of_puts_or_gets_is_one_submission_on_the_ring() {
    // The header of a slot with more than 1 MiB of payloads follows when the checksums are known.
    for (len, submissions) in [(4 << 10, 1), (24 << 10, 1), (40 << 10, 2)] {
        let file = zeroed_file(4 * LEN).unwrap();
        let device = open(file.path(), (Engine::Uring, Direct::Preferred));
        let options = FormatOptions::default().segment_size(8 << 20);
        Store::format(device.clone(), &options).unwrap();
        let options = OpenOptions::default().background(false);
        let store = Store::open_with(device, &options).unwrap();
        let values: Vec<_> = (0..32).map(|seed| bytes(seed, len)).collect();
        let keys: Vec<_> = (0..32_u8).map(|key| [key]).collect();
        let puts: Vec<_> =
            keys.iter().zip(&values).map(|(key, value)| Put::new(key, value)).collect();
        let before = store.dispatcher().stats().submissions;
        put_all(&store, &puts);
        assert_eq!(store.dispatcher().stats().submissions - before, submissions);

        let mut buffers = vec![vec![0; len]; keys.len()];
        let mut gets: Vec<_> =
            keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
        for found in store.get_many(&mut gets) {
            assert_eq!(found.unwrap().unwrap().payload_len, len);
        }
        assert_eq!(store.dispatcher().stats().submissions - before, submissions + 1);
        assert!(buffers == values);
    }
}

#[test]
fn a_second_store_on_the_same_file_is_refused() {
    let file = zeroed_file(LEN).unwrap();
    let _first = open(file.path(), (Engine::Uring, Direct::Preferred));
    for engine in [Engine::Posix, Engine::Uring] {
        let error = open_backend(file.path(), engine, Direct::Preferred).map(drop).unwrap_err();
        assert_eq!(error.kind(), raw_block_core::ErrorKind::Busy);
    }
}

#[test]
fn the_ring_is_chosen_and_posix_where_it_is_forbidden() {
    let file = zeroed_file(LEN).unwrap();
    let choice = || open(file.path(), (Engine::Auto, Direct::Preferred)).engine().to_owned();
    assert_eq!(choice(), "uring");
    for errno in [libc::EPERM, libc::ENOSYS] {
        assert_eq!(without_io_uring(errno, choice), "posix");
        let error = without_io_uring(errno, || {
            open_backend(file.path(), Engine::Uring, Direct::Preferred).map(drop).unwrap_err()
        });
        assert!(error.to_string().contains("posix backend"), "{error}");
    }
}
