//! Whether puts wait for checkpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use raw_block_core::{AlignedBuf, Direct};
use raw_block_store::{Engine, FormatOptions, OpenOptions, Put, Store, open_device};

use super::{median, scatter};

const SLOTS: u64 = 100_000;
const KEYS: u64 = 50_000;
const PAYLOAD: usize = 4096;
const BATCH: u64 = 32;
/// Between two flushes, about as long as a checkpoint writes between two of its own.
const PAUSE: Duration = Duration::from_micros(500);
const SLICE: Duration = Duration::from_secs(3);

pub(super) fn run(path: &Path, rounds: u32) -> Result<()> {
    let file = std::fs::File::create(path)?;
    file.set_len(SLOTS * 8300 + (64 << 20))?;
    drop(file);
    let device = open_device(path, Engine::Uring, Direct::Required)?;
    let options = FormatOptions { slot_count: Some(SLOTS), ..FormatOptions::for_payloads(4096) };
    Store::format(Arc::clone(&device), &options)?;
    let without_thread = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    let store = Store::open_with(device, &without_thread)?;
    let payload = AlignedBuf::zeroed(PAYLOAD)?;
    // Every slot is written once, so that no round meets blocks that the file system has not laid out.
    for first in (0..3 * KEYS).step_by(512) {
        put(&store, (first..first + 512).map(|key| key % KEYS), &payload)?;
    }

    let (mut checkpoints, mut flushes) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let alone = slice(&store, &payload, Beside::Nothing)?;
        let flushing = slice(&store, &payload, Beside::Flushes)?;
        let checkpointing = slice(&store, &payload, Beside::Checkpoints)?;
        println!(
            "checkpoint, round {round}: p99 of put_many {} us alone, {} us beside {} flushes, {} us beside {} \
             checkpoints",
            alone.p99, flushing.p99, flushing.times, checkpointing.p99, checkpointing.times
        );
        flushes.push(flushing.p99 as f64 / alone.p99 as f64);
        checkpoints.push(checkpointing.p99 as f64 / alone.p99 as f64);
    }
    println!(
        "checkpoint: p99 of put_many of 32 x 4 KiB is {:.2} times that alone, and beside flushes {:.2} times",
        median(checkpoints),
        median(flushes)
    );
    Ok(())
}

/// What goes on beside the puts, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// With pauses: how much of the price of a checkpoint is that of its flushes.
    Flushes,
    Checkpoints,
}

struct Sample {
    /// Microseconds.
    p99: u64,
    times: u64,
}

fn slice(store: &Store, payload: &[u8], beside: Beside) -> Result<Sample> {
    // Frees what was replaced so far, so that neither kind has to wait for slots.
    store.checkpoint()?;
    store.flush()?;
    let (over, times) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut latency = Histogram::<u64>::new(3)?;
    thread::scope(|scope| {
        let other = (beside != Beside::Nothing).then(|| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match beside {
                        Beside::Checkpoints => store.checkpoint()?,
                        Beside::Flushes | Beside::Nothing => {
                            store.flush()?;
                            thread::sleep(PAUSE);
                        }
                    }
                    times.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        });
        let end = Instant::now() + SLICE;
        let mut number = 0;
        let mut put_all = || {
            // No more than there are free slots, without a checkpoint.
            while Instant::now() < end && number < SLOTS - KEYS - BATCH {
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
            other.join().map_err(|_| anyhow!("what went on beside the puts panicked"))??;
        }
        done
    })?;
    Ok(Sample { p99: latency.value_at_quantile(0.99), times: times.into_inner() })
}

fn put(store: &Store, keys: impl Iterator<Item = u64>, payload: &[u8]) -> Result<()> {
    let keys: Vec<_> = keys.map(u64::to_le_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Put::new(key, payload)).collect();
    Ok(store.put_many(&puts).into_iter().collect::<Result<(), _>>()?)
}
