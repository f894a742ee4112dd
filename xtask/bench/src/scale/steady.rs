//! A store that has been full for a long time, compared with a fresh one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use raw_block_core::AlignedBuf;
use raw_block_store::{EvictionPolicy, Store};

use super::history::{Batch, History, Kind};
use super::keys::Distribution;
use super::numbers::{bytes, median};
use super::pace::{Limit, Pace, Timed, run as run_batches};
use super::subject::{BATCH, Client, Counts, capacity_for, make_at, name, options, policy};
use super::table::{Table, percent, ratio, size};

/// The ratio of keys to objects of a store that is 100 % full.
const KEYS_PER_OBJECT: u64 = 10;

/// The arguments of `steady`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Objects that the store holds, about
    #[arg(long, default_value_t = 100_000)]
    objects: u64,

    /// Bytes of an object
    #[arg(long, default_value = "64KiB", value_parser = bytes)]
    object_size: u64,

    /// How full the store is, in percent. Below 100, this part of the keys that fit exists, and
    /// puts overwrite them; at 100 there are ten times as many keys as fit, and absent ones are put
    #[arg(long, default_value = "90,100", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(10..=100))]
    full: Vec<u64>,

    /// The policies
    #[arg(long, default_value = "lru,s3-fifo,fifo", value_delimiter = ',', value_parser = policy)]
    policy: Vec<EvictionPolicy>,

    /// How often each key is requested: `uniform`, or `zipf:` and the exponent
    #[arg(long, default_value = "uniform,zipf:1.0", value_delimiter = ',')]
    keys: Vec<Distribution>,

    /// Threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,

    /// The rate of the open loop, relative to the rate of the closed loop
    #[arg(long, default_value_t = 0.5)]
    load: f64,

    /// Seconds of a slice. A round has four of them, and those of the controls
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,

    /// Rounds; figures are medians of them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// The device; its contents are lost [default: memory]
    #[arg(long)]
    device: Option<PathBuf>,
}

/// The figures of one store.
#[derive(Clone, Copy)]
struct Case {
    policy: EvictionPolicy,
    full: u64,
    keys: Distribution,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut rates = Table::new([
        "store", "put MB/s", "fresh", "ratio", "bar", "written", "moved", "moves", "evicted",
        "hit rate", "ideal", "payload",
    ]);
    let mut latencies =
        Table::new(["store", "batches/s", "p50 us", "p99", "p99.9", "longest", "control", "alone"]);
    for &full in &options.full {
        for &policy in &options.policy {
            for &keys in &options.keys {
                let case = Case { policy, full, keys };
                let title = format!("{} {full} % {keys}", name(policy));
                eprintln!("{title}");
                let measured = case.measure(options).with_context(|| title.clone())?;
                measured.add_to(&title, &mut rates, &mut latencies);
            }
        }
    }
    let objects = format!("{} objects of {}", options.objects, size(options.object_size));
    rates.print(&format!(
        "steady, {objects}: puts next to a fresh store's, and what the ratio may be for the bytes moved; bytes written \
         and moved per byte put, moves and evictions per put; hit rate with 80 % gets, and that of the policy by \
         object with as many objects; payload as a share of the device"
    ));
    latencies.print(&format!(
        "steady, {objects}: batches of {BATCH}, 80 % gets, open loop at {} of the rate of the closed loop; longest \
         call, that of a control which copies as much memory at the same rate, and of one put or get call alone",
        options.load
    ));
    Ok(())
}

/// The figures of one case.
#[derive(Default)]
struct Measured {
    put_rate: Vec<f64>,
    fresh_rate: Vec<f64>,
    ratio: Vec<f64>,
    puts: Counts,
    rate: Vec<f64>,
    latencies: Vec<[f64; 4]>,
    control_longest: Vec<f64>,
    call_longest: f64,
    hit_rate: f64,
    ideal: f64,
    of_device: f64,
}

impl Measured {
    fn add_to(self, title: &str, rates: &mut Table, latencies: &mut Table) {
        let moved = self.puts.moved_per_put();
        rates.row(
            title,
            [
                &*format!("{:.0}", median(self.put_rate)),
                &format!("{:.0}", median(self.fresh_rate)),
                &format!("{:.2}", median(self.ratio)),
                &format!("{:.2}", 0.95 / (1.0 + 2.0 * moved)),
                &format!("{:.2}", self.puts.written_per_put()),
                &format!("{moved:.2}"),
                &format!("{:.2}", ratio(self.puts.moves, self.puts.puts)),
                &format!("{:.2}", ratio(self.puts.evictions, self.puts.puts)),
                &format!("{:.3}", self.hit_rate),
                &format!("{:.3}", self.ideal),
                &percent(self.of_device),
            ],
        );
        let of = |index: usize| {
            let figures = self.latencies.iter().map(|figures| figures[index]);
            format!("{:.0}", median(figures.collect()))
        };
        let longest = self.latencies.iter().map(|figures| figures[3]).fold(0.0, f64::max);
        let control = self.control_longest.into_iter().fold(0.0, f64::max);
        latencies.row(
            title,
            [
                &*format!("{:.0}", median(self.rate)),
                &of(0),
                &of(1),
                &of(2),
                &format!("{longest:.0}"),
                &format!("{control:.0}"),
                &format!("{:.0}", self.call_longest),
            ],
        );
    }
}

