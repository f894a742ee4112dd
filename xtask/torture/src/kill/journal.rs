//! What a child says it does, and what a store may therefore hold.
//!
//! Lines, each written by one call before the change begins or after it was acknowledged:
//!
//! ```text
//! opened              the store is open
//! begin KEY NUMBER    an object is put under a key
//! begin KEY -         a key is deleted
//! ack KEY             the last change of the key that began was acknowledged
//! wrong TEXT          something happened that must not
//! ```

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use raw_block_store::{Error, Store};

use super::objects::Value;
use super::target::{StoreKind, check_counts};

/// What is known of each key. The changes of a key come one after the other, all from one thread.
pub(super) struct Journal {
    kind: StoreKind,
    keys: Vec<Key>,
    /// The keys that changed since the last check.
    changed: BTreeSet<usize>,
    next_number: u64,
    acknowledged: u64,
}

#[derive(Clone, Default)]
struct Key {
    /// What was acknowledged last.
    acknowledged: Value,
    /// What began since, the last one last.
    begun: Vec<Value>,
}

/// How many of the keys that did not change a check reads.
const SAMPLE: usize = 300;

impl Journal {
    /// A new store, whose first keys have an object each: the number of such an object is above that of its key by 1.
    pub(super) fn new(kind: StoreKind) -> Self {
        let value = |key: u64| (key < kind.filled()).then_some(key + 1);
        let key = |key| Key { acknowledged: value(key), begun: Vec::new() };
        Self {
            kind,
            keys: (0..kind.keys()).map(key).collect(),
            changed: BTreeSet::new(),
            next_number: kind.filled() + 1,
            acknowledged: 0,
        }
    }

    /// Above the number of every object that was put.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// How many changes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Takes what a child said. Returns whether it had opened the store.
    pub(super) fn read(&mut self, lines: &[String]) -> Result<bool> {
        let mut opened = false;
        for line in lines {
            self.take(line, &mut opened).with_context(|| format!("it said: {line}"))?;
        }
        Ok(opened)
    }

    fn take(&mut self, line: &str, opened: &mut bool) -> Result<()> {
        let mut words = line.split(' ');
        match words.next() {
            Some("opened") => *opened = true,
            Some("begin") => {
                let key = self.key(words.next())?;
                let value = match words.next().context("what began?")? {
                    "-" => None,
                    number => Some(number.parse()?),
                };
                self.keys[key].begun.push(value);
                self.changed.insert(key);
                self.next_number = self.next_number.max(value.unwrap_or(0) + 1);
            }
            Some("ack") => {
                let key = self.key(words.next())?;
                let Key { acknowledged, begun } = &mut self.keys[key];
                *acknowledged = begun.pop().context("nothing had begun")?;
                begun.clear();
                self.acknowledged += 1;
            }
            _ => bail!("something happened that must not"),
        }
        Ok(())
    }

    fn key(&self, word: Option<&str>) -> Result<usize> {
        let key = word.context("which key?")?.parse()?;
        if key >= self.keys.len() {
            bail!("there is no such key");
        }
        Ok(key)
    }

    /// Checks what a store holds after its process was killed: the keys that changed, and some others.
    pub(super) fn check(&mut self, store: &Store, random: &mut fastrand::Rng) -> Result<()> {
        let mut keys = std::mem::take(&mut self.changed);
        keys.extend((0..SAMPLE).map(|_| random.usize(..self.keys.len())));
        for index in keys {
            let key = index as u64;
            let Key { acknowledged, begun } = &mut self.keys[index];
            let found = self.kind.find(store, key).with_context(|| format!("key {key}"))?;
            // What was written is in the device, or in the page cache above it: nothing that was acknowledged
            // can be lost, flushed or not.
            let evicted = self.kind.evicts() && found.is_none();
            ensure!(
                evicted || found == *acknowledged || begun.contains(&found),
                "key {key}: found {found:?}, expected {acknowledged:?}, or one of {begun:?}"
            );
            *acknowledged = found;
            begun.clear();
        }
        check_counts(store)
    }
}

/// A store that is full is no fault of the store.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::OutOfSpace { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Journal> {
        let mut journal = Journal::new(StoreKind::Few);
        journal.read(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())?;
        Ok(journal)
    }

    #[test]
    fn what_began_counts_as_soon_as_it_was_acknowledged() {
        let journal = read(&["opened", "begin 3 7", "ack 3", "begin 3 -"]).unwrap();
        assert_eq!((journal.next_number(), journal.acknowledged()), (8, 1));
        assert_eq!(
            (journal.keys[3].acknowledged, &journal.keys[3].begun[..]),
            (Some(7), &[None][..])
        );
    }

    #[test]
    fn a_child_with_a_fault_or_a_bad_report_is_a_violation() {
        for line in ["wrong key 3", "begin 12 1", "begin 3", "ack", "other"] {
            assert!(read(&[line]).is_err(), "{line}");
        }
    }
}
