//! The child process that is killed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::process;
use std::thread;

use anyhow::{Context, Result, ensure};
use raw_block_store::Store;

use super::devices::{OpenMode, open};
use super::journal::is_full;
use super::objects::{Value, name, payload};
use super::target::{StoreKind, put_many};

/// Threads that change objects. Each has its own keys.
const THREADS: u64 = 3;

/// Uses the store until this process is killed.
pub(super) fn run(
    path: &Path,
    mode: OpenMode,
    kind: StoreKind,
    seed: u64,
    first: u64,
) -> Result<()> {
    let store = match open(path, mode).and_then(|device| kind.open(device)) {
        Ok(store) => store,
        Err(error) => fail(&error),
    };
    say("opened\n");
    let keys = kind.keys() / THREADS;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut worker = Worker {
                    store,
                    kind,
                    random: fastrand::Rng::with_seed(seed ^ thread),
                    keys: thread * keys..(thread + 1) * keys,
                    now: BTreeMap::new(),
                    next_number: first + thread,
                };
                let Err(error) = worker.work();
                fail(&error)
            });
        }
    });
    Ok(())
}

/// A thread of the child.
struct Worker<'a> {
    store: &'a Store,
    kind: StoreKind,
    random: fastrand::Rng,
    keys: Range<u64>,
    /// The values of its keys, as far as this incarnation knows them.
    now: BTreeMap<u64, Value>,
    next_number: u64,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<std::convert::Infallible> {
        loop {
            match self.random.u8(..16) {
                0..=7 => self.put()?,
                8..=9 => self.delete()?,
                10 => self.store.flush().context("flush")?,
                11 => self.store.checkpoint().context("checkpoint")?,
                _ => {
                    for key in self.some_keys() {
                        self.get(key).with_context(|| format!("key {key}"))?;
                    }
                }
            }
        }
    }

    fn get(&mut self, key: u64) -> Result<()> {
        let found = self.kind.find(self.store, key)?;
        let expected = *self.now.entry(key).or_insert(found);
        let evicted = self.kind.evicts() && found.is_none();
        ensure!(evicted || found == expected, "found {found:?}, expected {expected:?}");
        Ok(())
    }

    /// Distinct keys, in random order.
    fn some_keys(&mut self) -> Vec<u64> {
        let mut keys: Vec<_> = (0..self.random.usize(1..=self.kind.batch()))
            .map(|_| self.random.u64(self.keys.clone()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        self.random.shuffle(&mut keys);
        keys
    }

    fn put(&mut self) -> Result<()> {
        let (mut numbers, mut objects) = (Vec::new(), Vec::new());
        let mut begun = String::new();
        for key in self.some_keys() {
            begun += &format!("begin {key} {}\n", self.next_number);
            numbers.push((key, self.next_number));
            objects.push((name(key), payload(self.kind.payload_lens(), self.next_number)));
            self.next_number += THREADS;
        }
        say(&begun);
        let results = put_many(self.store, &objects);
        let mut acknowledged = String::new();
        for ((key, number), result) in numbers.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    acknowledged += &format!("ack {key}\n");
                    self.now.insert(key, Some(number));
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("put key {key}")),
            }
        }
        say(&acknowledged);
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        let keys = self.some_keys();
        say(&keys.iter().map(|key| format!("begin {key} -\n")).collect::<String>());
        let names: Vec<_> = keys.iter().copied().map(name).collect();
        let names: Vec<_> = names.iter().map(<[u8; 8]>::as_slice).collect();
        let mut acknowledged = String::new();
        for (key, result) in keys.into_iter().zip(self.store.delete_many(&names)) {
            result.with_context(|| format!("delete key {key}"))?;
            self.now.insert(key, None);
            acknowledged += &format!("ack {key}\n");
        }
        say(&acknowledged);
        Ok(())
    }
}

/// Writes to the pipe with one system call. The pipe keeps the bytes when this process is killed,
/// and short lines of several threads do not mix.
pub(super) fn say(lines: &str) {
    if lines.is_empty() || io::stdout().lock().write_all(lines.as_bytes()).is_ok() {
        return;
    }
    // The parent does not read any more.
    process::exit(1);
}

fn fail(error: &anyhow::Error) -> ! {
    say(&format!("wrong {}\n", format!("{error:#}").replace('\n', " ")));
    process::exit(1);
}
