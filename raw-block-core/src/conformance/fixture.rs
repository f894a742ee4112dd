//! What to test on: a temporary file, a loop device over one, a drive of the virtual machine, a thread that may
//! not use io_uring; a process that is killed while it writes; and the log of a drive's requests.

mod killed;
mod nvme;
mod secret;
mod write_log;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tempfile::{NamedTempFile, TempPath};

use super::Skipped;
use super::bytes::pattern;
pub use killed::{KilledWriter, WriteLimit};
pub use nvme::{NvmeNamespace, read_fault, rounds, write_fault};
pub use secret::SecretMemory;
pub use write_log::{LogEntry, WriteLog};

/// How often another loop device is tried when somebody else was faster.
const ATTEMPTS: usize = 10;

/// A file that is deleted when this is dropped.
#[derive(Debug)]
pub struct TempFile(TempPath);

impl TempFile {
    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// A new file of `len` bytes on a disk: in `CARGO_TARGET_TMPDIR`, beside the test program, in the
/// current directory or in the system's directory for temporary files, whichever is the first that is
/// not in memory. Every byte of it is written, so there are no holes.
///
/// # Errors
/// When none of these directories is on a disk and can be written to.
///
/// # Panics
/// When the file cannot be filled.
pub fn temp_file(len: u64) -> Result<TempFile, Skipped> {
    filled_file(len, &pattern(len, 1 << 20))
}

/// A file like that of [`temp_file`], of zeroes: a store can be made in it.
///
/// # Errors
/// Those of [`temp_file`].
///
/// # Panics
/// As [`temp_file`].
pub fn zeroed_file(len: u64) -> Result<TempFile, Skipped> {
    filled_file(len, &vec![0; 1 << 20])
}

fn filled_file(len: u64, chunk: &[u8]) -> Result<TempFile, Skipped> {
    let mut file = disk_directories()
        .find_map(|directory| {
            tempfile::Builder::new().prefix("raw-block-").tempfile_in(directory).ok()
        })
        .ok_or_else(|| Skipped::because("no directory on a disk can be written to"))?;
    fill(&mut file, len, chunk)
        .unwrap_or_else(|error| panic!("fill {}: {error}", file.path().display()));
    Ok(TempFile(file.into_temp_path()))
}

fn disk_directories() -> impl Iterator<Item = PathBuf> {
    let beside = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    [env::var_os("CARGO_TARGET_TMPDIR").map(PathBuf::from), beside, env::current_dir().ok()]
        .into_iter()
        .flatten()
        .chain([env::temp_dir()])
        .filter(|path| statfs(path).is_ok_and(|answer| answer.filesystem_type() != TMPFS_MAGIC))
}

fn fill(file: &mut NamedTempFile, len: u64, chunk: &[u8]) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        file.write_all(&chunk[..part])?;
        left -= part as u64;
    }
    file.as_file().sync_all()
}

/// A block device over a temporary file; it is detached when this is dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    // Deleted after the device was detached.
    _file: TempFile,
}

impl LoopDevice {
    /// A loop device of `len` bytes in sectors of `sector_size` bytes (512 or 4096), which bypasses the
    /// page cache of its file where the file system allows that.
    ///
    /// # Errors
    /// When this user or this system cannot attach one: it takes root, the program `losetup` and a
    /// kernel with loop devices.
    ///
    /// # Panics
    /// As [`temp_file`].
    pub fn attach(len: u64, sector_size: u32) -> Result<Self, Skipped> {
        Self::attach_with(len, sector_size, &[])
    }

    /// A loop device as from [`attach`](Self::attach), in sectors of 512 bytes, that takes no writes.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Panics
    /// As [`temp_file`].
    pub fn attach_write_protected(len: u64) -> Result<Self, Skipped> {
        Self::attach_with(len, 512, &["--read-only"])
    }

