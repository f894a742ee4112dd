//! The cost of a recovery after a kill.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{hint, thread};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use raw_block_store::{EvictionPolicy, Store};

use super::device::SparseDevice;
use super::numbers::{bytes, median};
use super::subject::{BATCH, Client, capacity_for, make, options, segment_size};
use super::table::{Table, percent, ratio, size};

/// Objects that are read after a recovery.
const CHECKED: u64 = 10_000;

/// The arguments of `recovery`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Objects to put
    #[arg(long, default_value = "100000", value_delimiter = ',')]
    objects: Vec<u64>,

    /// Bytes of an object
    #[arg(long, default_value = "64KiB", value_parser = bytes)]
    object_size: u64,

    /// The part of the space that the objects take, in percent
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=99))]
    full: u64,

    /// The part of the objects to overwrite, in percent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1000))]
    overwritten: u64,

    /// Kills, each followed by a recovery
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
}

/// The cost of opening a store.
struct Opening {
    cpu: f64,
    time: f64,
    read: u64,
    /// Bytes of payloads.
    payload_read: u64,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut table = Table::new([
        "opening",
        "objects",
        "CPU s",
        "s",
        "read",
        "of capacity",
        "payloads",
        "index",
    ]);
    for &objects in &options.objects {
        let mut subject = Subject::new(options, objects)?;
        let (mut killed, mut live) = (Vec::new(), 0);
        for round in 0..options.rounds {
            eprintln!("recovery, round {round}: overwriting");
            let (opening, found) = subject.kill_and_open(options, round)?;
            killed.push(opening);
            live = found;
        }
        let (closed, index) = subject.close_and_open()?;
        let figure = |of: &dyn Fn(&Opening) -> f64| median(killed.iter().map(of).collect());
        let mut row = |title: &str, figures: [f64; 4]| {
            let [cpu, time, read, payload_read] = figures;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
            let [read_bytes, payload_bytes] = [read as u64, payload_read as u64];
            table.row(
                title,
                [
                    &*live.to_string(),
                    &format!("{cpu:.3}"),
                    &format!("{time:.3}"),
                    &size(read_bytes),
                    &percent(read / subject.capacity as f64),
                    &size(payload_bytes),
                    &size(index),
                ],
            );
        };
        row(
            "killed",
            [
                figure(&|of| of.cpu),
                figure(&|of| of.time),
                figure(&|of| (of.read - of.payload_read) as f64),
                figure(&|of| of.payload_read as f64),
            ],
        );
        let Opening { cpu, time, read, payload_read } = closed;
        row("closed", [cpu, time, (read - payload_read) as f64, payload_read as f64]);
    }
    table.print(&format!(
        "recovery: objects of {} that take {} % of the space, {} % overwritten; read: without payloads of contested keys",
        size(options.object_size),
        options.full,
        options.overwritten
    ));
    Ok(())
}

struct Subject {
    device: SparseDevice,
    capacity: u64,
    objects: u64,
    payload_len: usize,
    store: Option<Store>,
}

impl Subject {
    fn new(options: &Options, objects: u64) -> Result<Self> {
        eprintln!("recovery: putting {objects} objects");
        let capacity = capacity_for(objects * options.object_size / options.full * 100);
        let device = SparseDevice::new(capacity, None, 0)?;
        let policy = self::options(EvictionPolicy::Lru);
        let store = make(device.open(), segment_size(capacity), &policy)?;
        let payload_len = usize::try_from(options.object_size)?;
        let mut client = Client::new(&store, payload_len)?;
        for first in (0..objects).step_by(BATCH) {
            client.put(&(first..objects.min(first + BATCH as u64)).collect::<Vec<_>>())?;
        }
        store.flush()?;
        Ok(Self { device, capacity, objects, payload_len, store: Some(store) })
    }

    /// Overwrites objects, kills the process at a random moment, and opens the store again.
    fn kill_and_open(&mut self, options: &Options, round: u64) -> Result<(Opening, u64)> {
        let store = self.store.take().context("the store is open")?;
        let mut random = fastrand::Rng::with_seed(round);
        let count = self.objects * options.overwritten / 100;
        let put = AtomicU64::new(0);
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            let mut client = Client::new(&store, self.payload_len)?;
            let (objects, mut keys) = (self.objects, random.fork());
            let put = &put;
            let writer = scope.spawn(move || {
                loop {
                    let keys: Vec<_> = (0..BATCH).map(|_| keys.u64(..objects)).collect();
                    if let Err(error) = client.put(&keys) {
                        return error;
                    }
                    put.fetch_add(BATCH as u64, Ordering::Relaxed);
                }
            });
            while put.load(Ordering::Relaxed) < count && !writer.is_finished() {
                thread::sleep(Duration::from_micros(100));
            }
            let until = Instant::now() + Duration::from_micros(random.u64(..20_000));
            while Instant::now() < until {
                hint::spin_loop();
            }
            self.device.kill();
            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = writer.join().ok();
            anyhow::Ok(())
        })?;
        if put.into_inner() < count {
            bail!("puts failed before the kill: {failed:?}");
        }
        drop(store);
        let opening = self.open()?;
        let live = self.check(&mut random)?;
        Ok((opening, live))
    }

    fn close_and_open(&mut self) -> Result<(Opening, u64)> {
        self.store.take().context("the store is open")?.close()?;
        let opening = self.open()?;
        let index = self.store.as_ref().map_or(0, |store| store.stats().index_memory);
        Ok((opening, index))
    }

    fn open(&mut self) -> Result<Opening> {
        let payload_before = self.device.payload_read();
        let (began, cpu) = (Instant::now(), cpu_s());
        let store = Store::open_with(self.device.open(), &options(EvictionPolicy::Lru))?;
        let opening = Opening {
            cpu: cpu_s() - cpu,
            time: began.elapsed().as_secs_f64(),
            read: store.dispatcher().stats().read_bytes,
            payload_read: self.device.payload_read() - payload_before,
        };
        self.store = Some(store);
        Ok(opening)
    }

    /// Gets some objects. Returns the number of objects of the store.
    fn check(&self, random: &mut fastrand::Rng) -> Result<u64> {
        let store = self.store.as_ref().context("the store is open")?;
        let mut client = Client::new(store, self.payload_len)?;
        let keys: Vec<_> = (0..CHECKED).map(|_| random.u64(..self.objects)).collect();
        let mut found = 0;
        client.get(&keys, |_, hit| found += u64::from(hit))?;
        let live = store.stats().objects;
        let (share, expected) = (ratio(found, CHECKED), ratio(live, self.objects));
        if (share - expected).abs() > 0.05 {
            bail!(
                "{live} of {} objects are live, and {found} of {CHECKED} were found",
                self.objects
            );
        }
        Ok(live)
    }
}

/// Seconds of processor time that this process has used.
fn cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    let micros = usage.map_or(0, |usage| {
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    });
    micros as f64 / 1e6
}
