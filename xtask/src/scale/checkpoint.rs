//! Whether puts wait for checkpoints.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use raw_block_core::{AlignedBuf, Direct};
use raw_block_store::{Engine, FormatOptions, Put, Store, open_device};

use super::{median, scatter};

const SLOTS: u64 = 100_000;
const KEYS: u64 = 50_000;
const PAYLOAD: usize = 4096;
const BATCH: u64 = 32;
/// Objects that can be put before the store takes a checkpoint by itself: an eighth of its slots is free then.
const BEFORE_ONE: u64 = SLOTS - KEYS - SLOTS / 8 - BATCH;
const SLICE: Duration = Duration::from_secs(3);

pub(super) fn run(path: &Path, rounds: u32) -> Result<()> {
    let file = std::fs::File::create(path)?;
    file.set_len(SLOTS * 8300 + (64 << 20))?;
    drop(file);
    let device = open_device(path, Engine::Uring, Direct::Required)?;
    let options = FormatOptions { slot_count: Some(SLOTS), ..FormatOptions::for_payloads(4096) };
    Store::format(Arc::clone(&device), &options)?;
    let store = Store::open(device)?;
    let payload = AlignedBuf::zeroed(PAYLOAD)?;
    // Every slot is written once, so that no round meets blocks that the file system has not laid out.
    for first in (0..3 * KEYS).step_by(512) {
        put(&store, (first..first + 512).map(|key| key % KEYS), &payload)?;
    }

    let (mut own, mut back_to_back) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let none = slice(&store, &payload, Checkpoints::None)?;
        let its_own = slice(&store, &payload, Checkpoints::Own)?;
        let all_the_time = slice(&store, &payload, Checkpoints::BackToBack)?;
        println!("checkpoint, round {round}: put_many without any {none}");
        println!("checkpoint, round {round}: put_many with the store's own {its_own}");
        println!("checkpoint, round {round}: put_many beside one after the other {all_the_time}");
        own.push(its_own.p99 as f64 / none.p99 as f64);
        back_to_back.push(all_the_time.p99 as f64 / none.p99 as f64);
    }
    println!(
        "checkpoint: p99 of put_many of 32 x 4 KiB is {:.2} times that without checkpoints in a store that takes its \
         own, and {:.2} times beside one after the other",
        median(own),
        median(back_to_back)
    );
    Ok(())
}

/// The checkpoints that are taken while objects are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoints {
    None,
    /// When the store thinks fit.
    Own,
    BackToBack,
}

/// Latencies of a slice in microseconds.
struct Sample {
    p50: u64,
    p99: u64,
    longest: u64,
    batches: u64,
    checkpoints: u64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, longest, batches, checkpoints } = self;
        write!(
            f,
            "p50 {p50} us, p99 {p99} us, longest {longest} us ({batches} batches, {checkpoints} checkpoints)"
        )
    }
}

fn slice(store: &Store, payload: &[u8], checkpoints: Checkpoints) -> Result<Sample> {
    // Frees what was replaced so far, so that no kind has to wait for slots at once.
    store.checkpoint()?;
    store.flush()?;
    let before = store.stats().checkpoints;
    let over = AtomicBool::new(false);
    let mut latency = Histogram::<u64>::new(3)?;
    thread::scope(|scope| {
        let other = (checkpoints == Checkpoints::BackToBack).then(|| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    store.checkpoint()?;
                }
                anyhow::Ok(())
            })
        });
        let end = Instant::now() + SLICE;
        let mut number = 0;
        let mut put_all = || {
            while Instant::now() < end && (checkpoints != Checkpoints::None || number < BEFORE_ONE)
            {
                let began = Instant::now();
                put(store, (number..number + BATCH).map(|key| scatter(key) % KEYS), payload)?;
                latency.record(u64::try_from(began.elapsed().as_micros())?)?;
                number += BATCH;
            }
            anyhow::Ok(())
        };
        let done = put_all();
        over.store(true, Ordering::Relaxed);
        if let Some(other) = other {
            other.join().map_err(|_| anyhow!("the thread that takes checkpoints panicked"))??;
        }
        done
    })?;
    Ok(Sample {
        p50: latency.value_at_quantile(0.5),
        p99: latency.value_at_quantile(0.99),
        longest: latency.max(),
        batches: latency.len(),
        checkpoints: store.stats().checkpoints - before,
    })
}

fn put(store: &Store, keys: impl Iterator<Item = u64>, payload: &[u8]) -> Result<()> {
    let keys: Vec<_> = keys.map(u64::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, payload)).collect();
    Ok(store.put_many(&puts).into_iter().collect::<Result<(), _>>()?)
}
