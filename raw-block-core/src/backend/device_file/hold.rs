//! Holding a device against other openers, and waiting for the process that holds it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind};

/// How long opening waits for a device that a running process holds: it may be about to close it.
const CLOSING: Duration = Duration::from_secs(2);
/// How long opening waits for a device that an ended process holds: the kernel keeps it open until
/// its last request has completed.
const IN_FLIGHT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Locks an open device with `flock(2)`, exclusively or shared with other readers: for backends
/// that open their device themselves.
///
/// The lock belongs to the open file description, so the device is to be read and written through
/// this one: after `SIGKILL` the kernel then keeps the lock until the last request of the process
/// has completed.
///
/// A device that a running process has locked is tried again for 2 seconds, and one that an ended
/// process has locked for 60 seconds. `device` is its name in messages.
///
/// # Errors
/// [`ErrorKind::Busy`]: it is still locked.
pub fn lock_device(file: &File, shared: bool, device: &str) -> Result<(), Error> {
    let attempt = || {
        let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(io::Error::from)
    };
    while_held(device, attempt, || Holder::of_lock(file)).map_err(|refusal| {
        let rule = match refusal.holder {
            None => return Error::os("lock", refusal.error),
            Some(Holder::Running(None)) => {
                "it is open already, here or in another process: close it there first".to_owned()
            }
            Some(holder) => holder.rule(),
        };
        Error::new(ErrorKind::Busy, "lock", rule)
    })
}

/// Names this process as the holder of a block device that is open exclusively.
///
/// `O_EXCL` keeps other processes out, but does not say which process has it open. A shared lock
/// does, and does not block processes that share it, such as udev. Without it the next opener only
/// waits less.
pub(super) fn name_holder(file: &File) {
    let _ = file.try_lock_shared();
}

/// The process that holds a device, as far as the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A process that runs, or something else, such as a mount.
    Running(Option<u32>),
    /// A process that has ended, or is ending. One without a number is not in this PID namespace,
    /// and counts as ended: the kernel does not say whether it runs.
    Ended(Option<u32>),
}

impl Holder {
    /// Finds the process that has locked `file`.
    pub(super) fn of_lock(file: &File) -> Self {
        let inode = file.metadata().map(|metadata| metadata.ino());
        match (inode, fs::read_to_string("/proc/locks")) {
            (Ok(inode), Ok(locks)) => Self::among(lockers(&locks, inode), is_running),
            _ => Self::Running(None),
        }
    }

    /// Finds the process that has the block device at `path` open exclusively.
    pub(super) fn of_block_device(path: &Path) -> Self {
        match File::open(path).map(|file| (file.try_lock().is_err(), file)) {
            Ok((true, file)) => Self::of_lock(&file),
            // Not locked, so no process of this library holds it.
            _ => Self::Running(None),
        }
    }

    fn among(lockers: impl Iterator<Item = u32> + Clone, runs: impl Fn(u32) -> bool) -> Self {
        let running = lockers.clone().find(|&process| runs(process));
        running.map_or(Self::Ended({ lockers }.next()), |process| Self::Running(Some(process)))
    }

    /// Why the device cannot be opened, and what to do.
    pub(super) fn rule(self) -> String {
        match self {
            Self::Running(None) => "it is mounted, or another process holds it".to_owned(),
            Self::Running(Some(process)) => {
                format!("it is open already, in process {process}: close it there first")
            }
            Self::Ended(process) => {
                let process = process.map_or_else(String::new, |process| format!(" {process}"));
                format!(
                    "it is held by process{process}, which has ended, and still is after {} s: I/O of that process is in \
                     flight, or a child that it forked has the device open; end that child, or wait until the device \
                     has completed its I/O, and open it again",
                    IN_FLIGHT.as_secs()
                )
            }
        }
    }
}

/// The processes that have locked a file with this inode number, from the text of `/proc/locks`.
///
/// The number of the file system is not compared: on btrfs that of `stat(2)` is another one. A lock
/// on another file with the same inode number can only be one process more.
fn lockers(locks: &str, inode: u64) -> impl Iterator<Item = u32> + Clone {
    locks.lines().filter_map(move |line| {
        // "1: FLOCK  ADVISORY  WRITE 29482 fe:00:16418770 0 EOF"; a process that waits has "->"
        // before FLOCK.
        let mut fields = line.split_whitespace().skip(1);
        let is_lock = fields.next() == Some("FLOCK");
        let process = fields.nth(2)?.parse().ok()?;
        let is_this = fields.next()?.rsplit(':').next()?.parse() == Ok(inode);
        (is_lock && is_this).then_some(process)
    })
}

