//! A trace of inference traffic, replayed.

use std::collections::HashSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use hdrhistogram::Histogram;
use raw_block_store::EvictionPolicy;

use super::numbers::bytes;
use super::pace::histogram;
use super::reference::{Lru, Reference};
use super::requests::{self, Request};
use super::subject::{Client, Counts, capacity_for, make_at, name, options, policy};
use super::table::{Table, percent, ratio, size};

/// The arguments of `trace`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// The trace: one request in JSON per line, with `timestamp` and `hash_ids`; optionally
    /// compressed by gzip
    trace: PathBuf,

    /// Bytes of a block of the trace
    #[arg(long, default_value = "256KiB", value_parser = bytes)]
    block: u64,

    /// Sizes of the cache, in percent of the distinct blocks of the trace
    #[arg(long, default_value = "5,10,20,40", value_delimiter = ',')]
    shares: Vec<u32>,

    /// The policies
    #[arg(long, default_value = "lru", value_delimiter = ',', value_parser = policy)]
    policy: Vec<EvictionPolicy>,

    /// Replay this many times as fast as the trace; as fast as possible if not given
    #[arg(long)]
    speed: Option<f64>,

    /// How often the trace is replayed, each time with other keys; the first time warms the cache
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeat: u64,

    /// The device; its contents are lost [default: memory]
    #[arg(long)]
    device: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let requests = requests::read(&options.trace)?;
    let different: HashSet<_> = requests.iter().flat_map(|request| &request.hash_ids).collect();
    let blocks = different.len() as u64;
    eprintln!("{} requests, {blocks} different blocks", requests.len());
    let mut table = Table::new([
        "cache", "hit rate", "LRU", "less", "written", "moved", "evicted", "waits", "p50 us",
        "p99", "p99.9", "longest", "device",
    ]);
    for &policy in &options.policy {
        for &share in &options.shares {
            let payload_bytes = blocks * u64::from(share) / 100 * options.block;
            let row = replay(options, policy, payload_bytes, &requests, blocks)?;
            let title = format!("{} {share} %, {} blocks", name(policy), row.objects);
            let us = |quantile| row.latency.value_at_quantile(quantile) / 1000;
            table.row(
                title,
                [
                    &*format!("{:.3}", row.hit_rate),
                    &format!("{:.3}", row.ideal),
                    &format!("{:.3}", row.ideal - row.hit_rate),
                    &format!("{:.3}", row.counts.written_per_put()),
                    &format!("{:.3}", row.counts.moved_per_put()),
                    &format!("{:.2}", ratio(row.counts.evictions, row.counts.puts)),
                    &row.counts.waits.to_string(),
                    &us(0.5).to_string(),
                    &us(0.99).to_string(),
                    &us(0.999).to_string(),
                    &us(1.0).to_string(),
                    &percent(row.of_device),
                ],
            );
        }
    }
    table.print(&format!(
        "trace: blocks of {}; LRU by object with as many blocks as the store had; bytes written and moved per byte \
         put; latency of the gets of a request; payload as a share of the device",
        size(options.block)
    ));
    Ok(())
}

/// The figures of a replay after its first quarter.
struct Row {
    /// Average number of objects of the store.
    objects: u64,
    hit_rate: f64,
    /// The hit rate of LRU by object with as many objects.
    ideal: f64,
    counts: Counts,
    latency: Histogram<u64>,
    of_device: f64,
}

