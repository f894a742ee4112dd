//! Runs batches on several threads, as fast as possible or at a fixed rate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use hdrhistogram::Histogram;

/// When batches begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Closed loop: each thread begins its next batch when the last one has completed.
    Closed,
    /// Open loop: this many a second, whether earlier ones have completed or not. The latency of a
    /// batch includes its delay.
    Open(f64),
}

/// When a run ends: at the first of these limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) time: Duration,
    pub(super) batches: u64,
}

impl Limit {
    pub(super) fn time(time: Duration) -> Self {
        Self { time, batches: u64::MAX }
    }

    pub(super) fn batches(batches: u64) -> Self {
        Self { time: Duration::MAX, batches }
    }
}

/// The figures of a run.
pub(super) struct Timed {
    pub(super) batches: u64,
    pub(super) time: Duration,
    /// In nanoseconds.
    pub(super) latency: Histogram<u64>,
}

impl Timed {
    pub(super) fn batches_per_s(&self) -> f64 {
        self.batches as f64 / self.time.as_secs_f64()
    }

    /// The 50th, 99th and 99.9th percentile and the maximum, in microseconds.
    pub(super) fn latencies_us(&self) -> [f64; 4] {
        let quantile = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        [quantile(0.5), quantile(0.99), quantile(0.999), self.latency.max() as f64 / 1e3]
    }
}

/// An empty histogram of latencies.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    // Up to ten minutes in nanoseconds.
    Ok(Histogram::new_with_bounds(1, 600_000_000_000, 3)?)
}

/// Runs batches from number `first`. Each of `works` has its own thread.
///
/// # Errors
/// When a batch fails, or the rate of an open loop is not a positive number.
pub(super) fn run<W>(works: Vec<W>, first: u64, limit: Limit, pace: Pace) -> Result<Timed>
where
    W: FnMut(u64) -> Result<()> + Send,
{
    if let Pace::Open(rate) = pace {
        ensure!(
            rate > 0.0 && rate.is_finite(),
            "cannot run {rate} batches a second: if none completed in the slice before, use longer \
             slices (--seconds)"
        );
    }
    let run = Run {
        first,
        next: AtomicU64::new(first),
        failed: AtomicBool::new(false),
        limit,
        pace,
        began: Instant::now(),
    };
    let parts = thread::scope(|scope| {
        let threads: Vec<_> =
            works.into_iter().map(|work| scope.spawn(|| run.thread(work))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let time = run.began.elapsed();
    let mut latency = histogram()?;
    for part in parts {
        latency.add(part.map_err(|_| anyhow!("a thread of the benchmark panicked"))??)?;
    }
    Ok(Timed { batches: latency.len(), time, latency })
}

struct Run {
    first: u64,
    next: AtomicU64,
    failed: AtomicBool,
    limit: Limit,
    pace: Pace,
    began: Instant,
}

impl Run {
    fn thread(&self, mut work: impl FnMut(u64) -> Result<()>) -> Result<Histogram<u64>> {
        let mut latency = histogram()?;
        while self.began.elapsed() < self.limit.time && !self.failed.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number - self.first >= self.limit.batches {
                break;
            }
            let began = match self.pace {
                Pace::Closed => Instant::now(),
                Pace::Open(rate) => {
                    let due = Duration::from_secs_f64((number - self.first) as f64 / rate);
                    thread::sleep(due.saturating_sub(self.began.elapsed()));
                    self.began + due
                }
            };
            work(number).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            let time = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latency.saturating_record(time);
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_batch_runs_once() {
        let numbers = Mutex::new(Vec::new());
        let work = |number| {
            numbers.lock().unwrap().push(number);
            Ok(())
        };
        let timed = run(vec![work; 3], 7, Limit::batches(100), Pace::Open(1e6)).unwrap();
        assert_eq!(timed.batches, 100);
        let mut numbers = numbers.into_inner().unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, (7..107).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_that_begins_late_counts_as_long() {
        let work = |number| {
            thread::sleep(Duration::from_millis(if number == 0 { 50 } else { 0 }));
            Ok(())
        };
        let timed = run(vec![work], 0, Limit::batches(3), Pace::Open(1000.0)).unwrap();
        assert!(timed.latency.min() >= 48_000_000, "{}", timed.latency.min());
    }

    #[test]
    fn an_open_loop_requires_a_positive_rate() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let result = run(vec![|_| Ok(())], 0, Limit::batches(1), Pace::Open(rate));
            let error = result.err().unwrap();
            assert!(error.to_string().contains("--seconds"), "{error}");
        }
    }

    #[test]
    fn a_batch_that_fails_ends_all() {
        let work = |number| if number == 5 { Err(anyhow!("on purpose")) } else { Ok(()) };
        assert!(run(vec![work; 2], 0, Limit::batches(u64::MAX), Pace::Closed).is_err());
    }
}
