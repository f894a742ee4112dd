//! Hit rates of the policies for keys by Zipf's law.

use anyhow::Result;
use clap::Args;
use raw_block_store::EvictionPolicy;

use super::history::reference;
use super::keys::{Distribution, Keys};
use super::numbers::bytes;
use super::subject::{BATCH, Client, Counts, capacity_for, make_at, name, options, policy};
use super::table::{Table, ratio, size};

/// Keys of a scan, each requested once, in order.
const SCAN: u64 = 500;
/// Keys, for each object that the store holds.
const KEYS_PER_OBJECT: u64 = 10;

/// The arguments of `hits`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Objects that the store holds, about
    #[arg(long, default_value_t = 16_000)]
    objects: u64,

    /// Bytes of an object
    #[arg(long, default_value = "64KiB", value_parser = bytes)]
    object_size: u64,

    /// Requests for each object that the store holds; the first quarter warms the cache
    #[arg(long, default_value_t = 50)]
    requests: u64,

    /// The policies
    #[arg(long, default_value = "lru,s3-fifo,fifo", value_delimiter = ',', value_parser = policy)]
    policy: Vec<EvictionPolicy>,
}

/// Requested keys, in order.
#[derive(Clone)]
struct Requests {
    keys: Keys,
    random: fastrand::Rng,
    /// The probability that a scan begins at a request.
    scans: f64,
    next_scanned: u64,
    scan_left: u64,
}

impl Iterator for Requests {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.scan_left == 0 && self.random.f64() < self.scans {
            self.scan_left = SCAN;
        }
        if self.scan_left > 0 {
            self.scan_left -= 1;
            self.next_scanned += 1;
            return Some(self.next_scanned);
        }
        Some(self.keys.draw(&mut self.random))
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut table = Table::new([
        "keys", "policy", "objects", "hit rate", "LRU", "more", "policy", "written", "moved",
        "evicted",
    ]);
    for (exponent, scans) in [(0.8, 0.0), (1.0, 0.0), (1.0, 0.3)] {
        for &policy in &options.policy {
            let requests = Requests {
                keys: Keys::new(Distribution::Zipf(exponent), options.objects * KEYS_PER_OBJECT),
                random: fastrand::Rng::with_seed(1),
                scans: scans / SCAN as f64,
                next_scanned: 1 << 40,
                scan_left: 0,
            };
            let (objects, hit_rate, counts) = replay(options, policy, requests.clone())?;
            let of = |policy| ideal(options, policy, objects, requests.clone());
            let (lru, ideal) = (of(EvictionPolicy::Lru), of(policy));
            let scans = if scans > 0.0 { " and scans" } else { "" };
            table.row(
                format!("zipf {exponent:.1}{scans}"),
                [
                    name(policy),
                    &objects.to_string(),
                    &format!("{hit_rate:.3}"),
                    &format!("{lru:.3}"),
                    &format!("{:+.3}", hit_rate - lru),
                    &format!("{ideal:.3}"),
                    &format!("{:.2}", counts.written_per_put()),
                    &format!("{:.2}", counts.moved_per_put()),
                    &format!("{:.2}", ratio(counts.evictions, counts.puts)),
                ],
            );
        }
    }
    table.print(&format!(
        "hits: objects of {}, those that are not there are put; LRU and the policy by object with as many objects as \
         the store had; bytes written and moved per byte put, evictions per put",
        size(options.object_size)
    ));
    Ok(())
}

impl Options {
    fn total(&self) -> u64 {
        self.objects * self.requests
    }
}

/// The average number of objects of a store, its hit rate, and its counts, all after the warm-up.
fn replay(
    options: &Options,
    policy: EvictionPolicy,
    mut requests: Requests,
) -> Result<(u64, f64, Counts)> {
    let capacity = capacity_for(options.objects * options.object_size);
    let store = make_at(None, capacity, &self::options(policy))?;
    let mut client = Client::new(&store, usize::try_from(options.object_size)?)?;
    let (mut hits, mut asked, mut live, mut samples) = (0, 0, 0, 0);
    let mut before = Counts::default();
    let (batches, warm) = (options.total() / BATCH as u64, options.total() / BATCH as u64 / 4);
    for batch in 0..batches {
        if batch == warm {
            (hits, asked) = (0, 0);
            before = Counts::of(&store);
        }
        let mut keys: Vec<_> = requests.by_ref().take(BATCH).collect();
        keys.sort_unstable();
        let mut missing = Vec::new();
        asked += keys.len() as u64;
        client.get(&keys, |key, found| match found {
            true => hits += 1,
            false => missing.push(key),
        })?;
        // The second request for a key in a batch would have found the object of the first.
        let misses = missing.len();
        missing.dedup();
        hits += (misses - missing.len()) as u64;
        client.put_absent(&missing)?;
        if batch > warm && batch % 64 == 0 {
            live += store.stats().objects;
            samples += 1;
        }
    }
    let counts = Counts::of(&store).since(&before);
    Ok((live / samples.max(1), ratio(hits, asked), counts))
}

fn ideal(options: &Options, policy: EvictionPolicy, objects: u64, requests: Requests) -> f64 {
    let mut cache = reference(policy, objects);
    let warm = options.total() / 4;
    let (mut hits, mut asked) = (0, 0);
    for (key, number) in requests.zip(0..options.total()) {
        let found = cache.get_or_insert(key);
        if number >= warm {
            asked += 1;
            hits += u64::from(found);
        }
    }
    ratio(hits, asked)
}
