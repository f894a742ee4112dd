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

/// The help of this chore.
pub(crate) const ABOUT: &str = "Kills processes that use a store, and holds the store to its promises.

In every round a child opens the store, puts, overwrites, deletes, reads, flushes and takes checkpoints from \
several threads, and says through a pipe what it begins and what was acknowledged. It is killed with SIGKILL at \
a random moment, also while it opens the store; then the store is opened here, with an engine drawn at random. \
Nothing that was acknowledged may be missing: what a process has written outlives it. What had begun may have \
happened, whole, or not.

It runs on a file below target/ and, as root, on a loop device in turn. The last line tells rounds and \
violations. The image on which a promise was broken is kept.";

/// So many violations are enough to look at.
const MAX_VIOLATIONS: usize = 5;
/// A child that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many processes are killed.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Draws what the children do, and when they are killed. The scheduler has its say too, so the same seed does
    /// not give the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which store.
    #[arg(long, value_enum, default_value_t = StoreKind::Few)]
    store: StoreKind,
    /// Limits how fast the processes write, so that the kernel still has writes when they are killed; changes the store
    /// before these take effect, and checks it afterwards. So many rounds with each of two engines on each device. It
    /// takes root and version 1 of the blkio controller.
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
        let mode = OpenMode::named(engine, direct).context("no such mode to open a device")?;
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
                let told = format!("round {done} on {path}: {violation:#}; see {kept}");
                bar.suspend(|| println!("violation: {told}"));
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
        "{acknowledged} changes were acknowledged; {in_opening} processes were killed before they had opened the \
         store, on {} devices",
        devices.len()
    );
    println!("{done} rounds, {violations} violations, {:.0} s", began.elapsed().as_secs_f64());
    if violations > 0 {
        bail!("the store broke a promise");
    }
    Ok(())
}

/// Lets a child work, kills it, and looks at what it left. Returns whether the child had opened the store.
fn round(
    device: &TestDevice,
    kind: StoreKind,
    journal: &mut Journal,
    random: &mut fastrand::Rng,
) -> Result<bool> {
    let mode = OpenMode::drawn(random);
    let mut child = spawn(device.path(), mode, kind, random.u64(..), journal.next_number())?;
    // Some time after it began, or some time after so many lines: in the middle of what comes next.
    let (lines, then) = if random.u8(..4) == 0 {
        (0, Duration::from_micros(random.u64(..30_000)))
    } else {
        (random.u64(1..120), Duration::from_micros(random.u64(..2_000)))
    };
    let output = child.stdout.take().context("it has a pipe")?;
    let heard = Arc::new(AtomicU64::new(0));
    let listener = {
        let heard = Arc::clone(&heard);
        thread::spawn(move || {
            let mut lines = Vec::new();
            // Everything that it wrote before it was killed comes out of the pipe. A line that is cut off was
            // not written.
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
        bail!("a child with {mode:?} hangs; it said last: {:?}", said.last());
    }
    let opened = journal.read(&said).with_context(|| format!("a child with {mode:?}"))?;

    let mode = OpenMode::drawn(random);
    let store = kind
        .open(open(device.path(), mode)?)
        .with_context(|| format!("it does not open with {mode:?}"))?;
    journal.check(&store, random).with_context(|| format!("opened with {mode:?}"))?;
    if random.bool() {
        store.close().context("it does not close")?;
    }
    Ok(opened)
}

fn spawn(path: &Path, mode: OpenMode, kind: StoreKind, seed: u64, first: u64) -> Result<Child> {
    let (engine, direct) = mode.names();
    Command::new(env::current_exe().context("cannot find this program")?)
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
