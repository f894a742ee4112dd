//! Runs the batches of one case for one slice of time, on a number of threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use raw_block_core::backend::IoBackend;

use super::sample::{Part, Readings, Sample, cpu_us};

/// The warm-up: this part of a slice, at most this duration.
const WARM_UP: (u32, Duration) = (8, Duration::from_millis(20));

/// The times of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// The idle time before it. fio leaves the device idle while it starts, and a rate-limited
    /// device is faster afterwards.
    pub(super) rest: Duration,
    /// The measured time.
    pub(super) time: Duration,
}

/// The work of one thread.
pub(super) trait Work: Send {
    /// Runs one batch. Returns `false`, without a batch, when there is no work left.
    fn batch(&mut self) -> Result<bool>;

    /// The maximum number of batches of the warm-up.
    fn warm_up(&self) -> u64 {
        u64::MAX
    }

    /// The number of batches after which [`check`](Self::check) must be called.
    fn stretch(&self) -> u64 {
        u64::MAX
    }

    /// Checks the batches since the last call. The time is not measured.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs each of `works` on its own thread, until each has been measured for the time of `slice` or
/// one of them has no work left.
pub(super) fn measure<W: Work>(
    works: &mut [W],
    keys_per_batch: u64,
    backend: &dyn IoBackend,
    Slice { rest, time: slice }: Slice,
) -> Result<Sample> {
    thread::sleep(rest);
    let meter = Meter {
        backend,
        barrier: Barrier::new(works.len()),
        over: AtomicBool::new(false),
        readings: Mutex::default(),
    };
    let mut parts = Vec::new();
    if let [work] = works {
        parts.push(run(work, &meter, slice)?);
    } else {
        let threads = thread::scope(|scope| {
            let started: Vec<_> =
                works.iter_mut().map(|work| scope.spawn(|| run(work, &meter, slice))).collect();
            started.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for part in threads {
            parts.push(part.map_err(|_| anyhow!("a thread of the benchmark panicked"))??);
        }
    }
    let readings = meter.readings.into_inner().unwrap_or_else(PoisonError::into_inner);
    Sample::new(&parts, keys_per_batch, &readings)
}

/// The measurement that all threads share.
struct Meter<'a> {
    backend: &'a dyn IoBackend,
    barrier: Barrier,
    /// Set by a thread between two barriers, to end the slice.
    over: AtomicBool,
    readings: Mutex<Readings>,
}

impl Meter<'_> {
    /// Starts a stretch on all threads at once.
    fn start(&self) {
        self.once(|readings| {
            if readings.before.is_none() {
                readings.before = Some(self.backend.stats().snapshot());
            }
            readings.cpu_us -= cpu_us();
        });
    }

    /// Ends a stretch, when all threads have ended it. Returns whether the slice has ended.
    fn end(&self) -> bool {
        self.once(|readings| {
            readings.cpu_us += cpu_us();
            if self.over.load(Ordering::SeqCst) {
                readings.after = Some(self.backend.stats().snapshot());
            }
        });
        self.over.load(Ordering::SeqCst)
    }

    fn once(&self, read: impl FnOnce(&mut Readings)) {
        if self.barrier.wait().is_leader() {
            read(&mut self.readings.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.barrier.wait();
    }
}

fn run(work: &mut impl Work, meter: &Meter<'_>, slice: Duration) -> Result<Part> {
    let mut error = warm_up(work, slice).err();
    let mut part = Part::new()?;
    loop {
        // A thread that has failed still waits at the barriers, or the others would wait forever.
        meter.start();
        let more = error.is_none()
            && stretch(work, slice, u64::MAX, &mut part).unwrap_or_else(|failed| {
                error = Some(failed);
                false
            });
        if !more || part.time >= slice {
            meter.over.store(true, Ordering::SeqCst);
        }
        let over = meter.end();
        if error.is_none() {
            error = work.check().err();
        }
        if over {
            return error.map_or(Ok(part), Err);
        }
    }
}

fn warm_up(work: &mut impl Work, slice: Duration) -> Result<()> {
    let slice = (slice / WARM_UP.0).min(WARM_UP.1);
    let mut ignored = Part::new()?;
    let mut more = true;
    while more && ignored.time < slice && ignored.batches < work.warm_up() {
        more = stretch(work, slice, work.warm_up(), &mut ignored)?;
        work.check()?;
    }
    Ok(())
}

/// Runs batches, at most `limit`, until they must be checked, the time of `part` has passed, or
/// there is no work left (`false`).
fn stretch(work: &mut impl Work, slice: Duration, limit: u64, part: &mut Part) -> Result<bool> {
    let mut last = Instant::now();
    for _ in 0..work.stretch().min(limit) {
        let more = catch_unwind(AssertUnwindSafe(|| work.batch()))
            .map_err(|_| anyhow!("a batch panicked"))??;
        if !more {
            return Ok(false);
        }
        let now = Instant::now();
        part.count(now - last);
        last = now;
        if part.time >= slice {
            break;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use raw_block_core::{Dispatcher, MemoryBackend, WriteAt};
    use std::sync::Arc;

    use super::*;

    /// Writes single blocks; ends or fails after some batches.
    struct Writer {
        device: Arc<Dispatcher>,
        batches: u64,
        unchecked: u64,
        fails: bool,
    }

    impl Work for Writer {
        fn batch(&mut self) -> Result<bool> {
            if self.batches == 0 {
                return if self.fails { Err(anyhow!("on purpose")) } else { Ok(false) };
            }
            self.batches -= 1;
            self.unchecked += 1;
            self.device.write_buffers(&[WriteAt::new(0, &[1; 512])]).all()?;
            Ok(true)
        }

        fn stretch(&self) -> u64 {
            3
        }

        fn check(&mut self) -> Result<()> {
            assert!(self.unchecked <= 3);
            self.unchecked = 0;
            Ok(())
        }
    }

    fn writers(threads: usize, batches: u64, fails: bool) -> (Arc<Dispatcher>, Vec<Writer>) {
        let backend = Arc::new(MemoryBackend::new(1 << 20).unwrap());
        let device = Arc::new(Dispatcher::new(backend).unwrap());
        let writer = || Writer { device: Arc::clone(&device), batches, unchecked: 0, fails };
        (Arc::clone(&device), std::iter::repeat_with(writer).take(threads).collect())
    }

    #[test]
    fn a_slice_counts_what_was_moved_per_key() {
        for threads in [1, 3] {
            let (device, mut works) = writers(threads, u64::MAX, false);
            let slice = Slice { rest: Duration::ZERO, time: Duration::from_millis(20) };
            let sample = measure(&mut works, 1, &**device.backend(), slice).unwrap();
            assert!(sample.keys_per_s > 0.0);
            assert!((sample.io_bytes - 512.0).abs() < 1e-9);
            assert!((sample.submits_per_batch.unwrap() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_slice_ends_when_one_thread_has_nothing_left_or_fails() {
        let slice = Slice { rest: Duration::ZERO, time: Duration::from_secs(3600) };
        let (device, mut works) = writers(2, u64::MAX, false);
        works[0].batches = 200_000;
        measure(&mut works, 1, &**device.backend(), slice).unwrap();
        assert_eq!(works[0].batches, 0);
        let (device, mut works) = writers(2, 10, true);
        let error = measure(&mut works, 1, &**device.backend(), slice).unwrap_err();
        assert_eq!(error.to_string(), "on purpose");
    }
}
