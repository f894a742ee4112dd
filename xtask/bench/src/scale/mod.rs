//! `cargo xtask scale`: the cost of a store after long use.

mod device;
mod drive;
mod history;
mod hits;
mod keys;
mod mix;
mod numbers;
mod pace;
mod payload;
mod recovery;
mod reference;
mod requests;
mod steady;
mod subject;
mod table;
mod trace;
mod waf;

use anyhow::Result;
use clap::{Args, Subcommand};

/// The help of this chore.
pub(crate) const ABOUT: &str = "Measures a store after long use, in memory or on a device.

Each figure is the median of several rounds, in which the compared cases alternate.";

/// The arguments of `cargo xtask scale`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    case: Case,
}

/// The measurements.
#[derive(Clone, Debug, Subcommand)]
enum Case {
    /// A full store: throughput, latency, evictions, moves, bytes written, hit rate
    Steady(steady::Options),
    /// A trace of inference traffic: hit rate, bytes written, latency of the gets of a request
    Trace(trace::Options),
    /// Keys by Zipf's law, with and without scans: hit rates, compared with those of caches by
    /// object
    Hits(hits::Options),
    /// Objects of several sizes: payload as a share of the device
    Mix(mix::Options),
    /// Opening a store after a kill: processor time, bytes read
    Recovery(recovery::Options),
    /// Write amplification inside a drive, compared with that of single slots
    Waf(waf::Options),
}

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.case {
        Case::Steady(options) => steady::run(options),
        Case::Trace(options) => trace::run(options),
        Case::Hits(options) => hits::run(options),
        Case::Mix(options) => mix::run(options),
        Case::Recovery(options) => recovery::run(options),
        Case::Waf(options) => waf::run(options),
    }
}
