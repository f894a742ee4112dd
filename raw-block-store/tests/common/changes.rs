//! Random changes to a store, and what each key may hold after them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use raw_block_store::{Error, FormatOptions, Put, Store};

use crate::common::{bytes, check_segments, small};

const KEYS: u64 = 40;
const PAYLOAD_LEN: u64 = 12 << 10;

/// A device of this length has 30 segments, each of which is opened again after some 30 steps. All
/// keys fit into it.
pub(crate) const DEVICE_LEN: u64 = 1 << 20;

/// A store of small segments, whatever is on the device.
pub(crate) fn format() -> FormatOptions {
    small().force(true)
}

/// What was put under a key, or `None` if it was deleted. No two puts have the same number.
type Version = Option<u64>;

fn payload(version: u64) -> Vec<u8> {
    bytes(version, usize::try_from(version * 7919 % (PAYLOAD_LEN + 1)).unwrap())
}

/// A change of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The step that made it.
    pub(crate) step: u64,
    pub(crate) version: Version,
    pub(crate) is_acknowledged: bool,
}

/// How many gets had which result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) right: u64,
    pub(crate) damaged: u64,
    pub(crate) failed: u64,
}

/// All changes of all keys.
pub(crate) struct History {
    random: fastrand::Rng,
    keys: Vec<Vec<Change>>,
    pub(crate) step: u64,
    version: u64,
    /// Changes that were refused.
    pub(crate) refused: u64,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let keys = (0..KEYS).map(|_| Vec::new()).collect();
        Self { random: fastrand::Rng::with_seed(seed), keys, step: 0, version: 0, refused: 0 }
    }

    /// Puts some objects and deletes some others: one step.
    pub(crate) fn change(&mut self, store: &Store) {
        self.step += 1;
        let mut keys: Vec<_> = (0..KEYS).collect();
        self.random.shuffle(&mut keys);
        let (put, deleted) = keys.split_at(self.random.usize(1..=8));
        let deleted = &deleted[..self.random.usize(..3)];
        let objects: Vec<_> = put
            .iter()
            .map(|key| {
                self.version += 1;
                (key.to_le_bytes(), self.version, payload(self.version))
            })
            .collect();
        let puts: Vec<_> = objects.iter().map(|(key, _, value)| Put::new(key, value)).collect();
        for ((key, result), object) in put.iter().zip(store.put_many(&puts)).zip(&objects) {
            self.add(*key, Some(object.1), result.is_ok());
        }
        let names: Vec<_> = deleted.iter().map(|key| key.to_le_bytes()).collect();
        let names: Vec<_> = names.iter().map(<[u8; 8]>::as_slice).collect();
        for (key, result) in deleted.iter().zip(store.delete_many(&names)) {
            self.add(*key, None, result.is_ok());
        }
    }

    fn add(&mut self, key: u64, version: Version, is_acknowledged: bool) {
        self.refused += u64::from(!is_acknowledged);
        let change = Change { step: self.step, version, is_acknowledged };
        self.keys[usize::try_from(key).unwrap()].push(change);
    }

    /// Gets every key. Each has the version of its last change that is `certain`, or of a later one
    /// that `may` count. An error is right if `may_fail` says so, which gets these versions.
    pub(crate) fn check(
        &self,
        store: &Store,
        certain: impl Fn(&Change) -> bool,
        may: impl Fn(&Change) -> bool,
        may_fail: impl Fn(&Error, &[Version]) -> bool,
    ) -> Found {
        let mut counts = Found::default();
        for (key, changes) in (0_u64..).zip(&self.keys) {
            let last = changes.iter().rposition(&certain);
            let later =
                changes[last.map_or(0, |last| last + 1)..].iter().filter(|change| may(change));
            let allowed: Vec<Version> = [last.and_then(|last| changes[last].version)]
                .into_iter()
                .chain(later.map(|change| change.version))
                .collect();
            match store.get(&key.to_le_bytes()) {
                Ok(found) => {
                    let found = found.map(|object| object.payload().to_vec());
                    let is_right = allowed.iter().any(|version| version.map(payload) == found);
                    let len = found.map(|found| found.len());
                    assert!(is_right, "key {key} has {len:?} bytes that are none of {allowed:?}");
                    counts.right += 1;
                }
                Err(error) => {
                    assert!(may_fail(&error, &allowed), "key {key}, one of {allowed:?}: {error}");
                    let is_damaged = matches!(error, Error::Damaged { .. });
                    *(if is_damaged { &mut counts.damaged } else { &mut counts.failed }) += 1;
                }
            }
        }
        counts
    }

    /// Checks that every segment is in exactly one state, and that there are no objects but those
    /// of the keys.
    pub(crate) fn check_counts(store: &Store) {
        check_segments(store);
        let present = (0..KEYS).filter(|key| store.contains(&key.to_le_bytes()).unwrap()).count();
        assert!(store.stats().objects >= present as u64 && store.stats().objects <= KEYS);
    }

    /// Takes what a store holds after it was opened again for the newest version of each key.
    pub(crate) fn settle(&mut self, store: &Store) {
        for (key, changes) in (0_u64..).zip(&mut self.keys) {
            let found = store.get(&key.to_le_bytes()).unwrap();
            let found = found.map(|object| object.payload().to_vec());
            let is_it = |change: &&Change| change.version.map(payload) == found;
            let version = changes.iter().rev().find(is_it).and_then(|change| change.version);
            changes.push(Change { step: self.step, version, is_acknowledged: true });
        }
    }
}
