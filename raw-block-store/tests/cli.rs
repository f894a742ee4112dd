//! The operator's tool: every command, what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use common::bytes;
use raw_block_core::Direct;
use raw_block_core::conformance::fixture::{self, TempFile};
use raw_block_store::{Engine, Put, Store, open_device};
use tool::{command, done, run, run_with_input};

const NONE: [&str; 0] = [];

/// A file of 4 MiB, in which nothing is a store.
fn device() -> Option<TempFile> {
    fixture::zeroed_file(4 << 20).inspect_err(raw_block_core::conformance::Skipped::tell).ok()
}

/// Such a file with an empty store for values of up to 16 KiB.
fn store() -> Option<TempFile> {
    let device = device()?;
    done("format", device.path(), ["--value-size", "16KiB", "--label", "for a test"]);
    Some(device)
}

fn put(device: &Path, key: &str, value: &[u8]) {
    let put = run_with_input(command("put", device, [key, "-"]), value);
    assert_eq!(put.status, 0, "{}", put.stderr);
}

#[test]
fn what_is_put_is_listed_got_and_deleted_with_every_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    for engine in ["auto", "posix", "uring"] {
        let Some(device) = device() else { return };
        let device = device.path();
        let engine = format!("--engine={engine}");
        let engine = engine.as_str();
        if engine == "--engine=uring" && raw_block_uring::probe().is_err() {
            continue;
        }
        done("format", device, ["--value-size", "16KiB", engine]);
        let value = bytes(1, 10_000);
        fs::write(&from, &value).unwrap();
        done("put", device, [OsStr::new("from a file"), from.as_os_str(), OsStr::new(engine)]);
        let put = run_with_input(command("put", device, ["from a pipe", "-", engine]), b"piped");
        assert_eq!((put.status, &*put.stderr), (0, ""));

        let listed = done("ls", device, [engine]).text();
        assert_eq!(listed, "   10000 B  from a file\n       5 B  from a pipe\n");
        done("get", device, [OsStr::new("from a file"), to.as_os_str(), OsStr::new(engine)]);
        assert!(fs::read(&to).unwrap() == value);
        assert_eq!(done("get", device, ["from a pipe", "-", engine]).stdout, b"piped");

        done("rm", device, ["from a file", "from a pipe", engine]);
        assert_eq!(done("ls", device, [engine]).text(), "");
        assert!(done("check", device, [engine]).text().starts_with("healthy "));
    }
}

#[test]
fn a_key_that_is_not_there_is_an_answer_and_the_others_are_deleted() {
    let Some(device) = store() else { return };
    put(device.path(), "here", b"value");
    let got = run("get", device.path(), ["missing", "-"]);
    assert_eq!((got.status, &*got.stdout), (1, &b""[..]));
    assert_eq!(got.stderr, "there is no object with the key missing\n");
    let removed = run("rm", device.path(), ["missing", "here"]);
    assert_eq!(removed.status, 1);
    assert_eq!(removed.stderr, "there is no object with the key missing\n");
    assert_eq!(done("ls", device.path(), NONE).text(), "");
}

#[test]
fn keys_that_are_no_text_are_taken_as_they_are_and_shown_escaped_or_in_hexadecimal() {
    let Some(device) = store() else { return };
    let device = device.path();
    let key = OsStr::from_bytes(b"\xff\x1b[2Jk");
    let put = run_with_input(command("put", device, [key, OsStr::new("-")]), b"value");
    assert_eq!(put.status, 0, "{}", put.stderr);
    assert_eq!(done("ls", device, NONE).text(), "       5 B  \\xff\\x1b[2Jk\n");
    assert_eq!(done("ls", device, ["--hex"]).text(), "       5 B  ff1b5b324a6b\n");
    let json = &done("ls", device, ["--json"]).json()[0];
    assert!(json["key"].is_null());
    assert_eq!(json["key_hex"], "ff1b5b324a6b");
    assert_eq!(json["value_bytes"], 5);
    assert_eq!(done("get", device, ["--hex", "FF1b5b324a6b", "-"]).stdout, b"value");
    done("rm", device, ["--hex", "ff1b5b324a6b"]);
    let odd = run("get", device, ["--hex", "ff1", "-"]);
    assert_eq!(odd.status, 2);
    assert!(odd.stderr.contains("hexadecimal"), "{}", odd.stderr);
}

