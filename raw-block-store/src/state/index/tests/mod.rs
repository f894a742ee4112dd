mod by_key;
mod by_place;
mod growth;
mod model;
mod threads;

use super::*;
use crate::format::Entry;

/// Nothing is in flight.
const NOTHING: u64 = u64::MAX;

/// A key hash that spreads like one.
fn hash(key: u64) -> KeyHash {
    let mut random = fastrand::Rng::with_seed(key);
    random.u128(..).to_le_bytes()
}

/// An entry that is determined by its key and its sequence.
fn entry(key: u64, sequence: u64) -> Entry {
    let low = u32::try_from(sequence & 0xFFFF_FFFF).unwrap();
    Entry {
        key_hash: hash(key),
        sequence: sequence.into(),
        checksum: (!sequence).into(),
        payload_len: low.into(),
        key_len: 8.into(),
        metadata_len: u16::try_from(low & 0xFFFF).unwrap().into(),
        block: (!low).into(),
        blocks_back: (low & 0xFFF).into(),
    }
}

fn located(segment: u32, number: u32, entry: Entry) -> Located {
    Located { place: Place { segment, number }, entry }
}

/// An index of a few segments with this many entries each.
fn index(entries: u32) -> Index {
    let index = Index::new(4);
    (0..4).for_each(|segment| index.extend(segment, entries).unwrap());
    index
}

/// Publishes `entry` at a number of segment 0; returns the number of the object that it replaced.
fn publish(index: &Index, number: u32, entry: Entry) -> Option<Option<u32>> {
    match index.publish(&located(0, number, entry)) {
        Published::Shown { replaced } => Some(replaced.map(|replaced| replaced.place.number)),
        Published::Superseded => None,
    }
}

const NEW: Option<Option<u32>> = Some(None);
const SUPERSEDED: Option<Option<u32>> = None;

fn replaced(number: u32) -> Option<Option<u32>> {
    Some(Some(number))
}

fn number_of(index: &Index, key: u64) -> Option<u32> {
    index.find(&hash(key)).map(|found| found.place.number)
}

fn is_live(index: &Index, number: u32) -> bool {
    index.live(Place { segment: 0, number }).is_some()
}
