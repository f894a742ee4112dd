//! A store opened read-only: everything is found, and nothing is changed.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;

use common::faulty::{Fate, Faulty};
use common::{bytes, payload, put_all, small};
use raw_block_core::backend::OpKind;
use raw_block_core::{Direct, ErrorKind};
use raw_block_fixtures::zeroed_file;
use raw_block_store::format::Superblock;
use raw_block_store::{
    Engine, Error, EvictionPolicy, OpenOptions, Put, Store, open_backend, open_backend_read_only,
};

const LEN: usize = 1 << 20;
const ENGINES: [Engine; 2] = [Engine::Posix, Engine::Uring];

/// A device with a store that was not closed.
fn not_closed() -> Faulty {
    let device = Faulty::new(LEN);
    Store::format(device.backend(), &small()).unwrap();
    let store = Store::open(device.backend()).unwrap();
    put_all(&store, &[Put::new(b"a", &bytes(1, 9000)), Put::new(b"b", b"old")]);
    put_all(&store, &[Put::new(b"b", b"new"), Put::new(b"c", b"c")]);
    assert!(store.delete(b"c").unwrap());
    device
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) {
    match result {
        Err(Error::Device { error, .. }) => {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("read-only"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_is_found_and_only_reads_reach_the_device() {
    let device = not_closed();
    let before = device.bytes();
    device.rule(|op| {
        assert_eq!(op.kind(), OpKind::Read, "{op:?}");
        Fate::Done
    });
    let options = OpenOptions::default().eviction(EvictionPolicy::Lru);
    let store = Store::open_read_only(device.backend(), &options).unwrap();
    assert_eq!(payload(&store, b"a").unwrap(), bytes(1, 9000));
    assert_eq!(payload(&store, b"b").unwrap(), b"new");
    assert_eq!(payload(&store, b"c"), None);
    let mut keys = Vec::new();
    store
        .list(|object| {
            keys.push(object.key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    keys.sort_unstable();
    assert_eq!(keys, [b"a", b"b"]);
    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.objects, report.findings.len(), report.complete), (2, 0, true));

    for _ in 0..20 {
        refused(store.put(b"d", b"value"));
        refused(store.delete(b"a"));
        refused(store.flush());
        refused(store.checkpoint());
    }
    assert_eq!(store.stats().objects, 2, "nothing was evicted for a put that is refused");
    refused(store.close());
    assert_eq!(device.bytes(), before);
}

#[test]
fn a_device_that_was_opened_read_only_accepts_no_writes() {
    let file = match zeroed_file(LEN as u64) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let device = open_backend(file.path(), Engine::Posix, Direct::Preferred).unwrap();
    Store::format(device, &small()).unwrap();
    for engine in ENGINES {
        let open = || open_backend_read_only(file.path(), engine, Direct::Preferred);
        let Ok(device) = open() else { continue };
        refused(Store::open(device.clone()).map(drop));
        refused(Store::format(device, &small().force(true)));
    }
}

#[test]
fn a_file_without_permission_to_write_has_several_readers() {
    let file = match zeroed_file(LEN as u64) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    for engine in ENGINES {
        let Ok(device) = open_backend(file.path(), engine, Direct::Preferred) else { continue };
        Store::format(device.clone(), &small().force(true)).unwrap();
        let store = Store::open(device).unwrap();
        store.put(b"key", b"value").unwrap();
        let busy = open_backend_read_only(file.path(), engine, Direct::Preferred).map(drop);
        assert_eq!(busy.unwrap_err().kind(), ErrorKind::Busy, "it is being written");
        drop(store);

        fs::set_permissions(file.path(), Permissions::from_mode(0o444)).unwrap();
        let before = fs::read(file.path()).unwrap();
        let open = || {
            let device = open_backend_read_only(file.path(), engine, Direct::Preferred).unwrap();
            assert!(device.geometry().read_only);
            Store::open_read_only(device, &OpenOptions::default()).unwrap()
        };
        let (first, second) = (open(), open());
        for store in [&first, &second] {
            assert_eq!(payload(store, b"key").unwrap(), b"value");
            refused(store.put(b"key", b"other"));
        }
        fs::set_permissions(file.path(), Permissions::from_mode(0o644)).unwrap();
        let busy = open_backend(file.path(), engine, Direct::Preferred).map(drop);
        assert_eq!(busy.unwrap_err().kind(), ErrorKind::Busy, "it is being read");
        drop((first, second));
        assert!(fs::read(file.path()).unwrap() == before);
        drop(open_backend(file.path(), engine, Direct::Preferred).unwrap());
    }
}

#[test]
fn a_store_with_features_that_writers_must_know_can_be_read() {
    let device = not_closed();
    let mut image = device.bytes();
    let mut superblock = *Superblock::read(&image[..4096]).unwrap();
    superblock.features_read_only_compatible = 4.into();
    superblock.generation += 1;
    superblock.encode(&mut image[..4096]).unwrap();
    let device = Faulty::holding(image);
    match Store::open(device.backend()) {
        Err(Error::UnusableStore { reason, .. }) => assert!(reason.contains("0x4"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let store = Store::open_read_only(device.backend(), &OpenOptions::default()).unwrap();
    assert_eq!(payload(&store, b"b").unwrap(), b"new");
}
