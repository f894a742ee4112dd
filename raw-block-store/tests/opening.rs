//! Opening and formatting refuse devices that are in use or hold something else, and say why.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::env;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::faulty::Faulty;
use common::{flip, memory, newest, payload, small, store_on, write};
use raw_block_core::conformance::Skipped;
use raw_block_core::{Direct, ErrorKind, Geometry, MemoryBackend};
use raw_block_fixtures::{LoopDevice, zeroed_file};
use raw_block_store::format::crc32c;
use raw_block_store::{
    Engine, Error, FormatOptions, Put, Store, open_backend, open_backend_read_only,
};

const LEN: u64 = 32 << 20;

fn format() -> FormatOptions {
    FormatOptions::default()
}

/// A device in memory with a store that was closed.
fn made() -> Faulty {
    let device = Faulty::new(1 << 20);
    Store::format(device.backend(), &small()).unwrap();
    device
}

/// Changes each copy of the superblock.
fn change_superblocks(device: &Faulty, change: impl Fn(&mut [u8])) -> Faulty {
    let mut image = device.bytes();
    let last = image.len() - 4096;
    for at in [0, 4096, last] {
        change(&mut image[at..at + 4096]);
    }
    Faulty::holding(image)
}

/// The kind and the text of the error with which a path is not opened.
fn refused(path: &Path) -> (ErrorKind, String) {
    let [error, read_only] = [
        open_backend(path, Engine::Posix, Direct::Preferred).map(drop).unwrap_err(),
        open_backend_read_only(path, Engine::Posix, Direct::Preferred).map(drop).unwrap_err(),
    ];
    assert_eq!(error.kind(), read_only.kind());
    (error.kind(), error.to_string())
}

#[test]
fn a_symbolic_link_stands_for_its_target_and_creates_none() {
    let file = match zeroed_file(LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let directory = tempfile::tempdir().unwrap();
    let link = |name: &str, to: &Path| {
        let link = directory.path().join(name);
        symlink(to, &link).unwrap();
        link
    };
    let by_link = link("link", file.path());
    let device = open_backend(&by_link, Engine::Posix, Direct::Preferred).unwrap();
    Store::format(device.clone(), &format().force(true)).unwrap();
    // The link and the file are one device.
    assert_eq!(refused(file.path()).0, ErrorKind::Busy);
    drop(device);

    let nowhere = link("nowhere", Path::new("missing"));
    assert_eq!(refused(&nowhere).0, ErrorKind::NotFound);
    assert!(!directory.path().join("missing").exists(), "opening creates nothing");
    let cycle = link("cycle", &directory.path().join("cycle"));
    assert!(refused(&cycle).1.contains("symbolic links"), "{:?}", refused(&cycle));
    let inside = link("directory", directory.path());
    assert!(refused(&inside).1.contains("it is a directory"));
}

#[test]
fn pipes_and_sockets_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        return Skipped::because("mkfifo does not run").report();
    }
    let socket = directory.path().join("socket");
    let _socket = UnixListener::bind(&socket).unwrap();
    for path in [pipe, socket] {
        let (kind, text) = refused(&path);
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(text.contains("neither a regular file nor a block device"), "{text}");
    }
}

/// Runs a program on a device; `false` if there is no such program.
fn run(program: &str, arguments: &[&str], device: &Path) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).arg(device).env("PATH", path).output();
    let Ok(output) = output else { return false };
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Zeroes every place where a store, or other software, has its magic numbers.
fn wipe(path: &Path) {
    let device = open_backend(path, Engine::Posix, Direct::Preferred).unwrap();
    for offset in [0, LEN - (1 << 20)] {
        write(&device, offset, &vec![0; 1 << 20]);
    }
}

