//! What a key costs in a small and in a large store.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use raw_block_core::{AlignedBuf, Geometry, IoBackend, MemoryBackend};
use raw_block_store::{FormatOptions, Get, Put, Store};

use super::{median, scatter};

const SMALL: u64 = 100_000;
const BATCH: usize = 32;
const BLOCK: u32 = 512;
/// Lies in the header block, beside the key.
const PAYLOAD: usize = 256;
/// Keys that are put and got in each round.
const KEYS_PER_ROUND: u64 = 200_000;

/// Nanoseconds for a key, put and got.
struct Cost {
    put: f64,
    get: f64,
}

/// A store full of keys but for some slots, and a plain map and memory as large.
struct Subject {
    store: Store,
    keys: u64,
    map: HashMap<u64, u64>,
    memory: Vec<u8>,
}

pub(super) fn run(keys: u64, rounds: u32) -> Result<()> {
    let (small, large) = (Subject::new(SMALL)?, Subject::new(keys)?);
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for round in 0..u64::from(rounds) {
        let (few, many) = (small.cost(round)?, large.cost(round)?);
        let (few_control, many_control) = (small.control(round), large.control(round));
        println!(
            "flat, round {round}: put {:.0} and get {:.0} ns among {SMALL} keys (control {few_control:.0}), \
             put {:.0} and get {:.0} ns among {keys} (control {many_control:.0})",
            few.put, few.get, many.put, many.get
        );
        puts.push((many.put - many_control) / (few.put - few_control));
        gets.push((many.get - many_control) / (few.get - few_control));
    }
    println!(
        "flat: a key among {keys} costs, beyond the control, {:.2} times as much to put and {:.2} times to \
         get as among {SMALL}",
        median(puts),
        median(gets)
    );
    Ok(())
}

impl Subject {
    fn new(keys: u64) -> Result<Self> {
        let slots = keys + keys / 8 + 4096;
        let geometry = Geometry::new(slots * u64::from(BLOCK) + keys * 80 + (64 << 20), BLOCK)?;
        let device: Arc<dyn IoBackend> = Arc::new(MemoryBackend::with_geometry(geometry));
        let options = FormatOptions {
            block_size: Some(BLOCK),
            slot_count: Some(slots),
            ..FormatOptions::for_payloads(0)
        };
        Store::format(Arc::clone(&device), &options)?;
        let store = Store::open(device)?;
        let mut memory = vec![0; usize::try_from(keys)? * BLOCK as usize];
        memory.chunks_mut(4096).for_each(|page| page[0] = 1);
        let subject =
            Self { store, keys, map: (0..keys).map(|key| (scatter(key), key)).collect(), memory };
        for first in (0..keys).step_by(1024) {
            let numbers: Vec<_> = (first..keys.min(first + 1024)).collect();
            subject.put(&numbers)?;
        }
        subject.store.checkpoint()?;
        Ok(subject)
    }

    fn batches(&self, round: u64) -> impl Iterator<Item = Vec<u64>> {
        let keys = self.keys;
        (0..KEYS_PER_ROUND / BATCH as u64).map(move |batch| {
            let number = |index| scatter((round << 40) + batch * BATCH as u64 + index) % keys;
            (0..BATCH as u64).map(number).collect()
        })
    }

    fn put(&self, numbers: &[u64]) -> Result<()> {
        let keys: Vec<_> = numbers.iter().map(|number| number.to_le_bytes()).collect();
        let payload = [7; PAYLOAD];
        let puts: Vec<_> = keys.iter().map(|key| Put::new(key, &payload)).collect();
        self.store.put_many(&puts).into_iter().try_for_each(|result| result.map_err(Into::into))
    }

    fn cost(&self, round: u64) -> Result<Cost> {
        // Not measured: the slots that the last round replaced become free.
        self.store.checkpoint()?;
        self.store.flush()?;
        let began = Instant::now();
        let count = KEYS_PER_ROUND.min(self.keys / 16);
        for batch in self.batches(round).take(usize::try_from(count)? / BATCH) {
            self.put(&batch)?;
        }
        let put = per_key(began, count);
        let mut buffers: Vec<_> =
            (0..BATCH).map(|_| AlignedBuf::zeroed(PAYLOAD)).collect::<Result<_, _>>()?;
        let began = Instant::now();
        for batch in self.batches(round + 1000) {
            let keys: Vec<_> = batch.iter().map(|number| number.to_le_bytes()).collect();
            let mut gets: Vec<_> =
                keys.iter().zip(&mut buffers).map(|(key, buffer)| Get::new(key, buffer)).collect();
            for found in self.store.get_many(&mut gets) {
                found?.context("a key is missing")?;
            }
        }
        Ok(Cost { put, get: per_key(began, KEYS_PER_ROUND) })
    }

    /// A look into the map, and a copy of a block from somewhere, for each key.
    fn control(&self, round: u64) -> f64 {
        let mut block = [0; BLOCK as usize];
        let began = Instant::now();
        for batch in self.batches(round + 2000) {
            for number in batch {
                let found = self.map.get(&scatter(number)).copied().unwrap_or(0);
                let blocks = self.memory.len() / block.len();
                #[expect(clippy::cast_possible_truncation, reason = "any part of it will do")]
                let place = scatter(found) as usize % blocks * block.len();
                block.copy_from_slice(&self.memory[place..][..BLOCK as usize]);
                black_box(&block);
            }
        }
        per_key(began, KEYS_PER_ROUND)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure has fewer digits than a double")]
fn per_key(began: Instant, keys: u64) -> f64 {
    began.elapsed().as_nanos() as f64 / keys as f64
}
