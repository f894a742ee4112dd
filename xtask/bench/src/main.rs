//! `cargo xtask bench` and `cargo xtask scale`.

use std::process::ExitCode;

use clap::Parser;
use raw_block_bench::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
