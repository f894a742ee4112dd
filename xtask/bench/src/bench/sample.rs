//! The measurement of one slice of one case.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use raw_block_core::StatsSnapshot;

/// The figures of one slice of one case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) keys_per_s: f64,
    pub(super) cpu_us_per_key: f64,
    /// Bytes on the device for one key.
    pub(super) io_bytes: f64,
    /// The 50th, 99th and 99.9th percentile of a batch, in microseconds.
    pub(super) latency_us: Option<[f64; 3]>,
    pub(super) submits_per_batch: Option<f64>,
    pub(super) direct_bytes: Option<u64>,
    pub(super) staged_bytes: Option<u64>,
}

/// The figures of one thread.
pub(super) struct Part {
    pub(super) batches: u64,
    pub(super) time: Duration,
    latency: Histogram<u64>,
}

impl Part {
    pub(super) fn new() -> Result<Self> {
        // Up to one minute, with a precision of a thousandth.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Self { batches: 0, time: Duration::ZERO, latency })
    }

    /// Counts a batch that took `time`.
    pub(super) fn count(&mut self, time: Duration) {
        self.batches += 1;
        self.time += time;
        self.latency.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Readings of the whole process, at the beginning and the end of a measurement.
#[derive(Default)]
pub(super) struct Readings {
    pub(super) before: Option<StatsSnapshot>,
    pub(super) after: Option<StatsSnapshot>,
    pub(super) cpu_us: i64,
}

/// CPU time of all threads of this process, in user and in system mode.
pub(super) fn cpu_us() -> i64 {
    let micros = |usage: TimeVal| usage.num_microseconds();
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

impl Sample {
    /// Combines the figures of the threads.
    #[expect(clippy::cast_precision_loss, reason = "a figure has fewer digits than a double")]
    pub(super) fn new(parts: &[Part], keys_per_batch: u64, readings: &Readings) -> Result<Self> {
        let mut latency = Part::new()?.latency;
        for part in parts {
            latency.add(&part.latency)?;
        }
        let batches: u64 = parts.iter().map(|part| part.batches).sum();
        if batches == 0 {
            bail!("no batch was run: the device is too small for this case");
        }
        let keys = (batches * keys_per_batch) as f64;
        let rate = |part: &Part| (part.batches * keys_per_batch) as f64 / part.time.as_secs_f64();
        let before = readings.before.as_ref().context("nothing was measured")?;
        let after = readings.after.as_ref().context("nothing was measured")?;
        let moved =
            after.read_bytes + after.written_bytes - before.read_bytes - before.written_bytes;
        let submissions = (after.submissions - before.submissions) as f64;
        let percentile = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Self {
            keys_per_s: parts.iter().filter(|part| part.batches > 0).map(rate).sum(),
            cpu_us_per_key: readings.cpu_us as f64 / keys,
            io_bytes: moved as f64 / keys,
            latency_us: Some([0.5, 0.99, 0.999].map(percentile)),
            submits_per_batch: Some(submissions / batches as f64),
            direct_bytes: Some(after.direct_bytes - before.direct_bytes),
            staged_bytes: Some(after.staged_bytes - before.staged_bytes),
        })
    }
}
