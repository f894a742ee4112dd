//! The operator's tool where its output cannot be written, would hit the store, or its input has
//! not come yet.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Version, bytes, newest};
use raw_block_core::Direct;
use raw_block_core::conformance::Skipped;
use raw_block_fixtures::{LoopDevice, TempFile, temp_file};
use raw_block_store::{Engine, open_backend};
use tool::{Ran, command, done, finish, run, run_with_input};

const NONE: [&str; 0] = [];
const FORMAT: [&str; 2] = ["--segment-size=256KiB", "--force"];

/// Every command that prints to the standard output.
const PRINTING: [(&str, &[&str]); 11] = [
    ("info", &[]),
    ("info", &["--json"]),
    ("ls", &[]),
    ("get", &["key", "-"]),
    ("check", &[]),
    ("check", &["--json"]),
    ("dump", &["checkpoint"]),
    ("dump", &["table"]),
    ("dump", &["segment", "0", "--json"]),
    ("clear", &["--yes"]),
    ("format", &FORMAT),
];

/// A file with a store that has an object with the key `key`, in its slot header.
fn store() -> Option<TempFile> {
    let device = temp_file(4 << 20).inspect_err(Skipped::report).ok()?;
    fill(device.path());
    Some(device)
}

fn fill(device: &Path) {
    done("format", device, FORMAT);
    let put = run_with_input(command("put", device, ["key", "-"]), b"value");
    assert_eq!(put.status, 0, "{}", put.stderr);
}

/// Flips a bit in the payload of the object.
fn damage(device: &Path) {
    flip(device, |version| version.payload);
}

