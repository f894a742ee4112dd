//! A running guest: QEMU, its command line, and its output.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Maximum number of lines of the console that are shown when a guest died.
const CONSOLE_LINES: usize = 25;

/// How often a guest is booted until a crash of QEMU counts as a failure.
const BOOTS: u32 = 3;

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// Parses the output of `qemu-system-x86_64 --version`.
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

/// A guest, not started yet.
#[derive(Clone, Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) qemu: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: PathBuf,
    /// Drives and controllers.
    pub(crate) devices: Vec<String>,
    /// Environment variables of the tests. The kernel passes parameters that it does not know to
    /// its first process.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The file for the messages of the kernel.
    pub(crate) console: PathBuf,
    /// The guest is killed after this time.
    pub(crate) timeout: Duration,
}

impl Guest<'_> {
    /// Starts the guest, and blocks until its first process prints its first line, which is empty.
    ///
    /// QEMU itself may abort while a guest with several processors boots under emulation
    /// (`iotlb_to_section: Assertion`, its issue 1921). No test has run by then, so the guest is
    /// booted again. A later crash of QEMU, or any other end of the guest, is a failure.
    ///
    /// # Errors
    /// When QEMU cannot be run, is killed by a signal in each boot, or exits before the
    /// first process runs. When the guest takes too much time.
    pub(crate) fn start(&self) -> Result<Running> {
        until_first_line(|| self.boot())
    }

    fn boot(&self) -> Result<Running> {
        // A panic ends the guest: it would reboot at once, and QEMU does not allow that. QEMU
        // aborts when a second processor is online while the devices are set up (see above), so the
        // first process starts it. Each NVMe controller has one polled queue.
        let mut parameters =
            "console=ttyS0 panic=-1 loglevel=5 maxcpus=1 nvme.poll_queues=1".to_owned();
        for (name, value) in &self.variables {
            parameters.push_str(&format!(" {name}=\"{value}\""));
        }
        let mut command = Command::new(self.qemu);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            // Page tables with five levels are slow under emulation, and not needed.
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
        // The file of the guest before.
        let _ = fs::remove_file(&self.console);
        Running::spawn(&mut command, self.timeout, self.console.clone())
    }
}

/// Boots a guest, see [`Guest::start`].
fn until_first_line(boot: impl Fn() -> Result<Running>) -> Result<Running> {
    let mut boots = 1;
    loop {
        let mut running = boot()?;
        if running.next_line()?.is_some() {
            return Ok(running);
        }
        let status = running.wait()?;
        let words = running.last_words();
        if status.signal().is_none() || boots == BOOTS {
            bail!("QEMU ended ({status}) before the guest ran a test, in boot {boots}{words}");
        }
        println!("QEMU ended ({status}) before the guest ran a test; booting again{words}");
        boots += 1;
    }
}

/// A started guest. It is killed on drop.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    deadline: Instant,
    timeout: Duration,
    console: PathBuf,
}

impl Running {
    fn spawn(qemu: &mut Command, timeout: Duration, console: PathBuf) -> Result<Self> {
        let mut child = qemu
            .spawn()
            .with_context(|| format!("cannot run {}", Path::new(qemu.get_program()).display()))?;
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
        Ok(Self { child, lines, deadline: Instant::now() + timeout, timeout, console })
    }

    /// Returns the next line of the tests, or `None` when QEMU has ended.
    ///
    /// # Errors
    /// When the guest takes too much time. It is killed.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                self.kill()?;
                bail!(
                    "the guest has not ended after {} s: it hangs, or requires a longer --timeout{}",
                    self.timeout.as_secs(),
                    self.last_words()
                )
            }
        }
    }

    /// Blocks until QEMU has ended.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for QEMU")
    }

    /// Kills QEMU, as a power cut.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill QEMU")?;
        self.wait().map(drop)
    }

    /// The end of the console, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&console);
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
        format!("\nthe console ({}) ends with:\n{}", self.console.display(), last.join("\n"))
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
    use std::cell::Cell;

    use super::*;

    /// Starts a guest whose QEMU is this script, which knows the number of the boot. Returns the
    /// result and that number.
    fn booted(script: &str) -> (Result<Option<String>>, u32) {
        let boots = Cell::new(0);
        let boot = || {
            boots.set(boots.get() + 1);
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).env("BOOT", boots.get().to_string()).stdout(Stdio::piped());
            Running::spawn(&mut shell, Duration::from_secs(60), PathBuf::from("no console"))
        };
        let line = until_first_line(boot).and_then(|mut running| running.next_line());
        (line, boots.get())
    }

    #[test]
    fn a_guest_is_booted_again_when_qemu_dies_before_it_speaks() {
        let (line, boots) = booted("[ $BOOT = 2 ] || kill -ABRT $$\necho\necho @vm kernel");
        assert_eq!((line.unwrap().as_deref(), boots), (Some("@vm kernel"), 2));
        let (line, boots) = booted("kill -ABRT $$");
        assert!(line.unwrap_err().to_string().contains("in boot 3"));
        assert_eq!(boots, 3);
    }

    #[test]
    fn a_guest_is_booted_once_when_it_ends_by_itself_or_has_spoken() {
        let (line, boots) = booted("exit 1");
        assert!(line.unwrap_err().to_string().contains("in boot 1"));
        assert_eq!(boots, 1);
        let (line, boots) = booted("echo\nkill -ABRT $$");
        assert_eq!((line.unwrap(), boots), (None, 1));
    }

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
