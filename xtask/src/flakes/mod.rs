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
pub(crate) const ABOUT: &str = "Finds tests that fail now and then.

Runs the tests of the workspace again and again, while other processes keep every processor busy. In each round every \
test runs once. The tests of a program are put in random order and cut into batches of random size. Each batch is a \
process; several processes run at a time, and the tests of each run in parallel. A process that takes too long is \
killed, with its children; the loop devices that it had attached stay.

What a test that fails prints is shown at once. At the end, each test that failed is listed with how often it did. The \
exit status is 1 if any test failed. A seed gives the same batches in the same order each time, but not the same timing.

Doctests are left out, also those that must not compile: they are run by `cargo test`.";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many rounds there are; in each, every test runs once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// For how many seconds batches are begun, in place of a number of rounds.
    #[arg(long, conflicts_with = "rounds")]
    seconds: Option<u64>,
    /// Whose tests run, more than once for several; by default those of all packages.
    #[arg(long = "package", short, value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Draws the batches and their order; by default another one each time, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How many processes run at a time; by default as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// How long a process may take, in seconds, before it is killed.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Runs as a process that keeps a processor busy.
    #[arg(long, hide = true)]
    busy: bool,
    /// Runs as the process that guards this program, which gets the arguments.
    #[arg(long, hide = true, value_name = "PROGRAM")]
    guard: Option<PathBuf>,
    /// Parts of names: only tests with one of them run.
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
    // A single thread would run the tests of a batch sequentially.
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
            Err(_) => bail!("a thread of this chore panicked"),
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

/// The test programs of these packages, or of all, with the tests that have one of the names, or with all.
fn suites(packages: &[String], names: &[String]) -> Result<Vec<Suite>> {
    let mut programs = programs::build_all(&mut programs::compiling())?;
    let known: BTreeSet<_> = programs.iter().map(|program| program.package().to_owned()).collect();
    if let Some(unknown) = packages.iter().find(|&package| !known.contains(package)) {
        let known: Vec<_> = known.into_iter().collect();
        bail!("there is no package {unknown} with tests: there are {}", known.join(", "));
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
        bail!("there is no such test");
    }
    Ok(suites)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