/// Flips a bit of the object, in a byte of this place.
fn flip(device: &Path, place: impl FnOnce(&Version) -> u64) {
    let mut image = fs::read(device).unwrap();
    let backend = open_backend(device, Engine::Posix, Direct::Preferred).unwrap();
    let at = usize::try_from(place(&newest(&backend, b"key"))).unwrap();
    drop(backend);
    image[at] ^= 1;
    fs::write(device, image).unwrap();
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Runs a command whose output no process reads.
fn run_unread(mut command: Command) -> Ran {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    finish(command.stdout(writer).stderr(Stdio::piped()).output().unwrap())
}

/// Runs a command whose output cannot be written.
fn run_full(mut command: Command) -> Ran {
    finish(command.stdout(full()).stderr(Stdio::piped()).output().unwrap())
}

fn help() -> Command {
    let mut help = Command::new(env!("CARGO_BIN_EXE_rawblock"));
    help.arg("--help");
    help
}

#[test]
fn a_closed_output_ends_every_command_without_a_message() {
    let Some(device) = store() else { return };
    let commands = PRINTING.map(|(name, arguments)| command(name, device.path(), arguments));
    for command in commands.into_iter().chain([help()]) {
        let text = format!("{command:?}");
        let ran = run_unread(command);
        assert_eq!((ran.status, &*ran.stderr), (0, ""), "{text}");
    }
    assert_eq!(done("ls", device.path(), NONE).text(), "", "the last one has formatted it");
}

#[test]
fn a_full_output_is_an_error_in_words() {
    let Some(device) = store() else { return };
    let commands = PRINTING.map(|(name, arguments)| command(name, device.path(), arguments));
    for command in commands.into_iter().chain([help()]) {
        let text = format!("{command:?}");
        let ran = run_full(command);
        assert_eq!(ran.status, 2, "{text}: {}", ran.stderr);
        for part in ["error: ", "cannot write to the standard output", "No space left"] {
            assert!(ran.stderr.contains(part), "{text}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "{text}: {}", ran.stderr);
    }
    assert_eq!(done("ls", device.path(), NONE).text(), "", "the last one has formatted it");
}

#[test]
fn a_failed_output_hides_no_damage() {
    let Some(device) = store() else { return };
    damage(device.path());
    for arguments in [&NONE[..], &["--json"]] {
        let unread = run_unread(command("check", device.path(), arguments));
        assert_eq!((unread.status, &*unread.stderr), (1, ""));
        let full = run_full(command("check", device.path(), arguments));
        assert_eq!(full.status, 1, "{}", full.stderr);
        for part in ["damaged in 1 place", "No space left"] {
            assert!(full.stderr.contains(part), "{}", full.stderr);
        }
    }
    // An object whose header is damaged is left out of the list.
    flip(device.path(), |version| version.slot);
    assert_eq!(run_unread(command("ls", device.path(), NONE)).status, 1);
    assert_eq!(run_full(command("ls", device.path(), NONE)).status, 1);
}

#[test]
fn messages_that_cannot_be_written_change_no_status() {
    let Some(device) = store() else { return };
    for (name, arguments, status) in [
        ("get", &["missing", "-"][..], 1),
        ("rm", &["missing"], 1),
        ("put", &["--if-absent", "key", "/dev/null"], 1),
        ("clear", &[], 2),
        ("format", &[], 2),
        ("get", &[], 2),
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full()), writer.into()] {
            let ended = command(name, device.path(), arguments).stderr(stderr).status().unwrap();
            assert_eq!(ended.code(), Some(status), "{name}");
        }
    }
}

#[test]
fn a_value_is_never_written_over_the_store_it_is_in() {
    let Some(device) = store() else { return };
    let device = device.path();
    let folder = tempfile::tempdir_in(device.parent().unwrap()).unwrap();
    let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
    symlink(device, &soft).unwrap();
    fs::hard_link(device, &hard).unwrap();
    let around = folder.path().join("..").join(device.file_name().unwrap());
    let before = fs::read(device).unwrap();
    for path in [device, &soft, &hard, &around] {
        let refused = run("get", device, [Path::new("key"), path]);
        assert_eq!(refused.status, 2, "{}", path.display());
        assert!(refused.stderr.contains("the store itself"), "{}", refused.stderr);
        let refused = run("get", path, [Path::new("key"), device]);
        assert_eq!(refused.status, 2, "{}", path.display());
    }
    let onto = || OpenOptions::new().write(true).open(&soft).unwrap();
    for name in ["ls", "info", "check", "dump"] {
        let mut output = command(name, device, NONE);
        let refused = finish(output.stdout(onto()).stderr(Stdio::piped()).output().unwrap());
        assert_eq!(refused.status, 2, "{name}");
        assert!(refused.stderr.contains("the store itself"), "{}", refused.stderr);
    }
    assert!(fs::read(device).unwrap() == before);
}

#[test]
fn a_value_is_never_written_to_a_block_device() {
    let Some(file) = store() else { return };
    let [device, other] = match [(); 2].map(|()| LoopDevice::attach(4 << 20, 512)) {
        [Ok(device), Ok(other)] => [device, other],
        [Err(skipped), _] | [_, Err(skipped)] => return Skipped::report(&skipped),
    };
    fill(device.path());
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    symlink(device.path(), &link).unwrap();
    let contents = || [device.path(), other.path()].map(|path| fs::read(path).unwrap());
    let before = contents();
    for (from, to) in [
        (device.path(), device.path()),
        (device.path(), &link),
        (device.path(), other.path()),
        (file.path(), other.path()),
    ] {
        let refused = run("get", from, [Path::new("key"), to]);
        assert_eq!(refused.status, 2, "{}", to.display());
        let part = if to == other.path() { "block device" } else { "the store itself" };
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let name = device.path().file_name().unwrap();
    let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
    let backing = fs::read_to_string(backing).unwrap();
    let refused = run("get", device.path(), ["key", backing.trim_end()]);
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("the store itself"), "{}", refused.stderr);
    assert!(contents() == before);
}

#[test]
fn only_a_value_that_is_there_makes_or_shortens_a_file() {
    let Some(device) = store() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("value");
    let get = |key: &str| run("get", device.path(), [Path::new(key), &path]).status;
    assert_eq!(get("missing"), 1);
    assert!(!path.exists());
    fs::write(&path, "something longer than the value").unwrap();
    assert_eq!(get("missing"), 1);
    assert_eq!(fs::read(&path).unwrap(), b"something longer than the value");
    assert_eq!(get("key"), 0);
    assert_eq!(fs::read(&path).unwrap(), b"value");
    assert_eq!(run("get", device.path(), ["key", "/dev/null"]).status, 0);
    damage(device.path());
    assert_eq!(get("key"), 2);
    assert_eq!(fs::read(&path).unwrap(), b"value");
}

/// Runs a command that may make no file longer than `limit` blocks of 512 bytes, nor write past
/// them.
fn run_limited(limit: u32, limited: &Command, input: &[u8]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -f {limit}; exec \"$0\" \"$@\"")]);
    command.arg(limited.get_program()).args(limited.get_args());
    run_with_input(command, input)
}

