//! The arguments of `cargo xtask crash`.

use clap::Args;

pub(crate) const ABOUT: &str = "\
Cuts the power under a store, on simulated devices, and checks its promises.

Runs random scenarios: batches of puts and deletes of objects of any size, gets, flushes, checkpoints, eviction, \
compaction and pins, by one client or by several under a deterministic scheduler; writes and flushes that fail, blocks \
that cannot be written, reads that find something else. The power is cut after every write and every flush of a \
scenario in turn, during the recoveries that follow, and again; what was not flushed is lost, kept, or torn. After \
each cut every key must be at one of the states that the store may still answer with, and the store must be usable.

The last line reports how many cuts and violations there were. The exit status is 1 if there was a violation.";

/// The arguments of `cargo xtask crash`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many power cuts, at least.
    #[arg(long, default_value_t = 20_000)]
    pub(super) cuts: u64,
    /// Seed of the first scenario.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// How many threads run scenarios, each its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Runs one scenario again, as a violation names it, step by step.
    #[arg(long, value_name = "SCENARIO", conflicts_with = "mutants")]
    pub(super) replay: Option<String>,
    /// Switches each rule of the protocol off in turn; each must be noticed within the cuts.
    #[arg(long)]
    pub(super) mutants: bool,
    /// Only the mutants whose names contain this text.
    #[arg(long, value_name = "TEXT", requires = "mutants")]
    pub(super) only: Option<String>,
    /// Runs with this mutant switched on.
    #[arg(long, value_name = "MUTANT", conflicts_with = "mutants")]
    pub(super) with: Option<String>,
    /// At how many places the power is cut of one scenario, at most; with fewer there are more scenarios.
    #[arg(long, default_value_t = 80)]
    pub(super) places: u64,
    /// Only scenarios that try this most.
    #[arg(long, value_name = "FOCUS")]
    pub(super) focus: Option<String>,
    /// How many violations end the run.
    #[arg(long, default_value_t = 5, hide = true)]
    pub(super) violations: usize,
}
