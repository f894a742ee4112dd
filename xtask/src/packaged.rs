//! Chores that are programs of other packages.
//!
//! Cargo unifies the features of all packages that it builds together. The benchmarks need the
//! published crates without test features, the torture tests need them with failpoints. Therefore
//! they are separate packages, and each is built alone, when it is started.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Error, Result};
use clap::Args;

use crate::programs;

/// The package of `bench` and `scale`.
pub(crate) const BENCH: &str = "raw-block-bench";
/// The package of `crash` and `kill`.
pub(crate) const TORTURE: &str = "raw-block-torture";

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Arguments of the chore; --help describes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Compiles the program of `package`, and replaces this process with it. So its exit status is that
/// of the chore, and signals reach it.
///
/// # Errors
/// When the program does not compile, or cannot be started. Returns only then.
pub(crate) fn run(package: &str, chore: &str, options: &Options) -> Result<()> {
    let program = programs::build_release(package)?;
    let error = Command::new(&program).arg(chore).args(&options.arguments).exec();
    Err(Error::new(error).context(format!("cannot start {}", program.display())))
}
