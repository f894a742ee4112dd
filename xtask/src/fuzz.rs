//! `cargo xtask fuzz`.

use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::nightly;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Runs the fuzz targets, which read hostile blocks and hostile images, with AddressSanitizer.

Each target of `fuzz/` begins with its seeds, and with inputs of earlier runs that increased the coverage \
(`fuzz/corpus`). An input that crashes the target, takes too much time or memory, or makes the store break a guarantee \
is saved in `fuzz/artifacts`, and the run fails. Requires a nightly toolchain and cargo-fuzz:

    rustup toolchain install nightly --profile minimal
    cargo install --locked cargo-fuzz

The output of a target goes to target/fuzz/TARGET.log. `cargo +nightly fuzz run TARGET FILE` \
runs one input again.";

/// Maximum time for an input, in seconds.
const TIMEOUT: u32 = 25;
/// Maximum memory for an input, in MiB. The sanitizer uses most of it.
const MEMORY: u32 = 3072;

/// The targets: the files in `fuzz/fuzz_targets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    Superblock,
    Checkpoint,
    SegmentHeader,
    Slot,
    Table,
    Image,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Targets to run; all of them by default
    #[arg(long = "target", value_enum)]
    targets: Vec<Target>,
    /// Number of targets that run in parallel; by default the number of processors
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

/// Runs the targets, several at a time.
pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let chosen = &options.targets;
    let targets = Target::value_variants().iter().copied();
    let targets: Vec<_> =
        targets.filter(|target| chosen.is_empty() || chosen.contains(target)).collect();
    check_tools()?;
    succeeds(nightly::program("cargo").args(["fuzz", "build"]).current_dir(directory()))
        .context("cannot compile the fuzz targets")?;

    let logs = workspace().join("target").join("fuzz");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let jobs = options.jobs.or(thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = target.name();
            match fuzz(&name, options.seconds, &logs.join(format!("{name}.log"))) {
                Ok(inputs) => println!("{name}: {inputs} inputs, no failure"),
                Err(error) => {
                    println!("{name}: {error:#}");
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                }
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = began.elapsed().as_secs();
    println!("{} targets, {} failed, {seconds} s", targets.len(), failed.len());
    if !failed.is_empty() {
        bail!("these targets failed, see fuzz/artifacts for the inputs: {}", failed.join(", "));
    }
    Ok(())
}

impl Target {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs a target. Returns the number of inputs.
fn fuzz(target: &str, seconds: u64, log: &Path) -> Result<u64> {
    let corpus = directory().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
    let seeds = directory().join("seeds").join(target);
    let mut command = nightly::program("cargo");
    command.args(["fuzz", "run", target]).arg(&corpus).arg(&seeds).arg("--");
    // Some targets are too slow to grow inputs from one byte. A search for leaks would end the
    // program after every input that has started a thread.
    command.arg("-len_control=0").arg("-detect_leaks=0");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg("-print_final_stats=1").current_dir(directory());
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let output = file.try_clone().context("cannot duplicate the descriptor of the log")?;
    let ended = succeeds(command.stdin(Stdio::null()).stdout(output).stderr(file));
    let said = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    ended.with_context(|| format!("{} ends with:\n{}", log.display(), last_lines(&said)))?;
    inputs(&said).with_context(|| format!("{} has no count of inputs", log.display()))
}

/// The count that libFuzzer prints.
fn inputs(said: &str) -> Option<u64> {
    let line =
        said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

/// The end of a log, for an error message. It has the panic, the finding of the sanitizer, and the
/// name of the input.
fn last_lines(said: &str) -> String {
    const LINES: usize = 80;
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn check_tools() -> Result<()> {
    let mut command = nightly::program("cargo");
    let found = command.args(["fuzz", "--version"]).stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "fuzzing requires a nightly toolchain and cargo-fuzz: install them with `rustup toolchain install nightly \
             --profile minimal` and `cargo install --locked cargo-fuzz`"
        ),
    }
}

fn succeeds(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run rustup")?;
    if !status.success() {
        bail!("the program failed ({status})");
    }
    Ok(())
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

fn directory() -> PathBuf {
    workspace().join("fuzz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_counted_as_libfuzzer_counts_them() {
        let said =
            "Done 20 runs in 1 second(s)\nstat::number_of_executed_units: 20\nstat::peak: 3\n";
        assert_eq!(inputs(said), Some(20));
        assert_eq!(inputs("Done"), None);
    }

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
