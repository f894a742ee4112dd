//! The lines that a child reports, and the values that a store may therefore have.
//!
//! The child writes each line with one call, before a change begins or after it was acknowledged:
//!
//! ```text
//! opened              the store is open
//! begin KEY NUMBER    an object is put under a key
//! begin KEY -         a key is deleted
//! ack KEY             the last change of the key that began was acknowledged
//! wrong TEXT          the child reports a fault
//! ```

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use raw_block_store::{Error, Store};

use super::objects::Value;
use super::target::{StoreKind, check_counts};

/// What is known of each key. One thread changes a key, so its changes are sequential.
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
    /// The last acknowledged value.
    acknowledged: Value,
    /// The changes that began since, in their order.
    begun: Vec<Value>,
}

/// How many of the unchanged keys a check reads.
const SAMPLE: usize = 300;

impl Journal {
    /// Creates the journal of a new store. The number of an initial object is that of its key plus
    /// 1.
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

    /// Returns a number above that of every object so far.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Returns how many changes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Reads the lines of a child. Returns whether the child had opened the store.
    pub(super) fn read(&mut self, lines: &[String]) -> Result<bool> {
        let mut opened = false;
        for line in lines {
            self.take(line, &mut opened).with_context(|| format!("the child reported: {line}"))?;
        }
        Ok(opened)
    }

    fn take(&mut self, line: &str, opened: &mut bool) -> Result<()> {
        let mut words = line.split(' ');
        match words.next() {
            Some("opened") => *opened = true,
            Some("begin") => {
                let key = self.key(words.next())?;
                let value = match words.next().context("the value is missing")? {
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
                *acknowledged = begun.pop().context("no change had begun")?;
                begun.clear();
                self.acknowledged += 1;
            }
            _ => bail!("the child reports a fault"),
        }
        Ok(())
    }

    fn key(&self, word: Option<&str>) -> Result<usize> {
        let key = word.context("the key is missing")?.parse()?;
        if key >= self.keys.len() {
            bail!("there is no such key");
        }
        Ok(key)
    }

    /// Checks the values of a store after a kill: of the changed keys, and of a sample of the
    /// others.
    pub(super) fn check(&mut self, store: &Store, random: &mut fastrand::Rng) -> Result<()> {
        let mut keys = std::mem::take(&mut self.changed);
        keys.extend((0..SAMPLE).map(|_| random.usize(..self.keys.len())));
        for index in keys {
            let key = index as u64;
            let Key { acknowledged, begun } = &mut self.keys[index];
            let found = self.kind.find(store, key).with_context(|| format!("key {key}"))?;
            // The device or the page cache has all bytes of an acknowledged change, so a kill
            // cannot lose it, whether it was flushed or not.
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

/// A full store is not a fault of the store.
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
    fn a_change_counts_once_it_is_acknowledged() {
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
