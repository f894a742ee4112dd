//! `cargo xtask bench`.

mod cases;
mod data;
mod engine;
mod fio;
mod measure;
mod meta;
mod options;
mod plan;
mod plot;
mod progress;
mod raw;
mod report;
mod sample;
mod serial;
mod store;
mod summary;
mod table;
mod target;
mod units;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use cases::{Job, Task};
use data::permutation;
use engine::Engines;
use fio::Pages;
use measure::Slice;
use meta::Meta;
use options::EngineName;
pub(crate) use options::{ABOUT, Options};
use plan::Plan;
use progress::Progress;
use sample::Sample;
use target::Target;
use units::size;

/// Bounds of the length of a slice.
const SLICE: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];
/// The idle time of the device before each slice that is compared with fio.
const REST: Duration = Duration::from_millis(300);
/// The measured part of the time, in per cent. The rest opens engines and fills stores.
const MEASURING: u32 = 65;

/// Runs the benchmark and prints its report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let say = |text: &str| eprintln!("{text}");
    let fio_version = options.fio.then(fio::version).transpose()?;
    for path in options.json.iter().chain(&options.plot) {
        // An error is better now than after all rounds.
        fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let target = Target::prepare(options, say)?;
    if !target.direct {
        say("the file system has no O_DIRECT: this measures the page cache");
    }
    let (engines, usable) = Engines::new(&target, &options.engines(target.generic.is_some()), say)?;
    if usable.is_empty() {
        bail!("cannot open any of the engines");
    }
    if options.fio && usable == [EngineName::Memory] {
        bail!("fio requires a device: add --engines posix or uring");
    }
    let alignment = u64::from(target.geometry.transfer_alignment);
    let plan = Plan::new(options, &usable, alignment, target.span)?;
    let pages = Pages::for_jobs(plan.fio_jobs());
    let mut run = Run {
        pages,
        slice: slice(options, &plan),
        rest: if options.fio { REST } else { Duration::ZERO },
        engines: &engines,
        target: &target,
        orders: HashMap::new(),
        round: 0,
    };
    let samples = measure_all(&mut run, options, &plan)?;

    let rows = report::rows(&plan, &samples);
    let fio = fio_version.map(|version| (version, pages));
    let meta = Meta::new(options, &target, fio, run.slice, engines.describe(&usable));
    let environment = meta.environment();
    for line in &environment {
        println!("{}", table::wrapped(line));
    }
    let generic = target.generic.as_ref().map(|path| path.display().to_string());
    let device = target.path.display().to_string();
    println!("{}", table::tables(&rows, &device, generic.as_deref(), pages));
    if let Some(summary) = summary::summary(&rows) {
        println!("{}", table::wrapped(&summary));
    }
    if let Some(path) = &options.json {
        let report = json!({ "meta": meta, "rows": rows });
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &options.plot {
        write(path, &plot::svg(&rows, &environment))?;
    }
    Ok(())
}

/// The length of a slice: one case in one round.
fn slice(options: &Options, plan: &Plan) -> Duration {
    let slices = u32::try_from(plan.cases.len() * options.rounds()).unwrap_or(u32::MAX);
    let fitting = options.budget().map(|time| time * MEASURING / 100 / slices);
    fitting.unwrap_or(SLICE[1]).clamp(SLICE[0], SLICE[1])
}

/// Runs all rounds. Returns the samples of each case.
fn measure_all(run: &mut Run<'_>, options: &Options, plan: &Plan) -> Result<Vec<Vec<Sample>>> {
    let rounds = options.rounds();
    let tasks = plan.groups.iter().map(Vec::len).sum();
    let mut samples = vec![Vec::with_capacity(rounds); plan.cases.len()];
    let progress = Progress::new(rounds, tasks);
    for round in 0..rounds {
        let next = progress.elapsed() + progress.elapsed() / u32::try_from(round.max(1))?;
        if options.rounds.is_none() && options.budget().is_some_and(|time| next > time * 4 / 3) {
            progress.say(&format!(
                "the time is up after {round} of {rounds} rounds; --rounds runs all"
            ));
            break;
        }
        progress.begin_round(round);
        run.round = round;
        for task in plan.round(round) {
            progress.begin_task(describe(task));
            let hurry = options.fio && !plan.is_compared(task);
            let slice = if hurry { run.slice / 4 } else { run.slice };
            let measured = run.task(task, slice).with_context(|| describe(task))?;
            for (&case, sample) in task.cases.iter().zip(measured) {
                samples[case].push(sample);
            }
            progress.end_task();
        }
    }
    Ok(samples)
}

fn describe(task: &Task) -> String {
    let (layer, engine) = match task.job {
        Job::Raw(engine) => ("raw ", engine.name()),
        Job::Serial(engine) => ("serial ", engine.name()),
        Job::Store { engine, .. } => ("store ", engine.name()),
        Job::Fio(_) => ("", "fio"),
    };
    format!("{layer}{engine}, {} x {}", task.shape.batch, size(task.shape.value))
}

/// The state that all tasks share.
struct Run<'a> {
    engines: &'a Engines<'a>,
    target: &'a Target,
    slice: Duration,
    rest: Duration,
    pages: Pages,
    round: usize,
    /// Permutations by their length. They are kept because they take time to create.
    orders: HashMap<u32, Arc<[u32]>>,
}

impl Run<'_> {
    fn task(&mut self, task: &Task, time: Duration) -> Result<Vec<Sample>> {
        let slice = Slice { rest: self.rest, time };
        let (shape, round) = (task.shape, self.round);
        match task.job {
            Job::Raw(engine) => {
                let backend = self.engines.open(engine)?;
                let alignment = u64::from(backend.geometry().transfer_alignment);
                let io_bytes = shape.value.next_multiple_of(alignment);
                let order = self.order(self.engines.span(engine) / io_bytes)?;
                raw::run(&backend, shape, io_bytes, &order, round, slice)
            }
            Job::Serial(engine) => {
                let backend = self.engines.open(engine)?;
                let io_bytes = serial::io_bytes(shape.value);
                let batches = self.engines.span(engine) / io_bytes / shape.batch as u64;
                let order = self.order(batches)?;
                serial::run(&backend, shape, io_bytes, &order, round, slice)
            }
            Job::Store { engine, put_bytes } => {
                let backend = self.engines.open(engine)?;
                let span = self.engines.span(engine);
                let samples = store::run(&backend, shape, put_bytes, span, round, slice);
                drop(backend);
                self.target.fill_holes()?;
                samples
            }
            Job::Fio(job) => {
                fio::run(&self.target.path, job, shape, self.pages, time).map(|one| vec![one])
            }
        }
    }

    fn order(&mut self, count: u64) -> Result<Arc<[u32]>> {
        let count = u32::try_from(count)?;
        Ok(Arc::clone(self.orders.entry(count).or_insert_with(|| permutation(count))))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