/// Whether a process exists, and will go on to run: it is no zombie, and was not killed.
fn is_running(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| !is_ending(&status))
}

/// Whether a process is ending, from the text of its `/proc/PID/status`.
fn is_ending(status: &str) -> bool {
    const KILLED: u64 = 1 << (libc::SIGKILL - 1);
    status.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| match name {
        "State" => value.trim_start().starts_with(['Z', 'X']),
        "SigPnd" | "ShdPnd" => {
            u64::from_str_radix(value.trim(), 16).is_ok_and(|pending| pending & KILLED != 0)
        }
        _ => false,
    })
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: io::Error,
    /// The holder of the device, if that is the reason.
    pub(super) holder: Option<Holder>,
}

/// Repeats an attempt while the device is held, for a time that depends on the holder.
pub(super) fn while_held<T>(
    device: &str,
    mut attempt: impl FnMut() -> io::Result<T>,
    holder: impl Fn() -> Holder,
) -> Result<T, Refusal> {
    let began = Instant::now();
    let mut warned = false;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock) {
            return Err(Refusal { error, holder: None });
        }
        if began.elapsed() >= CLOSING {
            let holder = holder();
            if matches!(holder, Holder::Running(_)) || began.elapsed() >= IN_FLIGHT {
                return Err(Refusal { error, holder: Some(holder) });
            }
            if !warned {
                tracing::warn!(
                    device,
                    ?holder,
                    "opening waits for a process that has ended: its I/O is in flight"
                );
                warned = true;
            }
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: FLOCK  ADVISORY  WRITE 29482 fe:00:16418770 0 EOF
1: -> FLOCK  ADVISORY  WRITE 29483 fe:00:16418770 0 EOF
2: POSIX  ADVISORY  WRITE 700 fe:00:16418770 0 EOF
3: FLOCK  ADVISORY  READ 41 00:1c:16418770 0 EOF
4: FLOCK  ADVISORY  READ 42 00:1c:16418771 0 EOF
";

    #[test]
    fn waiters_and_holders_of_other_files_are_no_holders() {
        assert_eq!(lockers(LOCKS, 16_418_770).collect::<Vec<_>>(), [29482, 41]);
        assert_eq!(lockers(LOCKS, 16_418_771).collect::<Vec<_>>(), [42]);
        assert_eq!(lockers("nonsense\n1: FLOCK\n", 1).count(), 0);
    }

    #[test]
    fn one_running_process_among_the_holders_is_enough() {
        let among = |runs: &[u32]| {
            Holder::among(lockers(LOCKS, 16_418_770), |process| runs.contains(&process))
        };
        assert_eq!(among(&[41]), Holder::Running(Some(41)));
        assert_eq!(among(&[]), Holder::Ended(Some(29482)));
        assert_eq!(Holder::among(std::iter::empty(), |_| true), Holder::Ended(None));
    }

    #[test]
    fn the_rule_names_the_holder_and_says_what_to_do() {
        let ended = Holder::Ended(Some(7)).rule();
        for words in ["process 7,", "after 60 s", "in flight", "end that child"] {
            assert!(ended.contains(words), "{words}? {ended}");
        }
        assert!(Holder::Running(Some(7)).rule().contains("in process 7: close it"));
    }

    #[test]
    fn a_zombie_and_a_killed_process_are_ending() {
        let status = |state, shared| format!("Name:\tx\nState:\t{state}\nShdPnd:\t{shared}\n");
        assert!(!is_ending(&status("S (sleeping)", "0000000000000000")));
        assert!(!is_ending(&status("D (disk sleep)", "0000000000004001")));
        assert!(is_ending(&status("D (disk sleep)", "0000000000000100")));
        assert!(is_ending(&status("Z (zombie)", "0000000000000000")));
        assert!(is_running(std::process::id()));
    }
}
