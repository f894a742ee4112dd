//! The options of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use parse_size::Config;
use serde::Serialize;

/// The long help of `cargo xtask bench`.
pub(crate) const ABOUT: &str = "\
Measures the layers of this workspace, on a file or a block device.

Without arguments it creates a file below target/, runs the engines memory, posix and uring for about
a minute, and prints a table. Compare figures only within one run: every case runs once in every
round, in short slices, and the figures are medians of the rounds.

On the character device of an NVMe namespace (/dev/ngXnY) the engine nvme runs too, with passthrough
commands. The other engines and fio use the block device of the same namespace.

  raw     batches of random transfers through the dispatcher: no store, no checksums
  serial  one key at a time: its header, then its payload, as older designs do
  store   put_many and get_many with checksums; every value that is read is compared
  fio     (with --fio) the same transfers by fio, in the same rounds

The latencies p50, p99 and p99.9 are those of one call: a whole batch, and with --batches 1 one key.
CPU is the time of the whole process, user and system, per key.

The engines use huge pages where the system grants them, fio only if enough of them are reserved
(sysctl vm.nr_hugepages=64). With large values and ordinary pages, fio is several times slower for
this reason alone: such a ratio shows nothing about batching.";

/// The minimum number of rounds for which a ratio to fio is judged.
pub(super) const JUDGED_ROUNDS: usize = 9;

/// The options of `cargo xtask bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Block device, NVMe character device or file to measure on [default: a file below target/]
    pub(super) device: Option<PathBuf>,

    /// Engines to run; one that cannot be opened here is skipped [default: all that the device
    /// supports]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) engines: Vec<EngineName>,

    /// Layers to run; fio runs in addition to raw and store
    #[arg(long, value_enum, value_delimiter = ',', default_value = "raw,serial,store")]
    pub(super) layers: Vec<LayerName>,

    /// Bytes of one value, such as 4KiB or 1MiB [default: 4KiB,64KiB,256KiB]
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = value_size)]
    pub(super) value_sizes: Vec<u64>,

    /// Keys per batch [default: 1,8,32]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) batches: Vec<u32>,

    /// Threads that run batches in parallel, on one dispatcher or one store
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: u32,

    /// Bytes of metadata that each object of a store has; gets read them too
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(super) metadata: u16,

    /// Number of rounds [default: 3, with --fio 9]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: Option<u32>,

    /// 4KiB and 256KiB in batches of 1 and 32 only; takes about 20 seconds without --fio
    #[arg(long)]
    pub(super) quick: bool,

    /// Run fio too in every round, and a second time as the control; takes some minutes
    #[arg(long)]
    pub(super) fio: bool,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Draw throughput and latency against batch size into this file as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,

    /// Allow to overwrite the named device or file
    #[arg(long)]
    pub(super) destroy_data: bool,
}

impl Options {
    /// The value sizes to run, each once.
    pub(super) fn value_sizes(&self) -> Vec<u64> {
        let default: &[u64] =
            if self.quick { &[4 << 10, 256 << 10] } else { &[4 << 10, 64 << 10, 256 << 10] };
        unique(if self.value_sizes.is_empty() {
            default.to_vec()
        } else {
            self.value_sizes.clone()
        })
    }

    /// The batch sizes to run, each once.
    pub(super) fn batches(&self) -> Vec<u32> {
        let default: &[u32] = if self.quick { &[1, 32] } else { &[1, 8, 32] };
        unique(if self.batches.is_empty() { default.to_vec() } else { self.batches.clone() })
    }

    /// The engines to run, each once. `passthrough` is whether the device supports NVMe
    /// passthrough.
    pub(super) fn engines(&self, passthrough: bool) -> Vec<EngineName> {
        if !self.engines.is_empty() {
            return unique(self.engines.clone());
        }
        let all = EngineName::ALL.into_iter();
        all.filter(|&engine| engine != EngineName::Nvme || passthrough).collect()
    }

    pub(super) fn rounds(&self) -> usize {
        let default = if self.fio { JUDGED_ROUNDS } else { 3 };
        self.rounds.map_or(default, |rounds| rounds as usize)
    }

    /// The maximum number of bytes to use of the device. Data that is compared with fio must not
    /// fit the cache of a hypervisor.
    pub(super) fn span(&self) -> u64 {
        match (self.quick, self.fio) {
            (true, _) => 256 << 20,
            (false, true) => 4 << 30,
            (false, false) => 1 << 30,
        }
    }

    /// The time for all slices, unless options determine it.
    pub(super) fn budget(&self) -> Option<Duration> {
        (!self.fio).then(|| Duration::from_secs(if self.quick { 15 } else { 55 }))
    }
}

fn unique<T: Copy + PartialEq>(mut list: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(list.len());
    list.retain(|item| {
        let new = !kept.contains(item);
        kept.push(*item);
        new
    });
    list
}

/// A layer to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LayerName {
    /// Batches of random transfers through the dispatcher
    Raw,
    /// One key at a time, as older designs do
    Serial,
    /// `put_many` and `get_many`
    Store,
}

/// An engine to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum EngineName {
    /// Memory: the cost of the layers alone
    Memory,
    /// pread and pwrite in a thread pool
    Posix,
    /// `io_uring`
    Uring,
    /// NVMe passthrough
    Nvme,
}

impl EngineName {
    /// All engines, the fastest last.
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Posix, Self::Uring, Self::Nvme];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Posix => "posix",
            Self::Uring => "uring",
            Self::Nvme => "nvme",
        }
    }
}

/// Parses the size of a value in bytes, with a binary unit. Above 1 GiB a batch does not fit the
/// memory.
fn value_size(text: &str) -> Result<u64, String> {
    let bytes = Config::new().with_binary().parse_size(text).map_err(|error| error.to_string())?;
    if (1..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a value has 1 byte to 1GiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_at_most_one_gib() {
        assert_eq!(value_size("4k"), Ok(4096));
        assert_eq!(value_size("1GiB"), Ok(1 << 30));
        for wrong in ["0", "2GiB", "many"] {
            assert!(value_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_option_that_is_repeated_runs_once() {
        assert_eq!(unique(vec![32, 1, 32, 1]), [32, 1]);
    }
}
