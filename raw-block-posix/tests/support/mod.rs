//! Runs a test again with other rights, or reports that this is impossible.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// Set in the second run of a test, to the value that the first run passes on.
const AGAIN: &str = "RAW_BLOCK_POSIX_AGAIN";

/// The value that the first run passed on, in the second run.
pub(crate) fn passed_on() -> Option<OsString> {
    env::var_os(AGAIN)
}

/// Runs the test with this name again: `change` may wrap the command or change its rights. A
/// command that cannot be started is no failure.
pub(crate) fn run_again(test: &str, pass_on: &str, change: impl FnOnce(Command) -> Command) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = change(command).env(AGAIN, pass_on).stderr(Stdio::inherit()).output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let passed = output.status.success() && text.contains("1 passed");
            assert!(passed, "{}, with the output:\n{text}", output.status);
        }
        Err(error) => skip(&format!("this test cannot be run again with other rights: {error}")),
    }
}

/// The command, started by another program.
pub(crate) fn prefixed(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut prefixed = Command::new(program);
    prefixed.args(arguments).arg(command.get_program()).args(command.get_args());
    prefixed
}

/// Reports that a test does not run, even if the output of tests that pass is captured.
pub(crate) fn skip(reason: &str) {
    let line = format!("skipped: {reason}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
