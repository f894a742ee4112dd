//! The chores of this workspace, run as `cargo xtask <chore>`.

mod asan;
mod flakes;
mod fuzz;
mod nightly;
mod packaged;
mod programs;
mod unprivileged;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of the raw-block workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Measures the layers of this workspace, on a file or a block device
    #[command(disable_help_flag = true)]
    Bench(packaged::Options),
    /// Measures a store after long use: full, after recovery, under a trace
    #[command(disable_help_flag = true)]
    Scale(packaged::Options),
    /// Cuts the power of simulated devices, and checks the guarantees of the store
    #[command(disable_help_flag = true)]
    Crash(packaged::Options),
    /// Kills processes that use a store, and checks the guarantees of the store
    #[command(disable_help_flag = true)]
    Kill(packaged::Options),
    /// Runs the tests with AddressSanitizer; requires a nightly toolchain
    #[command(long_about = asan::ABOUT)]
    Asan(asan::Options),
    /// Finds tests that fail sometimes: runs them many times on busy processors
    #[command(long_about = flakes::ABOUT)]
    Flakes(flakes::Options),
    /// Runs the fuzz targets; requires a nightly toolchain and cargo-fuzz
    #[command(long_about = fuzz::ABOUT)]
    Fuzz(fuzz::Options),
    /// Runs the tests as a user without privileges; requires root
    #[command(long_about = unprivileged::ABOUT)]
    Unprivileged,
    /// Runs the tests for NVMe in a virtual machine; requires QEMU
    #[command(long_about = vm::ABOUT)]
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Bench(options) => packaged::run(packaged::BENCH, "bench", &options),
        Chore::Scale(options) => packaged::run(packaged::BENCH, "scale", &options),
        Chore::Crash(options) => packaged::run(packaged::TORTURE, "crash", &options),
        Chore::Kill(options) => packaged::run(packaged::TORTURE, "kill", &options),
        Chore::Asan(options) => asan::run(&options),
        Chore::Flakes(options) => flakes::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Unprivileged => unprivileged::run(),
        Chore::Vm(options) => vm::run(&options),
    };
    match result {
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
