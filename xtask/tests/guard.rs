//! The guards of `cargo xtask flakes`: processes that end with the chore, however it ends.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

/// A guard with these arguments, which leads a process group.
fn guard(arguments: &[&str]) -> Command {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_xtask"));
    guard.arg("flakes").args(arguments).process_group(0);
    guard.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    guard
}

/// Runs a shell script below a guard until it ends.
fn run(script: &str) -> Output {
    let mut child = guard(&["--guard", "sh", "--", "-c", script]).spawn().unwrap();
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    output
}

#[test]
fn a_guard_ends_as_its_program_does() {
    for code in [0, 1, 101] {
        let output = run(&format!("echo out; echo err >&2; exit {code}"));
        assert_eq!(output.status.code(), Some(code));
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    }
    let output = run("kill -ABRT $$");
    assert_eq!(output.status.code(), Some(128 + 6));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("signal: 6"), "{stderr}");
}

#[test]
fn a_guard_whose_input_closes_kills_what_it_runs() {
    for (arguments, line) in [
        (&["--guard", "sh", "--", "-c", "sleep 60 & echo started; wait"][..], "started\n"),
        (&["--busy"], ""),
    ] {
        let mut child = guard(arguments).spawn().unwrap();
        let (stdin, mut stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut found = vec![0; line.len()];
        stdout.read_exact(&mut found).unwrap();
        assert_eq!(found, line.as_bytes());
        drop(stdin);
        // End of file: the last process of the group has ended.
        assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
