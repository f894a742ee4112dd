//! Puts from and gets into registered memory of another owner.

#![cfg(feature = "uring")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{bytes, without_thread};
use raw_block_core::{AlignedBuf, Direct, ErrorKind, Region};
use raw_block_fixtures::zeroed_file;
use raw_block_store::{Engine, FormatOptions, Get, Put, Store, open_backend};

/// The length of a payload in bytes: whole blocks, and too long to be merged with a neighbour.
const LEN: usize = 512 << 10;

#[test]
fn a_get_into_a_registered_lease_copies_nothing() {
    let file = zeroed_file(64 << 20).unwrap();
    let device = open_backend(file.path(), Engine::Uring, Direct::Preferred).unwrap();
    let options = FormatOptions::default().segment_size(4 << 20);
    Store::format(device.clone(), &options).unwrap();
    let store = Store::open_with(device.clone(), &without_thread()).unwrap();
    let region = Region::owned(AlignedBuf::zeroed(4 * LEN).unwrap()).unwrap();
    let _registration = match region.register_with(device, ..) {
        Ok(registration) => registration,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
            return println!("skipped: {error}");
        }
    };
    let mut leases: Vec<_> =
        (0..4).map(|n| region.lease(n * LEN..(n + 1) * LEN).unwrap()).collect();
    let keys: Vec<_> = (0..4_u8).map(|key| [key]).collect();
    for (seed, lease) in (0..).zip(&mut leases) {
        lease.copy_from_slice(&bytes(seed, LEN));
    }
    let before = store.dispatcher().stats();
    let puts: Vec<_> = keys.iter().zip(&leases).map(|(key, lease)| Put::new(key, lease)).collect();
    common::put_all(&store, &puts);
    let put = store.dispatcher().stats();
    assert_eq!(put.registered_ops - before.registered_ops, 4);

    leases.iter_mut().for_each(|lease| lease.fill(0xEE));
    let mut gets: Vec<_> =
        keys.iter().zip(&mut leases).map(|(key, lease)| Get::new(key, lease)).collect();
    for found in store.get_many(&mut gets) {
        assert_eq!(found.unwrap().unwrap().payload_len, LEN);
    }
    let got = store.dispatcher().stats();
    assert_eq!((got.ops - put.ops, got.registered_ops - put.registered_ops), (4, 4));
    assert_eq!((got.staged_bytes, got.crossing_ops), (put.staged_bytes, before.crossing_ops));
    for (seed, lease) in (0..).zip(&leases) {
        assert!(lease[..] == bytes(seed, LEN));
    }
}
