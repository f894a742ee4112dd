//! A kernel with scripted results, and a backend on it.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use raw_block_core::backend::{DeviceFile, FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::conformance::Skipped;
use raw_block_core::{Direct, Error, Geometry};
use raw_block_fixtures::{TempFile, temp_file};

use crate::queue::UringQueue;
use crate::ring::{Enter, Kernel, RingDevice, Width};

/// What happens to a system call.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnEnter {
    /// It fails without reaching the kernel.
    Fail(i32),
    /// The kernel takes at most this many entries, and does not wait.
    Take(u32),
    /// It reaches the kernel unchanged.
    Pass,
}

/// What happens to a result.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnResult {
    Replace(i32),
    Keep,
}

/// What happens to the system calls and results of a backend, in order. After the end, all pass
/// unchanged.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) enters: VecDeque<OnEnter>,
    pub(super) results: VecDeque<OnResult>,
    /// The number of free entries that the ring sees in the submission queue, for each push.
    pub(super) free_entries: VecDeque<usize>,
    /// The state of a generator of random transient failures, if there are any.
    pub(super) random: Option<u64>,
    /// Every system call fails with this `errno`.
    pub(super) always_fails: Option<i32>,
    /// The pause of the thread that uses a ring, before each entry and after each completion.
    pub(super) pause: Duration,
    /// The number of entries that the kernel took.
    pub(super) taken: usize,
    /// The number of system calls, including those that failed by the script.
    pub(super) calls: usize,
}

impl Script {
    /// A random number below `bound` (SplitMix64).
    fn random(state: &mut u64, bound: u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn next_enter(&mut self) -> OnEnter {
        self.calls += 1;
        if let Some(errno) = self.always_fails {
            return OnEnter::Fail(errno);
        }
        if let Some(state) = &mut self.random {
            return match Self::random(state, 8) {
                0 => OnEnter::Fail(libc::EINTR),
                1 => OnEnter::Fail(libc::EBUSY),
                2 => OnEnter::Fail(libc::EAGAIN),
                3 => OnEnter::Take(u32::try_from(Self::random(state, 4)).unwrap()),
                _ => OnEnter::Pass,
            };
        }
        self.enters.pop_front().unwrap_or(OnEnter::Pass)
    }

    fn next_free_entries(&mut self, free: usize) -> usize {
        if let Some(state) = &mut self.random {
            return if Self::random(state, 8) == 0 { 0 } else { free };
        }
        self.free_entries.pop_front().map_or(free, |scripted| scripted.min(free))
    }

    fn next_result(&mut self, result: i32) -> OnResult {
        if let Some(state) = &mut self.random {
            return match Self::random(state, 8) {
                0 => OnResult::Replace(-libc::EAGAIN),
                1 => OnResult::Replace(-libc::ECANCELED),
                // A short direct transfer ends at a block of the device.
                2 if result > 512 => OnResult::Replace(result / 2 / 512 * 512),
                _ => OnResult::Keep,
            };
        }
        self.results.pop_front().unwrap_or(OnResult::Keep)
    }
}

/// The kernel, with a script that the queues of a backend share.
#[derive(Clone, Debug, Default)]
pub(super) struct Scripted(pub(super) Arc<Mutex<Script>>);

impl Kernel for Scripted {
    const PAUSE: Duration = Duration::ZERO;

    fn enter(
        &mut self,
        enter: Enter,
        call: impl FnOnce(Enter) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let what = self.0.lock().unwrap().next_enter();
        let result = match what {
            OnEnter::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
            OnEnter::Take(count) => {
                call(Enter { to_submit: enter.to_submit.min(count), want: 0, ..enter })
            }
            OnEnter::Pass => call(enter),
        };
        self.0.lock().unwrap().taken += result.as_ref().copied().unwrap_or(0);
        result
    }

    fn free_entries(&mut self, free: usize) -> usize {
        thread::sleep(self.0.lock().unwrap().pause);
        self.0.lock().unwrap().next_free_entries(free)
    }

    fn result(&mut self, result: i32) -> i32 {
        thread::sleep(self.0.lock().unwrap().pause);
        match self.0.lock().unwrap().next_result(result) {
            OnResult::Replace(result) => result,
            OnResult::Keep => result,
        }
    }
}

/// A backend whose rings have this width and a scripted kernel.
pub(super) struct ScriptedBackend<W> {
    file: Arc<DeviceFile>,
    geometry: Geometry,
    rings: Arc<RingDevice>,
    kernel: Scripted,
    width: PhantomData<W>,
}

struct Shared(Arc<DeviceFile>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A backend on a new file of this length in bytes, and the file. With `idle`, a kernel thread
/// polls for submissions.
pub(super) fn backend<W: Width>(
    len: u64,
    kernel: Scripted,
    idle: Option<Duration>,
) -> Result<(Arc<dyn IoBackend>, TempFile), Skipped> {
    let kept = temp_file(len)?;
    let file = DeviceFile::open(kept.path(), Direct::Preferred).unwrap();
    Ok((backend_on::<W>(file, kernel, idle, 0), kept))
}

/// A backend on a file or block device that reports this many placement handles.
pub(super) fn backend_on<W: Width>(
    file: DeviceFile,
    kernel: Scripted,
    idle: Option<Duration>,
    placement_handles: u16,
) -> Arc<dyn IoBackend> {
    let mut geometry = *file.geometry();
    geometry.placement_handles = placement_handles;
    let file = Arc::new(file);
    let rings = RingDevice::new(Shared(Arc::clone(&file)), file.path(), idle).unwrap();
    let (rings, width) = (Arc::new(rings), PhantomData);
    Arc::new(ScriptedBackend::<W> { file, geometry, rings, kernel, width })
}

impl<W: Width> IoBackend for ScriptedBackend<W> {
    fn engine(&self) -> &'static str {
        "scripted"
    }

    fn name(&self) -> &str {
        self.file.path()
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn stats(&self) -> &Stats {
        self.rings.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.rings.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        Ok(Box::new(UringQueue::<W, _>::open(file, rings, depth, self.kernel.clone())?))
    }

    fn open_local_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let (file, rings) = (Arc::clone(&self.file), Arc::clone(&self.rings));
        Ok(Box::new(UringQueue::<W, _>::open_local(file, rings, depth, self.kernel.clone())?))
    }
}
