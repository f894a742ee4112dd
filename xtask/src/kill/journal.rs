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

use anyhow::{Context, Result, bail};
use raw_block_store::{Error, Store};

/// What is under a key: the number of an object, from which its bytes follow, or nothing.
pub(super) type Value = Option<u64>;

/// Keys that the children change.
pub(super) const KEYS: u64 = 12;
/// Length of the longest payload in bytes.
pub(super) const MAX_PAYLOAD: u64 = 128 << 10;

/// The bytes of an object: in its header block, of odd lengths, and too long for one command.
pub(super) fn payload(number: u64) -> Vec<u8> {
    let len = [20, 3000, 17_000, 128 << 10][(number % 4) as usize];
    let mut random = fastrand::Rng::with_seed(number);
    let mut payload = vec![0; len];
    random.fill(&mut payload);
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// The number of an object with these bytes, if they are those of any.
pub(super) fn number(found: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(found.get(..8)?.try_into().ok()?);
    (payload(number) == found).then_some(number)
}

pub(super) fn name(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

/// What a store has under a key: the number of an object, or nothing.
///
/// # Errors
/// When it has the bytes of no object.
pub(super) fn find(store: &Store, key: u64) -> Result<Value> {
    match store.get(&name(key)) {
        Ok(None) => Ok(None),
        Ok(Some(found)) => {
            number(found.payload()).map(Some).context("it has the bytes of no object")
        }
        // A put that was cut off, of a key that had no object: there is none to fall back to.
        Err(Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is known of each key. The changes of a key come one after the other, all from one thread.
pub(super) struct Journal {
    keys: Vec<Key>,
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

impl Default for Journal {
    fn default() -> Self {
        let keys = vec![Key::default(); usize::try_from(KEYS).unwrap_or(0)];
        Self { keys, next_number: 1, acknowledged: 0 }
    }
}

impl Journal {
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

    /// Checks what a store holds after its process was killed.
    pub(super) fn check(&mut self, store: &Store) -> Result<()> {
        for (key, Key { acknowledged, begun }) in (0..).zip(&mut self.keys) {
            let found = find(store, key).with_context(|| format!("key {key}"))?;
            // What was written is in the device, or in the page cache above it: nothing that was acknowledged
            // can be lost, flushed or not.
            if found != *acknowledged && !begun.contains(&found) {
                bail!("key {key}: found {found:?}, expected {acknowledged:?}, or one of {begun:?}");
            }
            *acknowledged = found;
            begun.clear();
        }
        let stats = store.stats();
        if stats.live_slots + stats.free_slots + stats.waiting_slots != stats.slots {
            bail!("free, live and waiting slots are not all: {stats:?}");
        }
        Ok(())
    }
}

/// Whether what was read now is what was acknowledged last.
pub(super) fn same(found: Value, expected: Value) -> Result<()> {
    if found != expected {
        bail!("found {found:?}, expected {expected:?}");
    }
    Ok(())
}

/// A store that is full is no fault of the store.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Full { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Journal> {
        let mut journal = Journal::default();
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
    fn a_child_that_reports_a_fault_or_makes_no_sense_is_a_violation() {
        for line in ["wrong key 3", "begin 12 1", "begin 3", "ack", "other"] {
            assert!(read(&[line]).is_err(), "{line}");
        }
    }

    #[test]
    fn a_payload_is_known_by_all_of_its_bytes() {
        for seed in 0..4 {
            let mut bytes = payload(seed);
            assert_eq!(number(&bytes), Some(seed));
            *bytes.last_mut().unwrap() ^= 1;
            assert_eq!(number(&bytes), None);
        }
    }
}
