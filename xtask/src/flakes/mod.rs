//! `cargo xtask flakes`.

mod batch;
mod guard;
mod schedule;
mod tally;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::programs::{self, Program};

use batch::Limits;
use guard::Guarded;
use schedule::Schedule;
use tally::Tally;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Finds tests that fail sometimes.

Runs the tests of the workspace many times, while other processes keep every processor busy. Each round runs each test \
once: the tests of a program are shuffled and split into batches of random size. Each batch is a process. Several \
processes run in parallel, and so do the tests of each. A process that takes too much time is killed, with its \
children; its loop devices stay attached.

The output of a failed test is shown at once. At the end, each failed test is listed with its number of failures. The \
exit status is 1 if any test failed. A seed reproduces the batches and their order, but not the timing.

Doctests and the tests of packages with failpoints are skipped: `cargo test` runs them.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of rounds; in each, every test runs once
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Start batches for this many seconds, instead of a number of rounds
    #[arg(long, conflicts_with = "rounds")]
    seconds: Option<u64>,
    /// Packages whose tests run; may be repeated [default: all]
    #[arg(long = "package", short, value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Seed for the batches and their order; a new one by default, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Number of parallel processes [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Kill a process after this many seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Runs as a process that keeps a processor busy.
    #[arg(long, hide = true)]
    busy: bool,
    /// Runs as the guard of this program; the names are its arguments.
    #[arg(long, hide = true, value_name = "PROGRAM")]
    guard: Option<PathBuf>,
    /// Run only tests whose names contain one of these
    #[arg(last = true, value_name = "NAME")]
    names: Vec<String>,
}

/// A test program and the names of its tests.
#[derive(Debug)]
struct Suite {
    program: Program,
    tests: Vec<String>,
}

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.busy {
        guard::keep_busy();
    }
    if let Some(program) = &options.guard {
        return guard::run(program, &options.names);
    }
    let suites = suites(&options.packages, &options.names)?;
    let tests: usize = suites.iter().map(|suite| suite.tests.len()).sum();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = options.seed.unwrap_or_else(|| since_epoch.map_or(0, |time| time.as_secs()));
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = options.jobs.map_or(processors, NonZero::get);
    println!(
        "{tests} tests of {} programs, {jobs} processes at a time, {processors} processors kept busy, seed {seed}",
        suites.len()
    );

    let load: Result<Vec<_>> = (0..processors).map(|_| Guarded::busy()).collect();
    let load = load.context("cannot keep the processors busy")?;
    let began = Instant::now();
    let rounds = if options.seconds.is_some() { u64::MAX } else { options.rounds };
    let until = options.seconds.map(|seconds| began + Duration::from_secs(seconds));
    // With one thread, the tests of a batch would run sequentially.
    let limits = Limits { threads: processors.max(2), time: Duration::from_secs(options.limit) };
    let schedule = Mutex::new(Schedule::new(&suites, seed, rounds));
    let tally = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        while until.is_none_or(|until| Instant::now() < until) {
            let Some(batch) = lock(&schedule).next() else { break };
            let failures = batch::run(&batch, limits)?;
            for failure in &failures {
                let (round, program) = (batch.round, &batch.program.name);
                println!("\n---- round {round}, {program}: {failure}\n{}", failure.output);
            }
            lock(&tally).add(&batch, &failures);
        }
        Ok(())
    };
    let ended = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread of the chore panicked"),
        })
    });
    drop(load);

    let tally = lock(&tally);
    print!("{tally}");
    println!(
        "{} rounds begun, {} runs of {tests} tests, {} failed, {} s, seed {seed}",
        lock(&schedule).rounds_begun(),
        tally.runs(),
        tally.failed(),
        began.elapsed().as_secs()
    );
    ended?;
    if tally.failed() > 0 {
        bail!("{} tests or programs failed at least once", tally.failed());
    }
    Ok(())
}

/// The test programs of these packages, or of all, with the tests that match one of the names, or
/// with all.
fn suites(packages: &[String], names: &[String]) -> Result<Vec<Suite>> {
    let mut programs = programs::build_all(&mut programs::compiling())?;
    let known: BTreeSet<_> = programs.iter().map(|program| program.package().to_owned()).collect();
    if let Some(unknown) = packages.iter().find(|&package| !known.contains(package)) {
        let known: Vec<_> = known.into_iter().collect();
        bail!("there is no package {unknown} with tests; the packages are {}", known.join(", "));
    }
    programs.retain(|program| {
        packages.is_empty() || packages.iter().any(|package| package == program.package())
    });
    let mut suites = Vec::new();
    for program in programs {
        let mut tests = batch::tests_of(&program)?;
        tests.retain(|test| names.is_empty() || names.iter().any(|name| test.contains(name)));
        if !tests.is_empty() {
            suites.push(Suite { program, tests });
        }
    }
    if suites.is_empty() {
        bail!("no test has such a name");
    }
    Ok(suites)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
