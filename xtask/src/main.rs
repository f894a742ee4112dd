//! The chores of this workspace, run as `cargo xtask <chore>`.

mod asan;
mod bench;
mod crash;
mod flakes;
mod fuzz;
mod kill;
mod nightly;
mod programs;
mod scale;
mod unprivileged;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of the raw block workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Measures the layers of this workspace side by side, on a file or on a block device.
    #[command(long_about = bench::ABOUT)]
    Bench(bench::Options),
    /// Cuts the power under a store, on simulated devices, and holds it to its promises.
    #[command(long_about = crash::ABOUT)]
    Crash(crash::Options),
    /// Measures a store that has been used for long: full, replayed, recovered, worn.
    #[command(long_about = scale::ABOUT)]
    Scale(scale::Options),
    /// Runs the tests with AddressSanitizer; takes a nightly toolchain.
    #[command(long_about = asan::ABOUT)]
    Asan(asan::Options),
    /// Finds tests that fail now and then, by running them often on busy processors.
    #[command(long_about = flakes::ABOUT)]
    Flakes(flakes::Options),
    /// Feeds hostile images to the code that reads them; takes a nightly toolchain and cargo-fuzz.
    #[command(long_about = fuzz::ABOUT)]
    Fuzz(fuzz::Options),
    /// Kills processes that use a store, and holds the store to its promises.
    #[command(long_about = kill::ABOUT)]
    Kill(kill::Options),
    /// Runs tests as a user who may do nothing special; takes root, who becomes that user.
    #[command(long_about = unprivileged::ABOUT)]
    Unprivileged,
    /// Runs the tests for NVMe in a virtual machine; takes QEMU.
    #[command(long_about = vm::ABOUT)]
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Bench(options) => bench::run(&options),
        Chore::Crash(options) => crash::run(&options),
        Chore::Scale(options) => scale::run(&options),
        Chore::Asan(options) => asan::run(&options),
        Chore::Flakes(options) => flakes::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Kill(options) => kill::run(&options),
        Chore::Unprivileged => unprivileged::run(),
        Chore::Vm(options) => vm::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod documents;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