fn replay(
    options: &Options,
    policy: EvictionPolicy,
    payload_bytes: u64,
    requests: &[Request],
    blocks: u64,
) -> Result<Row> {
    let capacity = capacity_for(payload_bytes);
    let store = make_at(options.device.as_deref(), capacity, &self::options(policy))?;
    let mut client = Client::new(&store, usize::try_from(options.block)?)?;
    let (mut hits, mut asked) = (0, 0);
    let mut latency = histogram()?;
    let (mut before, mut live, mut samples) = (Counts::default(), 0, 0);
    let warm = requests.len() * usize::try_from(options.repeat)? / 4;
    let mut began = Instant::now();
    for (number, request) in repeated(requests, options.repeat, blocks) {
        if number == warm {
            before = Counts::of(&store);
        }
        if let Some(speed) = options.speed {
            if number % requests.len() == 0 {
                began = Instant::now();
            }
            let due = Duration::try_from_secs_f64(request.timestamp as f64 / 1e3 / speed);
            let due = due.context("--speed is not a positive number")?;
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let (found, time) = serve(&mut client, &request.hash_ids)?;
        if number > warm {
            asked += request.hash_ids.len() as u64;
            hits += found;
            if found > 0 {
                latency.saturating_record(time);
            }
        }
        if number > warm && number % 16 == 0 {
            live += store.stats().objects;
            samples += 1;
        }
    }
    let objects = live / samples.max(1);
    Ok(Row {
        objects,
        hit_rate: ratio(hits, asked),
        ideal: ideal(requests, options.repeat, blocks, objects),
        counts: Counts::of(&store).since(&before),
        latency,
        of_device: ratio(objects * options.block, store.dispatcher().geometry().capacity),
    })
}

/// The requests of all replays with their numbers. Each replay has its own keys.
fn repeated(
    requests: &[Request],
    times: u64,
    blocks: u64,
) -> impl Iterator<Item = (usize, Request)> {
    let most = requests.iter().flat_map(|request| &request.hash_ids).max();
    let step = most.map_or(blocks, |most| most + 1);
    let all = (0..times).flat_map(move |replay| {
        requests.iter().map(move |request| {
            let hash_ids = request.hash_ids.iter().map(|key| key + replay * step).collect();
            Request { hash_ids, ..*request }
        })
    });
    all.enumerate()
}

/// Gets the longest prefix that the store has, and puts the rest. Returns the length of the prefix,
/// and the nanoseconds of the gets.
fn serve(client: &mut Client<'_>, keys: &[u64]) -> Result<(u64, u64)> {
    let prefix = client.prefix_len(keys)?;
    let began = Instant::now();
    let mut found = 0;
    client.get(&keys[..prefix], |_, hit| found += u64::from(hit))?;
    let time = u64::try_from(began.elapsed().as_nanos())?;
    client.put_absent(&keys[prefix..])?;
    Ok((found, time))
}

/// The hit rate of LRU by object with this capacity.
fn ideal(requests: &[Request], times: u64, blocks: u64, capacity: u64) -> f64 {
    let mut cache = Lru::new(usize::try_from(capacity).unwrap_or(usize::MAX), false);
    let warm = requests.len() * usize::try_from(times).unwrap_or(1) / 4;
    let (mut hits, mut asked) = (0, 0);
    for (number, request) in repeated(requests, times, blocks) {
        let prefix = request.hash_ids.iter().take_while(|&&key| cache.contains(key)).count();
        for &key in &request.hash_ids {
            cache.get_or_insert(key);
        }
        if number > warm {
            asked += request.hash_ids.len() as u64;
            hits += prefix as u64;
        }
    }
    ratio(hits, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(hash_ids: &[u64]) -> Request {
        Request { timestamp: 0, hash_ids: hash_ids.to_vec() }
    }

    #[test]
    fn a_hit_is_a_block_of_the_longest_prefix() {
        let requests =
            [request(&[9]), request(&[1, 2, 3]), request(&[1, 4, 3]), request(&[1, 2, 5])];
        // The first quarter is the first request and the next one. Of the others, 1 is present, and
        // then 1 and 2.
        assert!((ideal(&requests, 1, 6, 100) - 3.0 / 6.0).abs() < 1e-9);
    }

    #[test]
    fn each_replay_has_its_own_keys() {
        let all: Vec<_> = repeated(&[request(&[0, 7])], 2, 2).map(|(_, of)| of.hash_ids).collect();
        assert_eq!(all, [[0, 7], [8, 15]]);
    }
}
