//! Systems without threads, descriptors, memory or space: calls fail with an error, nothing is
//! lost, nothing hangs. Limits hold for a whole process, so each test runs again in its own
//! process.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::env;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{bytes, payload};
use raw_block_core::conformance::Skipped;
use raw_block_core::{Direct, ErrorKind, MemoryBackend};
use raw_block_fixtures::{without_threads, zeroed_file};
use raw_block_store::{Engine, Error, FormatOptions, Store, open_backend};

const ENGINES: [Engine; 2] = [Engine::Posix, Engine::Uring];
const LEN: u64 = 8 << 20;
const PAYLOAD: usize = 60 << 10;

/// Segments for four objects each.
fn format() -> FormatOptions {
    FormatOptions::default().segment_size(256 << 10).force(true)
}

const AGAIN: &str = "RAW_BLOCK_STORE_ALONE";

/// Runs the test with this name again in its own process; `false` in that process.
fn ran_again(test: &str, wrapper: &[&str]) -> bool {
    if env::var_os(AGAIN).is_some() {
        return false;
    }
    let program = env::current_exe().unwrap();
    let mut command = match wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    let output = command.args(["--exact", test, "--nocapture"]).env(AGAIN, "1").output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}", said.concat());
    true
}

/// Limits this process. Limits on memory and descriptors hold for root too.
fn limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes to the structure that it is given.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: it reads from the structure that it is given.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

#[test]
fn without_threads_callers_reclaim_space_themselves() {
    for engine in ENGINES {
        let file = match zeroed_file(LEN) {
            Ok(file) => file,
            Err(skipped) => return skipped.report(),
        };
        without_threads(|| {
            assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "there are none");
            let device = open_backend(file.path(), engine, Direct::Preferred).unwrap();
            Store::format(device.clone(), &format()).unwrap();
            let store = Store::open(device).unwrap();
            // Every segment is filled several times.
            for round in 0..40_u64 {
                for key in 0..8_u8 {
                    store.put(&[key], &bytes(round << 8 | u64::from(key), PAYLOAD)).unwrap();
                }
                assert!(store.delete(&[7]).unwrap());
            }
            for key in 0..7_u8 {
                let expected = bytes(39 << 8 | u64::from(key), PAYLOAD);
                assert!(payload(&store, &[key]).unwrap() == expected);
            }
            let stats = store.stats();
            assert!(stats.checkpoints > 2 && stats.reclaims > 2, "{stats:?}");
            store.close().unwrap();
        });
    }
}

#[test]
fn without_descriptors_opening_fails_until_there_are_some() {
    if ran_again("without_descriptors_opening_fails_until_there_are_some", &[]) {
        return;
    }
    let file = match zeroed_file(LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    for engine in ENGINES {
        let open = || open_backend(file.path(), engine, Direct::Preferred);
        Store::format(open().unwrap(), &format()).unwrap();
        let store = Store::open(open().unwrap()).unwrap();
        store.put(b"key", b"value").unwrap();
        drop(store);

        let mut taken = Vec::new();
        limit(libc::RLIMIT_NOFILE, 64);
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        // From none to as many as it takes: at each count it fails with an error, or works.
        let mut opened = false;
        for _ in 0..12 {
            match open().map(Store::open) {
                Ok(Ok(store)) => {
                    assert_eq!(payload(&store, b"key").unwrap(), b"value");
                    opened = true;
                }
                Ok(Err(Error::Device { error, .. })) | Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
                    assert!(!opened, "with more descriptors it fails: {error}");
                }
                Ok(Err(error)) => panic!("{error}"),
            }
            taken.pop();
        }
        assert!(opened);
        limit(libc::RLIMIT_NOFILE, 1024);
    }
}

#[test]
fn large_objects_are_put_where_only_one_queue_can_be_opened() {
    if ran_again("large_objects_are_put_where_only_one_queue_can_be_opened", &[]) {
        return;
    }
    let file = match zeroed_file(8 * LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let device = open_backend(file.path(), Engine::Uring, Direct::Preferred).unwrap();
    Store::format(device.clone(), &FormatOptions::default().segment_size(4 << 20)).unwrap();
    let store = Store::open(device).unwrap();
    store.put(b"small", &bytes(1, PAYLOAD)).unwrap();
    limit(libc::RLIMIT_NOFILE, 64);
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    store.put(b"large", &bytes(2, 2 << 20)).unwrap();
    drop(taken);
    assert!(payload(&store, b"large").unwrap() == bytes(2, 2 << 20));
    store.close().unwrap();
}

#[test]
fn without_memory_for_its_segments_nothing_is_changed() {
    if env::var_os("ASAN_OPTIONS").is_some() {
        return Skipped::because("AddressSanitizer takes more addresses than the limit leaves")
            .report();
    }
    if ran_again("without_memory_for_its_segments_nothing_is_changed", &[]) {
        return;
    }
    // As many segments as a store can have, and the least that they can be. The device is sparse.
    let device = Arc::new(MemoryBackend::new(513 << 30).unwrap());
    let huge = FormatOptions::default().segment_size(32 << 10);
    limit(libc::RLIMIT_AS, 2 << 30);
    let refused = Store::format(device.clone(), &huge);
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })), "{refused:?}");
    assert!(matches!(Store::open(device), Err(Error::NotAStore { .. })), "nothing was written");
}

