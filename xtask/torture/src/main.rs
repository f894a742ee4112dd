//! `cargo xtask crash` and `cargo xtask kill`.

use std::process::ExitCode;

use clap::Parser;
use raw_block_torture::Arguments;

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