    fn attach_with(len: u64, sector_size: u32, options: &[&str]) -> Result<Self, Skipped> {
        let file = temp_file(len)?;
        let mut refused = Skipped::because("no loop device was free");
        for direct in ["on", "off"] {
            for _ in 0..ATTEMPTS {
                match attach(&file, sector_size, direct, options)? {
                    Ok(path) => return Ok(Self { path, _file: file }),
                    Err(reason) if reason.contains("busy") => refused = Skipped::because(reason),
                    Err(reason) => {
                        refused = Skipped::because(reason);
                        break;
                    }
                }
            }
        }
        Err(refused)
    }

    /// Bytes written to the device and discards it was asked for, as the kernel counts them (its
    /// `Documentation/block/stat.rst`). The kernel counts a request after it has said that it is done, so
    /// this waits until the counts are `expected`, for ten seconds at most.
    ///
    /// # Errors
    /// When sysfs does not tell.
    pub fn written_and_discards(
        &self,
        expected: Option<(u64, u64)>,
    ) -> Result<(u64, u64), Skipped> {
        let name = self.path.file_name().unwrap_or_default();
        let stat = Path::new("/sys/block").join(name).join("stat");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let text = fs::read_to_string(&stat).map_err(Skipped::because)?;
            let number = |nth: usize| {
                let number =
                    text.split_whitespace().nth(nth).and_then(|number| number.parse().ok());
                number.ok_or_else(|| Skipped::because(format!("{} says {text:?}", stat.display())))
            };
            // Sectors are of 512 bytes here, whatever those of the device are.
            let counts = (number(6)? * 512, number(11)?);
            if expected.is_none_or(|expected| counts == expected) || Instant::now() > deadline {
                return Ok(counts);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The device's path, such as `/dev/loop0`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        detach(&self.path);
    }
}

/// Attaches once. The inner error is what `losetup` said.
fn attach(
    file: &TempFile,
    sector_size: u32,
    direct: &str,
    options: &[&str],
) -> Result<Result<PathBuf, String>, Skipped> {
    let output = Command::new("losetup")
        .args(["--find", "--show", &format!("--sector-size={sector_size}")])
        .arg(format!("--direct-io={direct}"))
        .args(options)
        .arg(file.path())
        .output()
        .map_err(|error| Skipped::because(format!("the program losetup does not run: {error}")))?;
    if !output.status.success() {
        return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if let Err(error) = fs::metadata(&path) {
        detach(&path);
        return Err(Skipped::because(format!("{} is not there: {error}", path.display())));
    }
    Ok(Ok(path))
}

fn detach(path: &Path) {
    // Somebody who still has it open keeps it until then: the kernel detaches it afterwards.
    let _ = Command::new("losetup").arg("--detach").arg(path).output();
}

/// Runs `test` in a thread in which `io_uring_setup(2)` fails with `errno`: as under the seccomp profile of
/// a container, which answers `EPERM` or `ENOSYS`.
///
/// # Panics
/// When `test` panics, or the thread cannot be restricted.
pub fn without_io_uring<T: Send>(errno: i32, test: impl FnOnce() -> T + Send) -> T {
    without_calls(&[libc::SYS_io_uring_setup], errno, test)
}

/// Runs `test` in a thread that can start no other, as if there were too many.
///
/// # Panics
/// As [`without_io_uring`].
pub fn without_threads<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    without_calls(&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN, test)
}

/// Runs `test` in a thread in which the system calls with these numbers fail with `errno`.
///
/// # Panics
/// As [`without_io_uring`].
pub fn without_calls<T: Send>(calls: &[i64], errno: i32, test: impl FnOnce() -> T + Send) -> T {
    let restricted = || {
        let filter = SeccompFilter::new(
            calls.iter().map(|&call| (call, Vec::new())).collect::<BTreeMap<_, _>>(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            env::consts::ARCH.try_into().unwrap(),
        );
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        // The filter ends with the thread, and holds for no other.
        apply_filter(&program).unwrap();
        test()
    };
    thread::scope(|scope| scope.spawn(restricted).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