impl Case {
    fn measure(self, options: &Options) -> Result<Measured> {
        let capacity = capacity_for(options.objects * options.object_size);
        let store = make_at(options.device.as_deref(), capacity, &self::options(self.policy))?;
        let fitting = store.stats().bytes_left / options.object_size;
        let overwrites = self.full < 100;
        let keys = if overwrites { fitting * self.full / 100 } else { fitting * KEYS_PER_OBJECT };
        let mut run = Run { options, store, history: History::new(self.keys, keys, overwrites) };
        let seconds = Duration::try_from_secs_f64(options.seconds);
        let slice = Limit::time(seconds.context("--seconds is not a duration")?);
        let warm = |times| Limit::batches(times * fitting / BATCH as u64);
        let mut figures = Measured::default();

        run.phase(Kind::Fill, Limit::batches(fitting.min(keys) / BATCH as u64), Pace::Closed)?;
        run.phase(Kind::Put, warm(2), Pace::Closed)?;
        run.phase(Kind::Mixed, warm(4), Pace::Closed)?;
        let (phases, (asked, hits)) = (run.history.phases(), run.history.gets());
        for _ in 0..options.rounds {
            let fresh = fresh(self, options, capacity, slice)?;
            let before = Counts::of(&run.store);
            let put = run.phase(Kind::Put, slice, Pace::Closed)?;
            let counts = Counts::of(&run.store).since(&before);
            let steady = counts.put_bytes as f64 / put.time.as_secs_f64() / 1e6;
            figures.puts = figures.puts.plus(&counts);
            figures.ratio.push(steady / fresh);
            figures.fresh_rate.push(fresh);
            figures.put_rate.push(steady);
            let closed = run.phase(Kind::Mixed, slice, Pace::Closed)?;
            let pace = Pace::Open(closed.batches_per_s() * options.load);
            let open = run.phase(Kind::Mixed, slice, pace)?;
            figures.rate.push(open.batches_per_s());
            figures.latencies.push(open.latencies_us());
            figures.control_longest.push(control(options, slice, pace)?.latencies_us()[3]);
        }
        let stats = run.store.stats();
        let longest = stats.put_latency.quantile(1.0).max(stats.get_latency.quantile(1.0));
        figures.call_longest = longest.as_secs_f64() * 1e6;
        let now = run.history.gets();
        figures.hit_rate = ratio(now.1 - hits, now.0 - asked);
        figures.ideal = run.history.ideal(self.policy, stats.objects, phases);
        figures.of_device = ratio(stats.payload_bytes, run.store.dispatcher().geometry().capacity);
        run.store.close()?;
        Ok(figures)
    }
}

/// A store, and its requests so far.
struct Run<'a> {
    options: &'a Options,
    store: Store,
    history: History,
}

impl Run<'_> {
    /// Runs the batches of a phase.
    fn phase(&mut self, kind: Kind, limit: Limit, pace: Pace) -> Result<Timed> {
        let len = usize::try_from(self.options.object_size)?;
        let (store, threads) = (&self.store, self.options.threads);
        self.history.phase(kind, |history, first| {
            let mut works = Vec::new();
            for _ in 0..threads {
                let mut client = Client::new(store, len)?;
                works.push(move |number| match history.batch(kind, number) {
                    Batch::Get(keys) => client.get(&keys, |_, found| history.note_get(found)),
                    Batch::Put(keys) => client.put(&keys),
                    Batch::PutAbsent(keys) => client.put_absent(&keys).map(drop),
                });
            }
            run_batches(works, first, limit, pace)
        })
    }
}

/// Megabytes per second that a fresh store accepts.
fn fresh(case: Case, options: &Options, capacity: u64, slice: Limit) -> Result<f64> {
    // There is no space for a fresh store on the device of the measured one.
    if options.device.is_some() {
        return Ok(f64::NAN);
    }
    let store = make_at(None, capacity, &self::options(case.policy))?;
    let batches = store.stats().bytes_left / options.object_size / BATCH as u64 * 3 / 4;
    let history = History::new(case.keys, u64::MAX, true);
    let mut run = Run { options, store, history };
    let timed = run.phase(Kind::Fill, Limit { batches, ..slice }, Pace::Closed)?;
    Ok(run.store.stats().put_bytes as f64 / timed.time.as_secs_f64() / 1e6)
}

/// The same schedule with batches that only copy memory.
fn control(options: &Options, slice: Limit, pace: Pace) -> Result<Timed> {
    let len = usize::try_from(options.object_size)? * BATCH;
    let copied = AtomicU64::new(0);
    let mut works = Vec::new();
    for _ in 0..options.threads {
        let (source, mut target) = (AlignedBuf::zeroed(len)?, AlignedBuf::zeroed(len)?);
        let copied = &copied;
        works.push(move |number| {
            target.copy_from_slice(&source);
            copied
                .fetch_add(u64::from(std::hint::black_box(&target)[0]) + number, Ordering::Relaxed);
            Ok(())
        });
    }
    run_batches(works, 0, slice, pace)
}
