//! The environment of a run, without which its figures mean nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use nix::sys::stat::{major, minor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::fio::Pages;
use super::options::Options;
use super::target::Target;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Meta {
    date: String,
    version: &'static str,
    fio_version: Option<String>,
    /// The pages of fio's buffers.
    fio_pages: Option<&'static str>,
    /// Whether programs get huge pages without a request. The engines request them, fio does not.
    transparent_huge_pages: Option<String>,
    kernel: Option<String>,
    cpu_model: Option<String>,
    cpus: usize,
    device: Device,
    options: Value,
    /// Properties of each engine on this machine.
    engines: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize)]
struct Device {
    path: String,
    /// The character device of the same NVMe namespace, for passthrough.
    generic: Option<String>,
    block_device: bool,
    /// The block device itself, or the one of the file.
    model: Option<String>,
    scheduler: Option<String>,
    logical_block: u32,
    transfer_alignment: u32,
    memory_alignment: u32,
    direct: bool,
    span_bytes: u64,
    capacity_bytes: u64,
}

impl Meta {
    pub(super) fn new(
        options: &Options,
        target: &Target,
        fio: Option<(String, Pages)>,
        slice: Duration,
        engines: Map<String, Value>,
    ) -> Self {
        let geometry = &target.geometry;
        Self {
            date: format_rfc3339_seconds(SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION"),
            fio_pages: fio.as_ref().map(|(_, pages)| pages.name()),
            fio_version: fio.map(|(version, _)| version),
            transparent_huge_pages: text_of("/sys/kernel/mm/transparent_hugepage/enabled")
                .map(|list| chosen(&list)),
            kernel: text_of("/proc/sys/kernel/osrelease"),
            cpu_model: cpu_model(&text_of("/proc/cpuinfo").unwrap_or_default()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            device: Device {
                path: target.path.display().to_string(),
                generic: target.generic.as_ref().map(|path| path.display().to_string()),
                block_device: target.is_block_device,
                model: of_disk(target, "device/model"),
                scheduler: of_disk(target, "queue/scheduler").map(|list| chosen(&list)),
                logical_block: geometry.logical_block,
                transfer_alignment: geometry.transfer_alignment,
                memory_alignment: geometry.memory_alignment,
                direct: target.direct,
                span_bytes: target.span,
                capacity_bytes: geometry.capacity,
            },
            options: json!({
                "engines": options.engines(target.generic.is_some()),
                "value_bytes": options.value_sizes(),
                "batches": options.batches(),
                "threads": options.threads,
                "metadata_bytes": options.metadata,
                "rounds": options.rounds(),
                "slice_ms": slice.as_secs_f64() * 1e3,
                "quick": options.quick,
                "fio": options.fio,
            }),
            engines,
        }
    }

    /// Describes the environment in two lines.
    pub(super) fn environment(&self) -> Vec<String> {
        let Self { device, options, .. } = self;
        let path = Path::new(&device.path);
        let name =
            path.file_name().map_or(device.path.as_str().into(), |name| name.to_string_lossy());
        let known = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}{value}")).unwrap_or_default()
        };
        let cache = if device.direct { "O_DIRECT" } else { "through the page cache" };
        let mut rounds =
            format!("{} rounds of {:.0} ms, {}", options["rounds"], self.slice_ms(), self.date);
        rounds += &known("; ", &self.fio_version);
        if let Some(flags) =
            self.engines.get("uring").and_then(|about| about["setup_flags"].as_array())
        {
            let flags: Vec<_> = flags.iter().filter_map(Value::as_str).collect();
            rounds += &format!("; io_uring {}", flags.join(" "));
        }
        vec![
            format!(
                "Linux{}, {} CPUs{}; {name}{}{}, {cache}",
                known(" ", &self.kernel),
                self.cpus,
                known(", ", &self.cpu_model),
                known(", ", &device.model),
                known(", scheduler ", &device.scheduler),
            ),
            rounds,
        ]
    }

    fn slice_ms(&self) -> f64 {
        self.options["slice_ms"].as_f64().unwrap_or_default()
    }
}

/// Reads a file of the disk in sysfs. A partition has those of its disk.
fn of_disk(target: &Target, name: &str) -> Option<String> {
    let metadata = fs::metadata(&target.path).ok()?;
    let device = if target.is_block_device { metadata.rdev() } else { metadata.dev() };
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    text_of(format!("{device}/{name}")).or_else(|| text_of(format!("{device}/../{name}")))
}

fn text_of(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The kernel lists all schedulers, with the one in use in brackets.
fn chosen(schedulers: &str) -> String {
    let of_brackets = schedulers.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    of_brackets.map_or(schedulers, |(chosen, _)| chosen).to_owned()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_is_the_one_in_brackets() {
        assert_eq!(chosen("none [mq-deadline] kyber"), "mq-deadline");
        assert_eq!(chosen("none"), "none");
    }
}