#[test]
fn a_file_size_limit_is_an_error_in_words() {
    let Some(device) = store() else { return };
    let folder = tempfile::tempdir_in(device.path().parent().unwrap()).unwrap();
    let value = bytes(1, 200 << 10);
    let long = run_with_input(command("put", device.path(), ["long", "-"]), &value);
    assert_eq!(long.status, 0, "{}", long.stderr);
    for engine in ["posix", "auto"] {
        let engine = format!("--engine={engine}");
        let put = command("put", device.path(), ["other", "-", engine.as_str()]);
        let refused = run_limited(16, &put, &value);
        assert_eq!(refused.status, 2, "{}", refused.stderr);
        for part in ["error: ", "File too large", "`ulimit -f`"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }
    let path = folder.path().join("value");
    let get = command("get", device.path(), [Path::new("long"), &path]);
    let refused = run_limited(16, &get, b"");
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    for part in ["value", "File too large", "`ulimit -f`"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert!(!path.exists(), "what is not whole is not left");
    assert_eq!(done("ls", device.path(), NONE).text().lines().count(), 2);
}

#[test]
fn a_store_is_not_opened_before_the_value_for_it_has_come() {
    let Some(device) = store() else { return };
    let device = device.path();
    let value = bytes(2, 200 << 10);
    let waiting = |from: &Path| {
        command("put", device, [Path::new("slow"), from])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let fifo = tempfile::tempdir().unwrap();
    let fifo = fifo.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for from in [Path::new("-"), &fifo] {
        let mut child = waiting(from);
        let stdin = child.stdin.take().unwrap();
        let mut input: Box<dyn Write> = if from == fifo {
            Box::new(OpenOptions::new().write(true).open(from).unwrap())
        } else {
            Box::new(stdin)
        };
        // More than a pipe holds: so some of it was read.
        let (first, rest) = value.split_at(150 << 10);
        input.write_all(first).unwrap();
        assert_eq!(done("info", device, ["--json"]).json()[0]["state"], "clean");
        let other = run_with_input(command("put", device, ["other", "-"]), b"value");
        assert_eq!(other.status, 0, "{}", other.stderr);
        input.write_all(rest).unwrap();
        drop(input);
        let ran = finish(child.wait_with_output().unwrap());
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let said = ran.stderr.trim();
        let is_long = "WARN an object is longer than an eighth of a segment";
        assert!(said.lines().count() == 1 && said.starts_with(is_long), "{said}");
        assert!(done("get", device, ["slow", "-"]).stdout == value);
    }
}

#[test]
fn a_value_that_cannot_be_read_leaves_the_store_alone() {
    let Some(device) = store() else { return };
    let before = fs::read(device.path()).unwrap();
    // The second one opens, and its reading fails.
    for path in ["/nowhere/at/all", "/proc/self/mem", "/tmp"] {
        let refused = run("put", device.path(), ["other", path]);
        assert_eq!(refused.status, 2, "{path}");
        assert!(refused.stderr.contains(path), "{}", refused.stderr);
    }
    let mut endless = File::open("/dev/zero").unwrap().take(512 << 10);
    let mut value = Vec::new();
    endless.read_to_end(&mut value).unwrap();
    let large = run_with_input(command("put", device.path(), ["other", "-"]), &value);
    assert_eq!(large.status, 2);
    assert!(large.stderr.contains("--largest-object 512KiB"), "{}", large.stderr);
    assert!(fs::read(device.path()).unwrap() == before);
}

#[test]
fn a_put_from_a_closed_standard_input_is_refused() {
    let Some(store) = store() else { return };
    let put_from = |input: &str| {
        let script = format!(r#"exec "$@" {input}"#);
        let put = command("put", store.path(), ["other", "-"]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg("sh").arg(put.get_program()).args(put.get_args());
        finish(shell.output().unwrap())
    };
    let closed = put_from("<&-");
    assert_eq!(closed.status, 2, "{}", closed.stderr);
    assert!(closed.stderr.contains("cannot read the standard input: it is closed"));
    assert_eq!(run("get", store.path(), ["other", "-"]).status, 1);
    let empty = put_from("</dev/null");
    assert_eq!((empty.status, &*empty.stderr), (0, ""));
    assert_eq!(done("get", store.path(), ["other", "-"]).stdout, b"");
    done("put", store.path(), ["other", "/dev/null"]);
}
