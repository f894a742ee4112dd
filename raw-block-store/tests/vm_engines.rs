//! A store on NVMe namespaces, in the virtual machine.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use common::{bytes, payload, put_all, store_on};
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_fixtures::{NvmeNamespace, read_fault, write_fault};
use raw_block_store::{Engine, FormatOptions, Get, Put, Store, open_backend};

/// Writes with one engine and reads with the other, after an orderly close and without one.
fn mix(scenario: &str, nsid: u32) {
    let namespace = match NvmeNamespace::find(scenario, nsid) {
        Ok(namespace) => namespace,
        Err(skipped) => return skipped.report(),
    };
    let open = |engine| {
        let path = if engine == Engine::Nvme { namespace.generic() } else { namespace.block() };
        open_backend(path, engine, Direct::Required).unwrap()
    };
    let objects: Vec<_> = (0..)
        .zip((0..40).map(|number| number * 1700))
        .map(|(seed, len)| (format!("key {seed}"), bytes(seed, len)))
        .collect();
    let puts: Vec<_> = objects.iter().map(|(key, value)| Put::new(key.as_bytes(), value)).collect();
    for (writer, reader) in [
        (Engine::Nvme, Engine::Uring),
        (Engine::Uring, Engine::Posix),
        (Engine::Posix, Engine::Nvme),
        (Engine::Nvme, Engine::Posix),
        (Engine::Uring, Engine::Nvme),
    ] {
        for orderly in [true, false] {
            let options = FormatOptions::default().force(true);
            let store = store_on(&open(writer), &options);
            put_all(&store, &puts);
            assert!(store.delete(b"key 7").unwrap());
            if orderly {
                store.close().unwrap();
            }
            drop(store);
            let store = Store::open(open(reader)).unwrap();
            for (key, value) in &objects {
                let expected = (key != "key 7").then_some(value);
                let found = payload(&store, key.as_bytes());
                assert_eq!(found.as_ref(), expected, "{key}, {writer:?} to {reader:?}");
            }
        }
    }
}

#[test]
fn each_engine_reads_what_the_other_wrote_in_small_blocks() {
    mix("plain-512", 1);
}

#[test]
fn each_engine_reads_what_the_other_wrote_in_large_blocks() {
    mix("plain-4096", 1);
}

#[test]
fn each_engine_reads_what_the_other_wrote_to_a_second_namespace() {
    mix("two-namespaces", 2);
}

#[test]
fn each_engine_reads_what_the_other_wrote_in_64_kib_at_once() {
    mix("small-mdts", 1);
}

#[test]
fn each_engine_reads_what_the_other_wrote_over_tcp() {
    mix("over-tcp", 1);
}

#[test]
fn a_bad_sector_costs_one_object_or_a_repeated_write() {
    let namespace = match NvmeNamespace::find("faulty", 1) {
        Ok(namespace) => namespace,
        Err(skipped) => return skipped.report(),
    };
    for (engine, path) in [(Engine::Uring, namespace.block()), (Engine::Auto, namespace.generic())]
    {
        fill_past_bad_sectors(&open_backend(path, engine, Direct::Required).unwrap());
    }
}

/// Fills a store past the place where reading fails and the one where writing does.
fn fill_past_bad_sectors(device: &Arc<dyn IoBackend>) {
    let len = 256 << 10;
    let store = store_on(device, &FormatOptions::default().force(true));
    let value = bytes(1, len);
    let past = read_fault().max(write_fault()) + (4 << 20);
    let keys: Vec<_> = (0..past / len as u64).map(u64::to_le_bytes).collect();
    put_all(&store, &keys.iter().map(|key| Put::new(key, &value)).collect::<Vec<_>>());
    // The kernel may have merged the write with that of a neighbour.
    let repeated = store.stats().repeated_writes;
    assert!((1..=2).contains(&repeated), "{repeated} writes were repeated");

    let mut buffers = vec![vec![0; len]; keys.len()];
    let mut gets: Vec<_> =
        keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
    let failed: Vec<bool> = store.get_many(&mut gets).iter().map(Result::is_err).collect();
    assert!((1..=2).contains(&failed.iter().filter(|&&failed| failed).count()));
    for ((key, buffer), failed) in keys.iter().zip(&buffers).zip(&failed) {
        assert!(*failed || *buffer == value, "key {key:?}");
    }
    // Read one by one, only the object on the bad sector fails.
    assert_eq!(keys.iter().filter(|key| store.get(*key).is_err()).count(), 1);
}
