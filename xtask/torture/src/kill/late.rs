//! Processes that are killed while the kernel still has their writes, which take effect later.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use raw_block_core::Direct;
use raw_block_fixtures::WriteLimit;
use raw_block_store::{Engine, Store};

use super::child::say;
use super::devices::{OpenMode, TestDevice, formatted, open, test_devices};
use super::journal::Journal;
use super::objects::{name, payload};
use super::target::{Object, StoreKind, put_many};

/// The write rate of the process in bytes a second: its batch would take several seconds.
const RATE: u32 = 64 << 10;
/// The delay after which the rest of its writes take effect at once.
const DELAY: Duration = Duration::from_millis(1200);
/// The time in which they take effect after the limit is removed.
const LANDING: Duration = Duration::from_millis(300);
/// The store of these rounds: it cannot evict, so a missing object is a violation.
const KIND: StoreKind = StoreKind::Few;
const ENGINES: [Engine; 2] = [Engine::Posix, Engine::Auto];

/// Runs `rounds` rounds with each engine on each device.
pub(super) fn run(rounds: u64, seed: u64) -> Result<()> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all_lost = 0;
    for device in test_devices(KIND)? {
        for engine in ENGINES {
            let mode = OpenMode { engine, direct: Direct::Preferred };
            let (mut lost, mut waited, mut done) = (0, 0, 0);
            let mut journal = formatted(&device, KIND)?;
            for number in 0..rounds {
                match round(&device, mode, &mut journal, &mut random) {
                    Ok(opened_late) => waited += u64::from(opened_late),
                    Err(violation) => {
                        lost += 1;
                        let path = device.path().display();
                        println!("violation: round {number} on {path}: {violation:#}");
                        journal = formatted(&device, KIND)?;
                    }
                }
                done += 1;
            }
            let device =
                if matches!(device, TestDevice::File(_)) { "a file" } else { "a loop device" };
            println!(
                "{engine:?} on {device}: {done} processes were killed; the next opening waited for their writes \
                 {waited} times; a flushed object was lost {lost} times"
            );
            all_lost += lost;
        }
    }
    println!("{:.0} s", began.elapsed().as_secs_f64());
    if all_lost > 0 {
        bail!("the store broke a guarantee");
    }
    Ok(())
}

/// Kills a process within a batch and changes the store. Lets the writes of the process take
/// effect, opens the store again, and checks it. Returns whether the first opening blocked until
/// the writes had completed.
fn round(
    device: &TestDevice,
    mode: OpenMode,
    journal: &mut Journal,
    random: &mut fastrand::Rng,
) -> Result<bool> {
    let limit = WriteLimit::new(device.path(), RATE).map_err(|skipped| anyhow!("{skipped}"))?;
    let mut process = Command::new(env::current_exe()?)
        .args(["kill", "--late-child"])
        .arg(device.path())
        .args([mode.names().0, &journal.next_number().to_string()])
        .arg(limit.group())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(process.stdout.take().context("the child has a pipe")?);
    let keys = usize::try_from(KIND.keys())?;
    // The child reports that it has opened the store, and the puts that it begins.
    let said: Vec<_> = output.lines().map_while(Result::ok).take(1 + keys).collect();
    thread::sleep(Duration::from_micros(random.u64(..40_000)));
    process.kill()?;
    journal.read(&said)?;

    let result: Result<bool> = thread::scope(|scope| {
        let lifted = scope.spawn(|| {
            thread::sleep(DELAY);
            limit.lift()
        });
        let began = Instant::now();
        let store = KIND.open(open(device.path(), mode)?)?;
        let waited = began.elapsed() > DELAY / 2;
        journal.check(&store, random).context("at the first opening")?;
        change(&store, journal)?;
        lifted.join().map_err(|_| anyhow!("the thread that removes the limit panicked"))??;
        thread::sleep(LANDING);
        // Without a close: the next opening recovers the store.
        drop(store);
        Ok(waited)
    });
    process.wait()?;
    let waited = result?;
    let store = KIND.open(open(device.path(), mode)?)?;
    journal.check(&store, random).context("at the opening after the writes took effect")?;
    Ok(waited)
}

/// Returns an object for each key, with numbers from `first`.
fn objects(first: u64) -> Vec<Object> {
    let object = |key| (name(key), payload(KIND.payload_lens(), first + key));
    (0..KIND.keys()).map(object).collect()
}

/// Puts an object under each key, and flushes.
fn change(store: &Store, journal: &mut Journal) -> Result<()> {
    let first = journal.next_number();
    put_many(store, &objects(first)).all()?;
    store.flush()?;
    for key in 0..KIND.keys() {
        journal.read(&[format!("begin {key} {}", first + key), format!("ack {key}")])?;
    }
    Ok(())
}

/// The child process that is killed.
pub(super) fn child(path: &Path, engine: &str, first: u64, group: &Path) -> Result<()> {
    let mode = OpenMode::named(engine, "direct").context("no such engine")?;
    let store = KIND.open(open(path, mode)?)?;
    let objects = objects(first);
    WriteLimit::enter(group)?;
    let begun = (0..KIND.keys()).map(|key| format!("begin {key} {}\n", first + key));
    say(&format!("opened\n{}", begun.collect::<String>()));
    put_many(&store, &objects).all()?;
    // It was not killed in time. It reports no acknowledgement, so the objects may exist or not.
    loop {
        thread::park();
    }
}
