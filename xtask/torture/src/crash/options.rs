//! The arguments of `cargo xtask crash`.

use clap::Args;

pub(crate) const ABOUT: &str = "\
Cuts the power of simulated devices, and checks the guarantees of the store.

Runs random scenarios: batches of puts and deletes of objects of any size, gets, flushes, checkpoints, eviction, \
compaction and pins, by one client or by several under a deterministic scheduler. Writes and flushes fail, blocks \
cannot be written, reads return other bytes. The power is cut after each write and each flush of a scenario in turn, \
and again during the recoveries that follow. An unflushed write is lost, kept, or torn. After each cut, every key must \
have a value that the guarantees allow, and the store must be usable.

The last line reports the number of cuts and violations. The exit status is 1 if there was a violation.";

/// The arguments of `cargo xtask crash`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Number of power cuts, at least
    #[arg(long, default_value_t = 20_000)]
    pub(super) cuts: u64,
    /// Seed of the first scenario
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Number of threads; each runs its own scenarios
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Runs one scenario, as a violation names it, and prints its steps
    #[arg(long, value_name = "SCENARIO", conflicts_with = "mutants")]
    pub(super) replay: Option<String>,
    /// Switches off each rule of the protocol in turn; the scenarios must notice each within the
    /// cuts
    #[arg(long)]
    pub(super) mutants: bool,
    /// Runs only the mutants whose names contain this text
    #[arg(long, value_name = "TEXT", requires = "mutants")]
    pub(super) only: Option<String>,
    /// Runs with this mutant switched on
    #[arg(long, value_name = "MUTANT", conflicts_with = "mutants")]
    pub(super) with: Option<String>,
    /// Maximum number of cuts of one scenario; with fewer there are more scenarios
    #[arg(long, default_value_t = 80)]
    pub(super) places: u64,
    /// Runs only scenarios with this focus
    #[arg(long, value_name = "FOCUS")]
    pub(super) focus: Option<String>,
    /// Number of violations that end the run
    #[arg(long, default_value_t = 5, hide = true)]
    pub(super) violations: usize,
}
