//! The operator's tool: every command, what it prints, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use common::bytes;
use raw_block_core::Direct;
use raw_block_fixtures::{TempFile, zeroed_file};
use raw_block_store::{Engine, Put, Store, open_backend};
use tool::{command, done, finish, put, run, run_with_input, store_in_a_file};

const NONE: [&str; 0] = [];

/// A file of 16 MiB that contains no store.
fn device() -> Option<TempFile> {
    zeroed_file(16 << 20).inspect_err(raw_block_core::conformance::Skipped::report).ok()
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
        done("format", device, [engine]);
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
fn a_missing_key_is_an_answer_and_the_others_are_deleted() {
    let Some(device) = store_in_a_file() else { return };
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
fn keys_that_are_no_text_are_shown_escaped_or_in_hexadecimal() {
    let Some(device) = store_in_a_file() else { return };
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
fn a_value_that_does_not_fit_names_the_store_that_takes_it() {
    let Some(device) = store_in_a_file() else { return };
    let device = device.path();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let value = bytes(2, 70_000);
    fs::write(&file, &value).unwrap();
    let from_file = run("put", device, [OsStr::new("key"), file.as_os_str()]);
    let piped = run_with_input(command("put", device, ["key", "-"]), &value);
    for refused in [from_file, piped] {
        assert_eq!(refused.status, 2);
        for part in ["70000 bytes", "20480", "--largest-object 69KiB"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
    // The store was closed in order all the same.
    assert_eq!(done("info", device, ["--json"]).json()[0]["state"], "clean");
    done("format", device, ["--largest-object", "69KiB", "--force"]);
    done("put", device, [OsStr::new("key"), file.as_os_str()]);
    assert!(done("get", device, ["key", "-"]).stdout == value);
}

#[test]
fn format_needs_no_size_and_reports_what_it_made() {
    let Some(device) = device() else { return };
    let made = |options: &[&str]| {
        let options = options.iter().chain(&["--json", "--force"]);
        done("format", device.path(), options).json().remove(0)
    };
    let default = made(&[]);
    assert_eq!(default["segment_bytes"], 512 << 10);
    assert_eq!(default["block_bytes"], 4096);
    assert_eq!(default["segments"], 30);
    assert_eq!(default["largest_value_bytes"], (512 << 10) - 3 * 4096);
    let capacity = default["payload_capacity_bytes"].as_u64().unwrap();
    assert!((12 << 20..15 << 20).contains(&capacity), "{capacity}");

    let small = made(&["--segment-size=64KiB", "--block-size=512"]);
    assert_eq!(small["segment_bytes"], 64 << 10);
    assert_eq!(small["block_bytes"], 512);
    assert_eq!(made(&["--largest-object=100KiB"])["segment_bytes"], 1 << 20, "eight of them");

    let text = done("format", device.path(), ["--segment-size=1MiB", "--force"]).text();
    for part in [": an empty store of 14 segments of 1 MiB, for about ", " MiB", "up to 1012 KiB\n"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let waste = ["--segment-size=1MiB", "--largest-object=200KiB", "--force"];
    let wasteful = run("format", device.path(), waste);
    assert_eq!(wasteful.status, 0);
    assert!(wasteful.stderr.contains("more than an eighth of a segment"), "{}", wasteful.stderr);
}

#[test]
fn an_error_states_its_cause_once() {
    let absent = run("info", Path::new("/nonexistent/device"), NONE);
    let cause = "No such file or directory (os error 2)";
    assert_eq!(absent.stderr, format!("error: open on /nonexistent/device: {cause}\n"));
    let Some(device) = device() else { return };
    let empty = run("info", device.path(), NONE);
    assert_eq!(empty.stderr.matches("not a superblock").count(), 1, "{}", empty.stderr);
}

#[test]
fn a_store_that_is_impossible_is_refused_in_words() {
    let Some(device) = device() else { return };
    for (options, part) in [
        (&["--segment-size=5000"][..], "is not a power of two"),
        (&["--segment-size=4MiB"], "are too few for 8 segments of 4194304 bytes"),
        (&["--largest-object=1GiB"], "are too few for 8 segments"),
        (&["--segment-size=64KiB", "--largest-object=64KiB"], "do not fit into segments"),
        (&["--block-size=1000"], "is not a power of two from 512 to 65536"),
        (&["--block-size=8GiB"], "above 64KiB"),
        (&["--segment-size=4x"], "write bytes, or a number with KiB"),
        (&["--value-size=4KiB"], "unexpected argument"),
    ] {
        let refused = run("format", device.path(), options);
        assert_eq!((refused.status, &*refused.stdout), (2, &b""[..]), "{options:?}");
        assert!(refused.stderr.contains(part), "{options:?}: {}", refused.stderr);
    }
}

#[test]
fn a_key_that_is_there_is_not_put_again_on_request() {
    let Some(device) = store_in_a_file() else { return };
    let device = device.path();
    put(device, "key", b"first");
    let again = run_with_input(command("put", device, ["--if-absent", "key", "-"]), b"second");
    assert_eq!((again.status, &*again.stdout), (1, &b""[..]));
    assert_eq!(again.stderr, "there is an object with the key key already\n");
    assert_eq!(done("get", device, ["key", "-"]).stdout, b"first");
    let other = run_with_input(command("put", device, ["--if-absent", "other", "-"]), b"second");
    assert_eq!((other.status, &*other.stderr), (0, ""));
    assert_eq!(done("get", device, ["other", "-"]).stdout, b"second");
    put(device, "key", b"third");
    assert_eq!(done("get", device, ["key", "-"]).stdout, b"third");
    assert_eq!(done("info", device, ["--json"]).json()[0]["state"], "clean");
}

#[test]
fn a_store_is_cleared_only_on_confirmation() {
    let Some(device) = store_in_a_file() else { return };
    let device = device.path();
    put(device, "key", b"value");
    put(device, "other", b"value");
    let refused = run("clear", device, NONE);
    assert_eq!((refused.status, &*refused.stdout), (2, &b""[..]));
    assert!(refused.stderr.contains("`--yes`"), "{}", refused.stderr);
    assert_eq!(done("get", device, ["key", "-"]).stdout, b"value");
    let cleared = done("clear", device, ["--yes"]).text();
    assert!(cleared.ends_with(": 2 objects deleted\n"), "{cleared}");
    assert_eq!(done("ls", device, NONE).text(), "");
    assert_eq!(done("info", device, ["--json"]).json()[0]["state"], "clean");
    assert!(done("check", device, NONE).text().contains("0 objects"));
    put(device, "key", b"again");
    assert_eq!(done("get", device, ["key", "-"]).stdout, b"again");
}

#[test]
fn a_store_is_overwritten_only_by_force() {
    let Some(device) = store_in_a_file() else { return };
    put(device.path(), "key", b"value");
    let refused = run("format", device.path(), NONE);
    assert_eq!(refused.status, 2);
    for part in ["for a test", "--force"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert_eq!(done("get", device.path(), ["key", "-"]).stdout, b"value");
    done("format", device.path(), ["--force"]);
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
    done("format", device, NONE);
    let missing = run("put", device, ["key", "/nowhere/at/all"]);
    assert_eq!(missing.status, 2);
    assert!(missing.stderr.contains("/nowhere/at/all"), "{}", missing.stderr);
    let empty = run_with_input(command("put", device, ["", "-"]), b"value");
    assert_eq!(empty.status, 2);
    assert!(empty.stderr.contains("at least 1 byte"), "{}", empty.stderr);
}

#[test]
fn a_store_that_another_process_has_open_is_left_alone() {
    let Some(device) = store_in_a_file() else { return };
    let backend = open_backend(device.path(), Engine::Posix, Direct::Preferred).unwrap();
    let _open = Store::open(backend).unwrap();
    // Each of them waits for a while, in case that the holder ends.
    let refused =
        [("ls", &NONE[..]), ("check", &NONE), ("rm", &["key"])].map(|(name, arguments)| {
            let mut command = command(name, device.path(), arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
    for child in refused {
        let refused = finish(child.wait_with_output().unwrap());
        assert_eq!(refused.status, 2);
        let holder = format!("in process {}", std::process::id());
        assert!(refused.stderr.contains(&holder), "{}", refused.stderr);
    }
}

#[test]
fn commands_that_only_read_change_nothing_in_an_open_store() {
    let Some(device) = store_in_a_file() else { return };
    {
        let backend = open_backend(device.path(), Engine::Posix, Direct::Preferred).unwrap();
        let store = Store::open(backend).unwrap();
        common::put_all(&store, &[Put::new(b"key", b"value"), Put::new(b"other", b"value")]);
        assert!(store.delete_many(&[b"other"]).remove(0).unwrap());
    }
    let before = fs::read(device.path()).unwrap();
    assert!(done("info", device.path(), NONE).text().contains("not closed in order"));
    assert_eq!(done("ls", device.path(), NONE).text(), "       5 B  key\n");
    assert_eq!(done("get", device.path(), ["key", "-"]).stdout, b"value");
    done("check", device.path(), NONE);
    for structure in
        [&["superblock"][..], &["checkpoint"], &["segment"], &["segment", "0"], &["table"]]
    {
        done("dump", device.path(), structure);
    }
    assert!(fs::read(device.path()).unwrap() == before);
}

#[test]
fn nothing_is_coloured_that_goes_to_no_terminal() {
    let Some(device) = store_in_a_file() else { return };
    for ran in [
        run("--help", device.path(), NONE),
        run("check", device.path(), NONE),
        run("get", device.path(), ["missing", "-"]),
        run("format", device.path(), NONE),
        run("format", device.path(), ["--segment-size=0"]),
    ] {
        assert!(!ran.text().contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
    }
}
