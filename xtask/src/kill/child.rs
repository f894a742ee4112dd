//! The process that is killed.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::process;
use std::thread;

use anyhow::{Context, Result};
use raw_block_store::{Put, Store};

use super::journal::{KEYS, Value, find, is_full, name, payload, same};
use super::{Way, open};

/// Threads that change objects, each its own.
const THREADS: u64 = 3;
const KEYS_EACH: u64 = KEYS / THREADS;

/// Uses the store until this process is killed.
pub(super) fn run(path: &Path, way: Way, seed: u64, first: u64) -> Result<()> {
    let opened = open(path, way).and_then(|device| Store::open(device).context("open the store"));
    let store = match opened {
        Ok(store) => store,
        Err(error) => fail(&error),
    };
    say("opened\n");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut worker = Worker {
                    store,
                    random: fastrand::Rng::with_seed(seed ^ thread),
                    keys: thread * KEYS_EACH..(thread + 1) * KEYS_EACH,
                    now: Vec::new(),
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
    random: fastrand::Rng,
    keys: Range<u64>,
    /// What its keys hold.
    now: Vec<Value>,
    next_number: u64,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<std::convert::Infallible> {
        for key in self.keys.clone() {
            self.now.push(find(self.store, key)?);
        }
        loop {
            match self.random.u8(..16) {
                0..=7 => self.put()?,
                8..=9 => self.delete()?,
                10 => self.store.flush().context("flush")?,
                11 => self.store.checkpoint().context("checkpoint")?,
                _ => {
                    let key = self.some_keys()[0];
                    let found = find(self.store, key).with_context(|| format!("key {key}"))?;
                    same(found, self.now[self.at(key)]).with_context(|| format!("key {key}"))?;
                }
            }
        }
    }

    /// Different keys, in any order.
    fn some_keys(&mut self) -> Vec<u64> {
        let mut keys: Vec<_> = self.keys.clone().collect();
        self.random.shuffle(&mut keys);
        keys.truncate(self.random.usize(1..=keys.len()));
        keys
    }

    fn at(&self, key: u64) -> usize {
        usize::try_from(key - self.keys.start).unwrap_or(0)
    }

    fn put(&mut self) -> Result<()> {
        let mut objects = Vec::new();
        let mut begun = String::new();
        for key in self.some_keys() {
            begun += &format!("begin {key} {}\n", self.next_number);
            objects.push((key, name(key), self.next_number, payload(self.next_number)));
            self.next_number += THREADS;
        }
        say(&begun);
        let puts: Vec<_> =
            objects.iter().map(|(_, name, _, bytes)| Put::new(name, bytes)).collect();
        let results = self.store.put_many(&puts);
        let mut acknowledged = String::new();
        for ((key, _, number, _), result) in objects.iter().zip(results) {
            match result {
                Ok(()) => {
                    acknowledged += &format!("ack {key}\n");
                    let at = self.at(*key);
                    self.now[at] = Some(*number);
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
        for (key, result) in keys.iter().zip(self.store.delete_many(&names)) {
            let was_there = result.with_context(|| format!("delete key {key}"))?;
            let at = self.at(*key);
            // One that was cut off is there, and damaged.
            anyhow::ensure!(
                was_there || self.now[at].is_none(),
                "delete key {key}: it is said not to have been there"
            );
            acknowledged += &format!("ack {key}\n");
            self.now[at] = None;
        }
        say(&acknowledged);
        Ok(())
    }
}

/// Writes to the pipe by one system call: what is in it stays there when this process is killed, and short lines
/// of several threads do not mix.
fn say(lines: &str) {
    if lines.is_empty() || io::stdout().lock().write_all(lines.as_bytes()).is_ok() {
        return;
    }
    // Nobody listens any more.
    process::exit(1);
}

fn fail(error: &anyhow::Error) -> ! {
    say(&format!("wrong {}\n", format!("{error:#}").replace('\n', " ")));
    process::exit(1);
}
