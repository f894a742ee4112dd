//! Torture tests of the store. `cargo xtask` runs this program as two of its chores.
//!
//! The package has the simulated device and the failpoints of the store compiled in, which no
//! published build has.

mod crash;
mod kill;

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
    /// Cuts the power of simulated devices, and checks the guarantees of the store
    #[command(long_about = crash::ABOUT)]
    Crash(crash::Options),
    /// Kills processes that use a store, and checks the guarantees of the store
    #[command(long_about = kill::ABOUT)]
    Kill(kill::Options),
}

impl Arguments {
    /// Runs the chore, and prints its report.
    ///
    /// # Errors
    /// When the store has broken a guarantee, or a device or process cannot be started.
    pub fn run(&self) -> Result<()> {
        match &self.chore {
            Chore::Crash(options) => crash::run(options),
            Chore::Kill(options) => kill::run(options),
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
