//! Runs fio with the same transfers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cases::{FioJob, Shape};
use super::sample::Sample;

/// Returns the version of fio.
pub(super) fn version() -> Result<String> {
    let output = Command::new("fio")
        .arg("--version")
        .output()
        .context("cannot run fio: install the package `fio`, or omit --fio")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The pages of fio's buffers.
///
/// The engines use huge pages where the system grants them. fio uses only reserved huge pages. With
/// ordinary pages, the device gets one segment for every 4 KiB, which costs more than the rest of
/// the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    Ordinary,
    Huge,
}

impl Pages {
    /// Huge, if enough are reserved for every job.
    pub(super) fn for_jobs(jobs: impl Iterator<Item = (FioJob, Shape)>) -> Self {
        let wanted = jobs.map(|(job, shape)| huge_pages(job, shape)).max().unwrap_or(0);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        if number_of(&meminfo, "HugePages_Free:").is_some_and(|free| free >= wanted) {
            Self::Huge
        } else {
            Self::Ordinary
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Huge => "huge",
        }
    }
}

/// How many huge pages of 2 MiB hold the buffers of all threads. fio needs a little more than the
/// buffers.
fn huge_pages(job: FioJob, shape: Shape) -> u64 {
    let buffers = job.io_bytes * shape.batch as u64;
    ((buffers >> 21) + 1) * shape.threads as u64
}

fn number_of(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs fio once, for `slice`.
pub(super) fn run(
    path: &Path,
    job: FioJob,
    shape: Shape,
    pages: Pages,
    slice: Duration,
) -> Result<Sample> {
    let output = Command::new("fio").args(arguments(path, job, shape, pages, slice)).output();
    let output = output.context("cannot run fio")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("fio failed: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
    sample(&text, job.io_bytes)
}

fn arguments(path: &Path, job: FioJob, shape: Shape, pages: Pages, slice: Duration) -> Vec<String> {
    let mode = if job.writes { "randwrite" } else { "randread" };
    let mode = if job.run > 1 { format!("{mode}:{}", job.run) } else { mode.to_owned() };
    let depth = shape.batch;
    // In fio, a colon ends the name of a file.
    let path = path.display().to_string().replace(':', "\\:");
    let mut arguments: Vec<String> = [
        "--name=bench",
        "--output-format=json",
        "--thread",
        "--group_reporting",
        "--ioengine=io_uring",
        "--direct=1",
        "--registerfiles=1",
        "--fixedbufs=1",
        "--norandommap",
        "--randrepeat=0",
        "--scramble_buffers=0",
        "--gtod_reduce=1",
        "--time_based",
        "--allow_file_create=0",
    ]
    .map(str::to_owned)
    .into();
    arguments.extend([
        format!("--filename={path}"),
        format!("--rw={mode}"),
        format!("--bs={}", job.io_bytes),
        format!("--size={}", job.span - job.span % job.io_bytes),
        format!("--iodepth={depth}"),
        format!("--iodepth_batch_submit={depth}"),
        format!("--iodepth_batch_complete_min={depth}"),
        format!("--numjobs={}", shape.threads),
        format!("--runtime={}ms", slice.as_millis()),
    ]);
    if pages == Pages::Huge {
        arguments.push("--iomem=mmaphuge".to_owned());
    }
    arguments
}

#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Direction,
    write: Direction,
    /// Milliseconds, of all threads together.
    job_runtime: f64,
    /// Per cent of `job_runtime`.
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Direction {
    iops: f64,
    total_ios: u64,
}

/// Parses fio's report. Warnings may precede it.
fn sample(text: &str, io_bytes: u64) -> Result<Sample> {
    let json = text.find('{').map(|start| &text[start..]).unwrap_or_default();
    let output: Output =
        serde_json::from_str(json).with_context(|| format!("fio has printed no report: {text}"))?;
    let [job] = &output.jobs[..] else { bail!("fio reports {} jobs, not one", output.jobs.len()) };
    let ios = job.read.total_ios + job.write.total_ios;
    if job.error != 0 || ios == 0 {
        bail!("fio transferred nothing (its error number is {})", job.error);
    }
    let cpu_us = (job.usr_cpu + job.sys_cpu) / 100.0 * job.job_runtime * 1e3;
    Ok(Sample {
        keys_per_s: job.read.iops + job.write.iops,
        cpu_us_per_key: cpu_us / as_f64(ios),
        io_bytes: as_f64(io_bytes),
        ..Sample::default()
    })
}

fn as_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of fio 3.33, shortened to the context of the fields that are read.
    const REPORT: &str = include_str!("fio_report.json");

    #[test]
    fn a_report_of_fio_gives_rate_and_cpu() {
        let sample = sample(REPORT, 4096).unwrap();
        assert!((sample.keys_per_s - 12_346.534_653).abs() < 1e-6);
        // 42.786070 per cent of 201 ms, in 2494 transfers.
        assert!((sample.cpu_us_per_key - 34.482_759).abs() < 1e-6, "{}", sample.cpu_us_per_key);
        assert_eq!(sample.latency_us, None);
    }

    #[test]
    fn remarks_before_the_report_are_skipped() {
        let text = format!("note: both iodepth >= 1 and synchronous I/O engine\n{REPORT}");
        assert!(sample(&text, 4096).is_ok());
    }

    #[test]
    fn a_report_without_transfers_is_an_error() {
        let idle = REPORT.replace("\"total_ios\" : 2494", "\"total_ios\" : 0");
        assert!(sample(&idle, 4096).is_err());
        assert!(sample("", 4096).is_err());
    }

    #[test]
    fn neighbouring_keys_become_runs_of_sequential_transfers() {
        let job = FioJob { writes: false, io_bytes: 8192, run: 32, span: 100_000 };
        let shape = Shape { value: 4096, batch: 32, threads: 1, metadata: 0 };
        let slice = Duration::from_millis(250);
        let apart = FioJob { writes: true, run: 1, ..job };
        let given = arguments(Path::new("/dev/a:b"), job, shape, Pages::Huge, slice);
        for wanted in [
            "--rw=randread:32",
            "--bs=8192",
            "--size=98304",
            "--iodepth=32",
            "--filename=/dev/a\\:b",
            "--runtime=250ms",
            "--iomem=mmaphuge",
        ] {
            assert!(given.iter().any(|argument| argument == wanted), "{wanted}: {given:?}");
        }
        let given = arguments(Path::new("/dev/a"), apart, shape, Pages::Ordinary, slice);
        assert!(given.iter().any(|argument| argument == "--rw=randwrite"));
        assert!(!given.iter().any(|argument| argument.contains("iomem")));
    }

    #[test]
    fn huge_pages_are_counted_for_every_thread() {
        let job = FioJob { writes: false, io_bytes: 256 << 10, run: 1, span: 1 << 30 };
        assert_eq!(
            huge_pages(job, Shape { value: 256 << 10, batch: 32, threads: 4, metadata: 0 }),
            20
        );
        assert_eq!(
            huge_pages(job, Shape { value: 256 << 10, batch: 1, threads: 1, metadata: 0 }),
            1
        );
        let meminfo = "MemFree:  5 kB\nHugePages_Total:      64\nHugePages_Free:       63\n";
        assert_eq!(number_of(meminfo, "HugePages_Free:"), Some(63));
        assert_eq!(number_of("", "HugePages_Free:"), None);
    }
}