#[test]
fn a_full_file_system_fails_puts_and_loses_nothing() {
    let alone = ["unshare", "--mount", "--propagation", "private", "--"];
    let test = "a_full_file_system_fails_puts_and_loses_nothing";
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } != 0 {
        return Skipped::because("only root mounts a file system").report();
    }
    if ran_again(test, &alone) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "none"])
        .arg(directory.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return Skipped::because("no file system can be mounted").report();
    }
    for engine in ENGINES {
        let path = directory.path().join("sparse");
        File::create(&path).unwrap().set_len(LEN).unwrap();
        let open = || open_backend(&path, engine, Direct::Preferred).unwrap();
        Store::format(open(), &format()).unwrap();
        let store = Store::open(open()).unwrap();
        store.put(b"first", &bytes(1, PAYLOAD)).unwrap();
        // Other files take the rest of the space, but for a few objects.
        let other = File::create(directory.path().join("other")).unwrap();
        fill(&other, 5 * PAYLOAD as u64);
        let (mut there, mut refused) = (Vec::new(), 0);
        for key in 0..15_u8 {
            match store.put(&[key], &bytes(key.into(), PAYLOAD)) {
                Ok(()) => there.push(key),
                Err(Error::Device { error, .. }) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(!there.is_empty() && refused > 0, "{there:?}, {refused} refused");
        let check = |store: &Store| {
            assert_eq!(payload(store, b"first").unwrap(), bytes(1, PAYLOAD));
            for &key in &there {
                assert_eq!(payload(store, &[key]).unwrap(), bytes(key.into(), PAYLOAD));
            }
        };
        check(&store);
        drop(store);
        drop(other);
        std::fs::remove_file(directory.path().join("other")).unwrap();
        let store = Store::open(open()).unwrap();
        check(&store);
        store.put(b"last", &bytes(2, PAYLOAD)).unwrap();
        store.close().unwrap();
        std::fs::remove_file(path).unwrap();
    }
    drop(Command::new("umount").arg(directory.path()).status());
}

/// Fills the file system up, but for `left` bytes.
fn fill(file: &File, left: u64) {
    let mut len = 0;
    while file.write_all_at(&[7; 4096], len).is_ok() {
        len += 4096;
    }
    file.set_len(len.saturating_sub(left)).unwrap();
}

/// Mounts a file system of a few MiB; `false` where this system cannot.
fn mount(kind: &str, directory: &Path, image: &Path) -> bool {
    let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if kind == "tmpfs" {
        let mut mount = Command::new("mount");
        return done(mount.args(["-t", "tmpfs", "-o", "size=6m", "none"]).arg(directory));
    }
    File::create(image).unwrap().set_len(16 << 20).unwrap();
    let mut make = Command::new("/usr/sbin/mkfs.ext4");
    done(make.args(["-q", "-F", "-m", "0"]).arg(image))
        && done(Command::new("mount").args(["-o", "loop"]).args([image, directory]))
}

#[test]
fn on_a_full_file_system_deleting_closing_and_opening_work() {
    let alone = ["unshare", "--mount", "--propagation", "private", "--"];
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } != 0 {
        return Skipped::because("only root mounts a file system").report();
    }
    if ran_again("on_a_full_file_system_deleting_closing_and_opening_work", &alone) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for kind in ["tmpfs", "ext4"] {
        let directory = folder.path().join(kind);
        std::fs::create_dir(&directory).unwrap();
        if !mount(kind, &directory, &folder.path().join("image")) {
            Skipped::because(format!("no {kind} can be mounted")).report();
            continue;
        }
        for engine in ENGINES {
            for direct in [Direct::Preferred, Direct::Off] {
                close_and_open_when_full(&directory, engine, direct);
            }
        }
        // The kernel may still be releasing rings.
        assert!(Command::new("umount").arg("--lazy").arg(&directory).status().unwrap().success());
    }
}

/// Whether a change succeeded, or was refused because the file system has no space for another
/// block.
fn has_space<T>(result: Result<T, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(Error::Device { error, .. }) if error.kind() == ErrorKind::NoSpace => false,
        Err(error) => panic!("{error}"),
    }
}

fn close_and_open_when_full(directory: &Path, engine: Engine, direct: Direct) {
    let (path, other) = (directory.join("sparse"), directory.join("other"));
    File::create(&path).unwrap().set_len(LEN).unwrap();
    let open = || Store::open(open_backend(&path, engine, direct).unwrap()).unwrap();
    let options = format().force(false);
    Store::format(open_backend(&path, engine, direct).unwrap(), &options).unwrap();
    // Full before the store was written to at all.
    fill(&File::create(&other).unwrap(), 0);
    let store = open();
    assert!(!has_space(store.put(b"key", &bytes(0, PAYLOAD))));
    store.close().unwrap();
    drop(store);
    std::fs::remove_file(&other).unwrap();
    let store = open();
    for key in 0..4 {
        store.put(&[key], &bytes(key.into(), PAYLOAD)).unwrap();
    }
    store.flush().unwrap();
    fill(&File::create(&other).unwrap(), 0);
    assert!(store.delete(&[0]).unwrap());
    assert!(!store.contains(&[0]).unwrap() && store.contains(&[1]).unwrap());
    assert!(!has_space(store.put(b"key", &bytes(0, PAYLOAD))));
    store.checkpoint().unwrap();
    store.flush().unwrap();
    drop(store);
    let store = open();
    assert!(store.delete(&[1]).unwrap());
    assert!(!store.delete(b"absent").unwrap());
    store.close().unwrap();
    drop(store);
    let store = open();
    for key in 0..4 {
        let expected = (key > 1).then(|| bytes(key.into(), PAYLOAD));
        assert!(payload(&store, &[key]) == expected, "key {key}");
    }
    std::fs::remove_file(&other).unwrap();
    store.checkpoint().unwrap();
    store.put(b"key", &bytes(9, PAYLOAD)).unwrap();
    store.delete(&[2]).unwrap();
    store.close().unwrap();
    std::fs::remove_file(&path).unwrap();
}