#[test]
fn what_other_programs_made_is_recognised() {
    let device = match LoopDevice::attach(LEN, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    let mut tried = 0;
    for (program, arguments, expected) in [
        ("mkfs.ext4", &["-q", "-F"][..], "ext2, ext3 or ext4"),
        ("mkswap", &[][..], "a swap area"),
        ("mkfs.vfat", &[][..], "a file system (FAT)"),
        ("pvcreate", &["-q", "-y", "--config", "devices/scan=\"/dev\""][..], "LVM"),
    ] {
        wipe(device.path());
        if !run(program, arguments, device.path()) {
            continue;
        }
        tried += 1;
        let backend = open_backend(device.path(), Engine::Posix, Direct::Preferred).unwrap();
        match Store::format(backend.clone(), &format()) {
            Err(error @ Error::Occupied { .. }) => {
                let text = error.to_string();
                assert!(text.contains(expected) && text.contains("force"), "{program}: {text}");
            }
            other => panic!("{program}: {other:?}"),
        }
        Store::format(backend.clone(), &format().force(true)).unwrap();
        Store::open(backend).unwrap().put(b"key", b"value").unwrap();
    }
    if tried == 0 {
        Skipped::because("no program that makes a file system is installed").report();
    }
}

#[test]
fn a_device_with_partitions_is_recognised() {
    let device = match LoopDevice::attach(LEN, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    for label in ["dos", "gpt"] {
        wipe(device.path());
        let script = format!("label: {label}\n,8M\n,\n");
        let mut sfdisk = Command::new("sfdisk");
        sfdisk
            .args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe=always"])
            .arg(device.path());
        let child =
            sfdisk.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else { return Skipped::because("sfdisk does not run").report() };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let backend = open_backend(device.path(), Engine::Posix, Direct::Preferred).unwrap();
        match Store::format(backend.clone(), &format()) {
            Err(Error::Occupied { what, .. }) => {
                assert!(what.contains("partition table"), "{what}");
            }
            other => panic!("{label}: {other:?}"),
        }
        Store::format(backend, &format().force(true)).unwrap();
    }
}

#[test]
fn a_mounted_device_is_refused() {
    let device = match LoopDevice::attach(LEN, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    if !run("mkfs.ext4", &["-q", "-F"], device.path()) {
        return Skipped::because("mkfs.ext4 does not run").report();
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").arg(device.path()).arg(directory.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return Skipped::because("nothing can be mounted").report();
    }
    let found = refused(device.path());
    let unmounted = Command::new("umount").arg(directory.path()).status();
    assert_eq!(found.0, ErrorKind::Busy);
    assert!(found.1.contains("it is mounted"), "{}", found.1);
    assert!(unmounted.unwrap().success());
    drop(open_backend(device.path(), Engine::Posix, Direct::Preferred).unwrap());
}

const CHILD: &str = "RAW_BLOCK_STORE_OPENED_BY_A_CHILD";

#[test]
fn the_lock_of_a_killed_process_is_gone_with_it() {
    if let Some(path) = env::var_os(CHILD) {
        let store =
            Store::open(open_backend(path, Engine::Auto, Direct::Preferred).unwrap()).unwrap();
        store.put(b"key", b"value").unwrap();
        println!("\nit is open");
        thread::sleep(Duration::from_secs(600));
    }
    let file = match zeroed_file(LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    let device = LoopDevice::attach(LEN, 512);
    for path in
        [Some(file.path()), device.as_ref().ok().map(LoopDevice::path)].into_iter().flatten()
    {
        let backend = open_backend(path, Engine::Posix, Direct::Preferred).unwrap();
        Store::format(backend, &format().force(true)).unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_lock_of_a_killed_process_is_gone_with_it", "--nocapture"])
            .env(CHILD, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.into_iter().any(|line| line == "it is open"));
        assert_eq!(refused(path).0, ErrorKind::Busy);
        child.kill().unwrap();
        child.wait().unwrap();
        let store =
            Store::open(open_backend(path, Engine::Posix, Direct::Preferred).unwrap()).unwrap();
        assert_eq!(payload(&store, b"key").unwrap(), b"value");
    }
}

#[test]
fn a_program_that_is_started_inherits_neither_device_nor_ring() {
    let file = match zeroed_file(LEN) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    for engine in [Engine::Posix, Engine::Auto] {
        let backend = open_backend(file.path(), engine, Direct::Preferred).unwrap();
        let store = store_on(&backend, &format().force(true));
        store.put(b"key", b"value").unwrap();
        let open = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let Ok(open) = open else { return Skipped::because("ls does not run").report() };
        let open = String::from_utf8_lossy(&open.stdout);
        assert!(open.contains("/proc/"), "its own directory: {open}");
        for inherited in [file.path().to_str().unwrap(), "io_uring", "eventfd"] {
            assert!(!open.contains(inherited), "{engine:?}: {open}");
        }
    }
}

#[test]
fn nothing_from_a_device_reaches_a_text_as_it_is() {
    let device = memory(LEN);
    let hostile = "\u{1B}[2J\n\u{202E}label";
    let store = store_on(&device, &format().label(hostile));
    let key = [&b"\x1B[31m\n\x80"[..], &[b'k'; 500]].concat();
    let put = Put::new(&key, b"value").with_metadata(b"\x1B]0;\x07");
    store.put_many(&[put]).remove(0).unwrap();
    let mut texts = vec![format!("{store:?}")];
    store
        .list(|object| {
            texts.push(format!("{object:?}"));
            ControlFlow::Continue(())
        })
        .unwrap();
    flip(&device, newest(&device, &key).payload + 2);
    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.findings[0].key.as_ref().unwrap(), &key);
    texts.extend([format!("{report:?}"), report.findings[0].to_string()]);
    assert!(report.findings[0].to_string().contains("(507 bytes)"), "{}", report.findings[0]);
    drop(store);
    let already = Store::format(device, &format()).unwrap_err();
    texts.extend([already.to_string(), format!("{already:?}")]);
    for text in texts {
        // A duration has its own sign for microseconds.
        let text = text.replace("µs", "us");
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
        assert!(text.len() < 2000, "{} bytes", text.len());
    }
}

#[test]
fn formatting_spares_a_store_of_newer_software() {
    let newer = change_superblocks(&made(), |cell| {
        cell[12] = 2;
        let checksum = crc32c([&cell[12..]]);
        cell[8..12].copy_from_slice(&checksum.to_le_bytes());
    });
    let before = newer.bytes();
    let refused = Store::format(newer.backend(), &small());
    assert!(
        matches!(&refused, Err(Error::AlreadyAStore { which, .. }) if which.contains("version 2"))
    );
    assert!(newer.bytes() == before, "nothing was written");
    Store::format(newer.backend(), &small().force(true)).unwrap();
    assert!(Store::open(newer.backend()).is_ok());
}

#[test]
fn formatting_spares_a_store_that_is_damaged() {
    let damaged = change_superblocks(&made(), |cell| cell[100] ^= 1);
    let refused = Store::format(damaged.backend(), &small());
    assert!(
        matches!(&refused, Err(Error::AlreadyAStore { which, .. }) if which.contains("checksum"))
    );
}

#[test]
fn formatting_is_advised_only_where_there_is_no_store() {
    let advised = |device: &Faulty| {
        let error = Store::open(device.backend()).unwrap_err();
        (matches!(error, Error::NotAStore { .. }), error.to_string().contains("format"))
    };
    assert_eq!(advised(&Faulty::new(1 << 20)), (true, true));
    let device = made();
    assert_eq!(advised(&change_superblocks(&device, |cell| cell[64] ^= 0x10)), (false, false));
    // The device became too short for the store.
    let short = Faulty::holding(device.bytes()[..512 << 10].to_vec());
    assert_eq!(advised(&short), (false, false));
}

#[test]
fn a_device_has_one_store_at_a_time() {
    let device = made();
    let backend = device.backend();
    let store = Store::open(backend.clone()).unwrap();
    assert!(matches!(Store::open(backend.clone()), Err(Error::Busy { .. })));
    let forced = small().force(true);
    assert!(matches!(Store::format(backend.clone(), &forced), Err(Error::Busy { .. })));
    store.close().unwrap();
    assert!(Store::open(backend).is_ok());
}

#[test]
fn an_unsuitable_device_is_refused_with_the_reason() {
    let reason = |len: usize, options: FormatOptions| match Store::format(
        Faulty::new(len).backend(),
        &options,
    ) {
        Err(Error::Unsuitable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let label = small().label("x".repeat(65));
    let refused = Store::format(Faulty::new(1 << 20).backend(), &label).unwrap_err();
    assert!(refused.to_string().contains("label of the store has 65 bytes"), "{refused}");
    let few = reason(256 << 10, small());
    assert!(few.contains("too few for 8 segments") && few.contains("smaller"), "{few}");
    for size in [0, 48 << 10, 2 << 10, u64::MAX] {
        let options = small().segment_size(size);
        let odd = reason(1 << 20, options);
        assert!(odd.contains(&size.to_string()) && odd.contains("power of two"), "{odd}");
    }
    let large = reason(1 << 20, small().largest_object(32 << 10));
    assert!(large.contains("do not fit into segments"), "{large}");

    let mut geometry = Geometry::new(8 << 20, 512).unwrap();
    geometry.transfer_alignment = 8192;
    let device = Arc::new(MemoryBackend::with_geometry(geometry));
    assert!(matches!(Store::format(device.clone(), &format()), Err(Error::Unsuitable { .. })));
    assert!(matches!(Store::open(device), Err(Error::UnusableStore { .. })));
}