#[test]
fn a_value_that_does_not_fit_names_the_size_that_would() {
    let Some(device) = store() else { return };
    let device = device.path();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let value = bytes(2, 70_000);
    fs::write(&file, &value).unwrap();
    let from_file = run("put", device, [OsStr::new("key"), file.as_os_str()]);
    let piped = run_with_input(command("put", device, ["key", "-"]), &value);
    for refused in [from_file, piped] {
        assert_eq!(refused.status, 2);
        for part in ["70000 bytes", "16384", "--value-size 72KiB"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
    // The store was closed in order all the same.
    assert_eq!(done("info", device, ["--json"]).json()[0]["state"], "clean");
    done("format", device, ["--value-size", "72KiB", "--force"]);
    done("put", device, [OsStr::new("key"), file.as_os_str()]);
    assert!(done("get", device, ["key", "-"]).stdout == value);
}

#[test]
fn a_slot_is_a_block_larger_than_its_value() {
    let Some(device) = device() else { return };
    for (option, size) in [("--value-size", "256KiB"), ("--slot-size", "260KiB")] {
        let report = done("format", device.path(), [option, size, "--json", "--force"]).json();
        assert_eq!(
            (&report[0]["slot_bytes"], &report[0]["value_bytes"]),
            (&266_240.into(), &262_144.into())
        );
    }
    let text =
        done("format", device.path(), ["--value-size=16KiB", "--slots=100", "--force"]).text();
    assert!(
        text.ends_with(": an empty store of 100 slots of 20 KiB, for values of up to 16 KiB\n"),
        "{text}"
    );
    let odd = run("format", device.path(), ["--slot-size=5000", "--force"]);
    assert_eq!(odd.status, 2);
    assert!(odd.stderr.contains("whole blocks of 4 KiB"), "{}", odd.stderr);
}

#[test]
fn a_store_is_overwritten_only_by_force() {
    let Some(device) = store() else { return };
    put(device.path(), "key", b"value");
    let refused = run("format", device.path(), ["--value-size", "4KiB"]);
    assert_eq!(refused.status, 2);
    for part in ["for a test", "--force"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert_eq!(done("get", device.path(), ["key", "-"]).stdout, b"value");
    done("format", device.path(), ["--value-size", "4KiB", "--force"]);
    assert_eq!(done("ls", device.path(), NONE).text(), "");
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let Some(device) = device() else { return };
    let device = device.path();
    let name = device.display().to_string();
    for command in ["info", "ls", "check"] {
        let refused = run(command, device, NONE);
        assert_eq!((refused.status, &*refused.stdout), (2, &b""[..]), "{command}");
        assert!(
            refused.stderr.contains(&name) && refused.stderr.contains("no store"),
            "{}",
            refused.stderr
        );
    }
    assert!(run("ls", device, NONE).stderr.contains("rawblock format"));
    for (path, part) in [
        ("/nowhere/at/all", "/nowhere/at/all"),
        ("/tmp", "directory"),
        ("/dev/null", "character device"),
    ] {
        let refused = run("info", Path::new(path), NONE);
        assert_eq!(refused.status, 2);
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let large = run("format", device, ["--value-size", "1GiB"]);
    assert_eq!(large.status, 2);
    assert!(large.stderr.contains("too few"), "{}", large.stderr);
    done("format", device, ["--value-size", "16KiB"]);
    let missing = run("put", device, ["key", "/nowhere/at/all"]);
    assert_eq!(missing.status, 2);
    assert!(missing.stderr.contains("/nowhere/at/all"), "{}", missing.stderr);
    let empty = run_with_input(command("put", device, ["", "-"]), b"value");
    assert_eq!(empty.status, 2);
    assert!(empty.stderr.contains("at least 1 byte"), "{}", empty.stderr);
    for wrong in [&["--value-size=4KiB", "--slot-size=8KiB"][..], &["--value-size=4KB"], &[]] {
        assert_eq!(run("format", device, wrong).status, 2, "{wrong:?}");
    }
}

#[test]
fn a_store_that_another_process_has_open_is_left_alone() {
    let Some(device) = store() else { return };
    let backend = open_device(device.path(), Engine::Posix, Direct::Preferred).unwrap();
    let _open = Store::open(backend).unwrap();
    for (command, arguments) in [("ls", &NONE[..]), ("check", &NONE), ("rm", &["key"])] {
        let refused = run(command, device.path(), arguments);
        assert_eq!(refused.status, 2, "{command}");
        let holder = format!("in process {}", std::process::id());
        assert!(refused.stderr.contains(&holder), "{}", refused.stderr);
    }
}

#[test]
fn whoever_only_looks_changes_nothing_also_in_a_store_that_was_not_closed() {
    let Some(device) = store() else { return };
    {
        let backend = open_device(device.path(), Engine::Posix, Direct::Preferred).unwrap();
        let store = Store::open(backend).unwrap();
        common::put_all(&store, &[Put::new(b"key", b"value"), Put::new(b"other", b"value")]);
        assert!(store.delete_many(&[b"other"]).remove(0).unwrap());
    }
    let before = fs::read(device.path()).unwrap();
    assert!(done("info", device.path(), NONE).text().contains("not closed in order"));
    assert_eq!(done("ls", device.path(), NONE).text(), "       5 B  key\n");
    assert_eq!(done("get", device.path(), ["key", "-"]).stdout, b"value");
    done("check", device.path(), NONE);
    for structure in ["superblock", "checkpoint", "delete-log", "slot"] {
        done("dump", device.path(), [structure]);
    }
    assert!(fs::read(device.path()).unwrap() == before);
}

#[test]
fn info_tells_what_the_store_is() {
    let Some(device) = store() else { return };
    put(device.path(), "key", b"value");
    let text = done("info", device.path(), NONE).text();
    for part in ["\"for a test\"", "clean", "20 KiB", "up to 16 KiB", "1 in checkpoint", "3 of 3"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = &done("info", device.path(), ["--json"]).json()[0];
    assert_eq!((&json["label"], &json["state"]), (&"for a test".into(), &"clean".into()));
    assert_eq!((&json["objects_at_checkpoint"], &json["value_bytes"]), (&1.into(), &16_384.into()));
    assert_eq!(json["device"]["capacity_bytes"], 4 << 20);
}

#[test]
fn every_structure_is_dumped_as_text_and_as_json() {
    let Some(device) = store() else { return };
    let device = device.path();
    put(device, "key", &bytes(1, 9000));
    put(device, "gone", b"value");
    done("rm", device, ["gone"]);
    for (structure, lines, part) in [
        ("superblock", 3, "label=for a test"),
        // Two headers; the object is in both, and what was deleted in the older one.
        ("checkpoint", 5, "value_bytes=9000"),
        ("delete-log", 64, "key_hash"),
        ("slot", 2, "key=gone"),
    ] {
        let text = done("dump", device, [structure]).text();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.contains(part), "{part}: {text}");
        let json = done("dump", device, [structure, "--json"]).json();
        assert_eq!(json.len(), lines);
        assert!(json.iter().all(|line| line["offset"].is_u64() && line["valid"].is_boolean()));
    }
    let one = done("dump", device, ["slot", "--number", "0", "--json"]).json();
    assert_eq!(
        (one.len(), &one[0]["key"], &one[0]["value_bytes"]),
        (1, &"key".into(), &9000.into())
    );
    let unwritten = done("dump", device, ["slot", "--number", "9"]).text();
    assert!(unwritten.contains("not valid"), "{unwritten}");
    let beyond = run("dump", device, ["superblock", "--number", "3"]);
    assert_eq!(beyond.status, 2);
    assert!(beyond.stderr.contains("the last one is 2"), "{}", beyond.stderr);
}

#[test]
fn nothing_is_coloured_that_goes_to_no_terminal() {
    let Some(device) = store() else { return };
    for ran in [
        run("--help", device.path(), NONE),
        run("check", device.path(), NONE),
        run("get", device.path(), ["missing", "-"]),
        run("format", device.path(), ["--value-size=4KiB"]),
        run("format", device.path(), NONE),
    ] {
        assert!(!ran.text().contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
    }
}
