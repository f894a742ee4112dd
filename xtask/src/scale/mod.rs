//! `cargo xtask scale`.

mod checkpoint;
mod flat;
mod recovery;
mod segments;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

pub(crate) const ABOUT: &str = "\
Measures what shows only in a large store: whether a key costs more among many, how fast a recovery reads, and \
whether puts wait for checkpoints.

  flat        put and get of keys in a store in memory, small and large; minus what it costs to look a key up in a
              plain map of as many and to copy as much. The large store takes 3 GiB of memory.
  slot-recovery  opening a store that was not closed, against fio reading at random at depth 128. The store takes
              4 GiB below target/ unless a file is named.
  checkpoint  the 99th percentile of put_many in a store that takes checkpoints when it thinks fit, and beside
              one after the other, each against none

Each figure is the median of some rounds, in which what is compared takes turns.

The commands measure a store on segments that has been used for long, in memory unless they say otherwise.";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    Flat,
    SlotRecovery,
    Checkpoint,
}

/// The arguments of `cargo xtask scale`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// What to measure of a store on segments
    #[command(subcommand)]
    segments: Option<segments::Case>,

    /// What to measure [default: all]
    #[arg(value_enum)]
    cases: Vec<Case>,

    /// The file to measure on; it is made, and removed afterwards [default: one below target/]
    #[arg(long)]
    file: Option<PathBuf>,

    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Keys of the large store of `flat`
    #[arg(long, default_value_t = 5_000_000)]
    keys: u64,

    /// Slots of the store of `slot-recovery`
    #[arg(long, default_value_t = 500_000)]
    slots: u64,
}

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(case) = &options.segments {
        return segments::run(case);
    }
    let all = [Case::Flat, Case::SlotRecovery, Case::Checkpoint];
    let cases = if options.cases.is_empty() { &all[..] } else { &options.cases };
    let file = options.file.clone().unwrap_or_else(|| PathBuf::from("target/scale-device"));
    if cases.iter().any(|&case| case != Case::Flat) && file.exists() {
        bail!("{} exists: name a file that can be made", file.display());
    }
    for case in cases {
        let measured = match case {
            Case::Flat => flat::run(options.keys, options.rounds),
            Case::SlotRecovery => recovery::run(&file, options.slots, options.rounds),
            Case::Checkpoint => checkpoint::run(&file, options.rounds),
        };
        if file.exists() {
            std::fs::remove_file(&file)?;
        }
        measured?;
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number that looks random, the same for the same `number`.
fn scatter(number: u64) -> u64 {
    // The finalizer of SplitMix64.
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
