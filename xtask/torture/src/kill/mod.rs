//! `cargo xtask kill`.

mod child;
mod devices;
mod journal;
mod late;
mod objects;
mod target;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use devices::{OpenMode, TestDevice, formatted, keep, open, test_devices};
use journal::Journal;
use target::StoreKind;

/// The help text of this chore.
pub(crate) const ABOUT: &str = "Kills processes that use a store, and checks the guarantees of the store.

In each round a child opens the store, puts, overwrites, deletes, reads, flushes and takes checkpoints in several \
threads. It reports through a pipe what it begins and what was acknowledged. It is killed with SIGKILL at a random \
moment, also while it opens the store. Then this process opens the store, with a random engine. Every acknowledged \
change must be present: the writes of a process outlive it. A change that had begun may be present, whole, or absent.

The rounds alternate between a file below target/ and, as root, a loop device. The last line reports the number of \
rounds and violations. The image of each violation is kept.";

/// The run ends after this many violations.
const MAX_VIOLATIONS: usize = 5;
/// A child that reports nothing for this long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of processes to kill.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Seed for the operations of the children and the moments of the kills. The scheduler adds its
    /// own randomness, so a seed does not reproduce a run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kind of store.
    #[arg(long, value_enum, default_value_t = StoreKind::Few)]
    store: StoreKind,
    /// Limits the write rate of the processes, so that the kernel still has their writes when they
    /// are killed. Changes the store before these writes take effect, and checks it afterwards.
    /// Runs this many rounds with each of two engines on each device. Requires root and version 1
    /// of the blkio controller.
    #[arg(long, conflicts_with = "store")]
    late_writes: bool,
    /// Runs as the child that is killed in such a round.
    #[arg(long, hide = true, value_name = "PATH ENGINE FIRST GROUP", num_args = 4)]
    late_child: Vec<String>,
    /// Runs as the child that is killed.
    #[arg(long, hide = true, value_name = "PATH ENGINE DIRECT SEED FIRST", num_args = 5)]
    child: Vec<String>,
}

/// Runs the chore.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let [path, engine, direct, seed, first] = &options.child[..] {
        let mode =
            OpenMode::named(engine, direct).context("there is no such engine or open mode")?;
        return child::run(Path::new(path), mode, options.store, seed.parse()?, first.parse()?);
    }
    if let [path, engine, first, group] = &options.late_child[..] {
        return late::child(Path::new(path), engine, first.parse()?, Path::new(group));
    }
    if options.late_writes {
        return late::run(options.rounds, options.seed);
    }
    let began = Instant::now();
    let kind = options.store;
    let devices = test_devices(kind)?;
    let mut journals = Vec::new();
    for device in &devices {
        journals.push(formatted(device, kind)?);
    }
    let mut random = fastrand::Rng::with_seed(options.seed);
    let bar = progress(options.rounds);
    let (mut done, mut in_opening, mut violations) = (0, 0, 0);
    while done < options.rounds && violations < MAX_VIOLATIONS {
        let at = usize::try_from(done).unwrap_or(0) % devices.len();
        match round(&devices[at], kind, &mut journals[at], &mut random) {
            Ok(opened) => in_opening += u64::from(!opened),
            Err(violation) => {
                let kept = keep(&devices[at], violations)?;
                let path = devices[at].path().display();
                let report = format!("round {done} on {path}: {violation:#}; see {kept}");
                bar.suspend(|| println!("violation: {report}"));
                violations += 1;
                journals[at] = formatted(&devices[at], kind)?;
            }
        }
        done += 1;
        bar.set_position(done);
    }
    bar.finish_and_clear();
    let acknowledged: u64 = journals.iter().map(Journal::acknowledged).sum();
    println!(
        "{acknowledged} changes were acknowledged, on {} devices; {in_opening} processes were killed before they \
         had opened the store",
        devices.len()
    );
    println!("{done} rounds, {violations} violations, {:.0} s", began.elapsed().as_secs_f64());
    if violations > 0 {
        bail!("the store broke a guarantee");
    }
    Ok(())
}

/// Starts a child, kills it, and checks the store. Returns whether the child had opened the store.
fn round(
    device: &TestDevice,
    kind: StoreKind,
    journal: &mut Journal,
    random: &mut fastrand::Rng,
) -> Result<bool> {
    let mode = OpenMode::drawn(random);
    let mut child = spawn(device.path(), mode, kind, random.u64(..), journal.next_number())?;
    // The kill follows a delay after the start, or after a number of lines: so it interrupts what
    // comes next.
    let (lines, then) = if random.u8(..4) == 0 {
        (0, Duration::from_micros(random.u64(..30_000)))
    } else {
        (random.u64(1..120), Duration::from_micros(random.u64(..2_000)))
    };
    let output = child.stdout.take().context("the child has a pipe")?;
    let heard = Arc::new(AtomicU64::new(0));
    let listener = {
        let heard = Arc::clone(&heard);
        thread::spawn(move || {
            let mut lines = Vec::new();
            // The pipe has everything that the child wrote before the kill. A line without an end
            // was not written.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.push(line);
                heard.fetch_add(1, Ordering::Relaxed);
            }
            lines
        })
    };
    let spawned = Instant::now();
    let mut hangs = false;
    while heard.load(Ordering::Relaxed) < lines && !listener.is_finished() && !hangs {
        thread::sleep(Duration::from_micros(100));
        hangs = spawned.elapsed() > PATIENCE;
    }
    thread::sleep(then);
    child.kill().context("cannot kill the child")?;
    child.wait().context("cannot wait for the child")?;
    let said = listener.join().map_err(|_| anyhow!("the listener panicked"))?;
    if hangs {
        bail!("a child with {mode:?} hangs; its last line: {:?}", said.last());
    }
    let opened = journal.read(&said).with_context(|| format!("a child with {mode:?}"))?;

    let mode = OpenMode::drawn(random);
    let store = kind
        .open(open(device.path(), mode)?)
        .with_context(|| format!("cannot open the store with {mode:?}"))?;
    journal.check(&store, random).with_context(|| format!("opened with {mode:?}"))?;
    if random.bool() {
        store.close().context("cannot close the store")?;
    }
    Ok(opened)
}

fn spawn(path: &Path, mode: OpenMode, kind: StoreKind, seed: u64, first: u64) -> Result<Child> {
    let (engine, direct) = mode.names();
    Command::new(env::current_exe().context("cannot find the path of this program")?)
        .args(["kill", "--store", kind.name(), "--child"])
        .arg(path)
        .args([engine, direct, &seed.to_string(), &first.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child")
}

fn progress(rounds: u64) -> ProgressBar {
    let bar = ProgressBar::new(rounds);
    let style = "{bar:40} {pos} of {len} rounds, about {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
