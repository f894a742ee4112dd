//! Runs the program `rawblock`.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use raw_block_core::conformance::Skipped;
use raw_block_fixtures::{TempFile, zeroed_file};

/// What the program printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Every line of the output, as JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) fn command(
    name: &str,
    device: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rawblock"));
    command.arg(name).arg(device).args(arguments);
    command
}

/// Runs a command on a device.
pub(crate) fn run(
    name: &str,
    device: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Ran {
    finish(command(name, device, arguments).output().unwrap())
}

/// Runs a command that succeeds.
pub(crate) fn done(
    name: &str,
    device: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Ran {
    let ran = run(name, device, arguments);
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{name}: {}", ran.text());
    ran
}

/// Runs a command with these bytes as its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Ran {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may refuse, and end, before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child.wait_with_output().unwrap())
}

pub(crate) fn finish(output: Output) -> Ran {
    Ran {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file of 16 MiB with an empty store, whose segments of 32 KiB take values of up to 20 KiB.
pub(crate) fn store_in_a_file() -> Option<TempFile> {
    let device = zeroed_file(16 << 20).inspect_err(Skipped::report).ok()?;
    done("format", device.path(), ["--segment-size", "32KiB", "--label", "for a test"]);
    Some(device)
}

/// Puts a value, which must succeed.
pub(crate) fn put(device: &Path, key: &str, value: &[u8]) {
    let put = run_with_input(command("put", device, [key, "-"]), value);
    assert_eq!(put.status, 0, "{}", put.stderr);
}
