//! A guest that runs: QEMU, its command line, and the lines that come from it.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How much of the console is shown when a guest died.
const CONSOLE_LINES: usize = 25;

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// The version in what `qemu-system-x86_64 --version` prints.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers = text.split_once("version ")?.1;
        let mut numbers = numbers.split(['.', ' ', '\n']).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A guest to be started.
#[derive(Clone, Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) qemu: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: PathBuf,
    /// Drives and controllers.
    pub(crate) devices: Vec<String>,
    /// What the tests find in their environment. The kernel hands to its first process what it does not
    /// know itself.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Where the messages of the kernel go.
    pub(crate) console: PathBuf,
    /// When it is killed.
    pub(crate) timeout: Duration,
}

impl Guest<'_> {
    /// Starts it.
    pub(crate) fn start(&self) -> Result<Running> {
        // A panic ends it: it reboots at once, and that is not allowed.
        let mut parameters = "console=ttyS0 panic=-1 loglevel=5".to_owned();
        for (name, value) in &self.variables {
            parameters.push_str(&format!(" {name}=\"{value}\""));
        }
        let mut command = Command::new(self.qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            // Page tables of five levels cost time under emulation and give nothing.
            .args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"])
            .args(["-smp", "2", "-m", "1G"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &parameters])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-device", "virtio-serial-pci", "-chardev", "file,id=report,path=/dev/stdout"])
            .args(["-device", "virtserialport,chardev=report"])
            .args(&self.devices)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // That of the guest before.
        let _ = fs::remove_file(&self.console);
        let mut child =
            command.spawn().with_context(|| format!("cannot run {}", self.qemu.display()))?;
        let output = child.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let deadline = Instant::now() + self.timeout;
        Ok(Running { child, lines, deadline, timeout: self.timeout, console: self.console.clone() })
    }
}

/// A guest that was started. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    deadline: Instant,
    timeout: Duration,
    console: PathBuf,
}

impl Running {
    /// The next line from the tests, or nothing when QEMU has ended.
    ///
    /// # Errors
    /// When the guest takes too long; it is killed.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                self.kill()?;
                bail!(
                    "the guest was not over after {} s: it hangs, or needs a longer --timeout{}",
                    self.timeout.as_secs(),
                    self.last_words()
                )
            }
        }
    }

    /// Waits until QEMU has ended.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for QEMU")
    }

    /// Pulls the plug.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill QEMU")?;
        self.wait().map(drop)
    }

    /// The end of what the kernel said, for an error.
    pub(crate) fn last_words(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
        format!("\nits console ({}) ends with:\n{}", self.console.display(), last.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |text| Version::parse(text).unwrap();
        let new = version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright");
        let old = version("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u15)\nCopyright");
        assert_eq!((new.major, new.minor), (10, 0));
        assert!(old < Version { major: 8, minor: 0 } && Version { major: 8, minor: 0 } < new);
        assert_eq!(Version::parse("something else"), None);
    }
}
