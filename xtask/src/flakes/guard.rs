//! Guarded processes: they end with this one, however it ends.

use std::fs::File;
use std::hint;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The interval in which a process is polled.
const POLL: Duration = Duration::from_millis(5);

/// A process group that is killed on drop, or when this process ends. Its leader runs this program.
/// It kills the group when its standard input, a pipe, is closed.
#[derive(Debug)]
pub(super) struct Guarded(Child);

impl Guarded {
    /// Starts a process that keeps a processor busy.
    pub(super) fn busy() -> Result<Self> {
        Self::spawn(this_program().arg("--busy"))
    }

    /// Runs a program in a directory. The process exits as the program does: see [`run`].
    pub(super) fn program(
        program: &Path,
        arguments: &[&str],
        directory: &Path,
        stdout: File,
        stderr: File,
    ) -> Result<Self> {
        let mut command = this_program();
        command.arg("--guard").arg(program).arg("--").args(arguments);
        // Cargo sets it for tests; that of this chore has another value.
        command.current_dir(directory).env("CARGO_MANIFEST_DIR", directory);
        Self::spawn(command.stdout(stdout).stderr(stderr))
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::piped()).process_group(0).spawn();
        Ok(Self(child.context("cannot start this program again")?))
    }

    /// Blocks until the process ends, for at most `limit`. Returns `None` if it has not ended.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let began = Instant::now();
        loop {
            let ended = self.0.try_wait().context("cannot wait for a process")?;
            if ended.is_some() || began.elapsed() > limit {
                return Ok(ended);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It has ended, or is being killed.
        let _ = self.0.wait();
    }
}

/// This program, even if its file was replaced in the meantime.
fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xtask").arg("flakes");
    command
}

/// Keeps a processor busy until the standard input is closed.
pub(super) fn keep_busy() -> ! {
    kill_group_at_end_of_input();
    loop {
        hint::spin_loop();
    }
}

/// Runs a program until it ends or the standard input is closed. Exits with its status, or with 128
/// plus the number of the signal that ended it, and prints the signal to the standard error.
pub(super) fn run(program: &Path, arguments: &[String]) -> Result<()> {
    kill_group_at_end_of_input();
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    if let Some(signal) = status.signal() {
        eprintln!("the process was ended by {status}");
        process::exit(128 + signal);
    }
    process::exit(status.code().unwrap_or(1));
}

fn kill_group_at_end_of_input() {
    thread::spawn(|| {
        // The parent never writes to the pipe.
        let _ = io::stdin().lock().read(&mut [0]);
        // Group 0 is the group of this process.
        let _ = kill(Pid::from_raw(0), Signal::SIGKILL);
    });
}
