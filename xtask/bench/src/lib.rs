//! Benchmarks of this workspace. `cargo xtask` runs this program as two of its chores.
//!
//! The package depends on the published crates with their default features, and on nothing that
//! switches on another feature: the figures are those of the build that users get.

mod bench;
mod scale;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Arguments of this program.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Measures the layers of this workspace, on a file or a block device
    #[command(long_about = bench::ABOUT)]
    Bench(bench::Options),
    /// Measures a store after long use: full, after recovery, under a trace
    #[command(long_about = scale::ABOUT)]
    Scale(scale::Options),
}

impl Arguments {
    /// Runs the chore, and prints its report.
    ///
    /// # Errors
    /// When the device cannot be used, or the store fails or returns wrong bytes.
    pub fn run(&self) -> Result<()> {
        match &self.chore {
            Chore::Bench(options) => bench::run(options),
            Chore::Scale(options) => scale::run(options),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
