//! The arguments of `cargo xtask crash`.

use clap::Args;

pub(crate) const ABOUT: &str = "\
Cuts the power under a store, on simulated devices, and holds what it recovers to its promises.

Random stories are told: batches of puts and deletions, gets, flushes, checkpoints, evictions, pins, by one or by \
several threads whose turns the seed decides; writes and flushes that fail, reads that find something else. The power \
is cut after every write and every flush of a story in turn, during the recoveries that follow, and again; what was \
not flushed is lost, kept, or torn. After each cut every key must be at one of the states that the store may still \
answer with, and the store must be usable.

The last line says how many cuts there were and how many violations. The exit status is 1 if there was one.";

/// The arguments of `cargo xtask crash`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How many power cuts, at least.
    #[arg(long, default_value_t = 20_000)]
    pub(super) cuts: u64,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// How many threads tell stories, each its own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Tells one story again, as a violation names it, step by step.
    #[arg(long, value_name = "STORY", conflicts_with = "bite")]
    pub(super) replay: Option<String>,
    /// Switches one rule of the protocol off after the other; each must be noticed within the cuts.
    #[arg(long)]
    pub(super) bite: bool,
}
