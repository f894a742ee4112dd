//! `cargo xtask fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::nightly;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Feeds hostile blocks and hostile images to the code that reads them, with \
AddressSanitizer.

Every target of `fuzz/` begins with seeds that were taken from real images, and with what earlier runs found to \
reach further (`fuzz/corpus`). An input that ends the program, takes too long or too much memory, or makes the \
store break a promise is saved in `fuzz/artifacts`, and its run fails. It takes a nightly toolchain and cargo-fuzz:

    rustup toolchain install nightly --profile minimal
    cargo install --locked cargo-fuzz

One input is run again with `cargo +nightly fuzz run TARGET FILE`.";

/// An input must not take longer, in seconds.
const TIMEOUT: u32 = 25;
/// Nor more memory, in MiB. Most of it is the sanitizer's.
const MEMORY: u32 = 3072;

/// What is fuzzed: the files in `fuzz/fuzz_targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    Superblock,
    SlotHeader,
    Checkpoint,
    DeleteLog,
    Image,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Which targets run; all of them if none is named.
    #[arg(long = "target", value_enum)]
    targets: Vec<Target>,
}

/// Runs the targets one after the other.
pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let chosen = &options.targets;
    let targets = Target::value_variants().iter().copied();
    let targets: Vec<_> =
        targets.filter(|target| chosen.is_empty() || chosen.contains(target)).collect();
    check_tools()?;
    succeeds(nightly::program("cargo").args(["fuzz", "build"]).current_dir(directory()))
        .context("the fuzz targets do not compile")?;

    let mut failed = Vec::new();
    for target in &targets {
        let name = target.name();
        println!("\n== {name}");
        if let Err(error) = fuzz(&name, options.seconds) {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    let seconds = began.elapsed().as_secs();
    println!("\n{} targets, {} failed, {seconds} s", targets.len(), failed.len());
    if !failed.is_empty() {
        bail!("see fuzz/artifacts for the inputs on which these failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn fuzz(target: &str, seconds: u64) -> Result<()> {
    let corpus = directory().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let seeds = directory().join("seeds").join(target);
    let mut command = nightly::program("cargo");
    command.args(["fuzz", "run", target]).arg(&corpus).arg(&seeds).arg("--");
    // Some targets are slow: they do not have the time to grow inputs from one byte on. Leaks are not what is looked
    // for, and looking stops the program after every input that has started a thread.
    command.arg("-len_control=0").arg("-detect_leaks=0");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    succeeds(command.arg("-print_final_stats=1").current_dir(directory()))
}

fn check_tools() -> Result<()> {
    let mut command = nightly::program("cargo");
    let found = command.args(["fuzz", "--version"]).stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "it takes a nightly toolchain and cargo-fuzz: install them with `rustup toolchain install nightly \
             --profile minimal` and `cargo install --locked cargo-fuzz`"
        ),
    }
}

fn succeeds(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run rustup")?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}

fn directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    workspace.unwrap_or_else(|| Path::new(".")).join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_file_and_seeds() {
        let mut files: Vec<_> = fs::read_dir(directory().join("fuzz_targets"))
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort_unstable();
        let mut names: Vec<_> =
            Target::value_variants().iter().map(|target| target.name()).collect();
        names.sort_unstable();
        assert_eq!(files, names);
        for name in names {
            assert!(fs::read_dir(directory().join("seeds").join(name)).unwrap().count() > 4);
        }
    }
}
