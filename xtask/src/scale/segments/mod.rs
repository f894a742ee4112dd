//! What a store on segments costs that has been used for long.

mod device;
mod drive;
mod history;
mod hits;
mod keys;
mod mix;
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
use clap::Subcommand;
use parse_size::Config;

/// What can be measured of a store on segments.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Case {
    /// A full store: throughput, latency, evictions, moves, bytes written, hit rate
    Steady(steady::Options),
    /// A trace of inference traffic: hit rate, bytes written, latency of the gets of a request
    Trace(trace::Options),
    /// Keys by Zipf's law, with and without scans: hit rates next to those by object
    Hits(hits::Options),
    /// Objects of several sizes: payload as a share of the device
    Mix(mix::Options),
    /// Opening a store after a kill: processor time, bytes read
    Recovery(recovery::Options),
    /// Write amplification inside a drive, next to that of single slots
    Waf(waf::Options),
}

/// Runs a case.
pub(super) fn run(case: &Case) -> Result<()> {
    match case {
        Case::Steady(options) => steady::run(options),
        Case::Trace(options) => trace::run(options),
        Case::Hits(options) => hits::run(options),
        Case::Mix(options) => mix::run(options),
        Case::Recovery(options) => recovery::run(options),
        Case::Waf(options) => waf::run(options),
    }
}

/// Reads a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    Config::new().with_binary().parse_size(text).map_err(|error| error.to_string())
}
