//! Running a test again where it has other rights, and saying so when that cannot be done.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// Set where a test runs again, to what the first run passes on.
const AGAIN: &str = "RAW_BLOCK_POSIX_AGAIN";

/// What the first run passed on, where the test runs again.
pub(crate) fn passed_on() -> Option<OsString> {
    env::var_os(AGAIN)
}

/// Runs the test with this name again: `change` may wrap the command or change its rights. A command
/// that cannot be started is no failure.
pub(crate) fn run_again(test: &str, pass_on: &str, change: impl FnOnce(Command) -> Command) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = change(command).env(AGAIN, pass_on).stderr(Stdio::inherit()).output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let passed = output.status.success() && said.contains("1 passed");
            assert!(passed, "{}, and it said:\n{said}", output.status);
        }
        Err(error) => skip(&format!("this test cannot be run again with other rights: {error}")),
    }
}

/// The command with another program in front of it.
pub(crate) fn prefixed(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut prefixed = Command::new(program);
    prefixed.args(arguments).arg(command.get_program()).args(command.get_args());
    prefixed
}

/// Says that a test does not run, also where the output of tests that pass is captured.
pub(crate) fn skip(reason: &str) {
    let line = format!("skipped: {reason}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
