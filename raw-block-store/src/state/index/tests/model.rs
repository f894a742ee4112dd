use std::collections::HashMap;

use super::*;

const KEYS: u64 = 60;
const SEGMENTS: u32 = 6;
const ENTRIES: u32 = 90;

/// A change that was allocated and has not completed.
#[derive(Clone, Copy)]
enum Change {
    Put(Located),
    Delete(u64, u64),
    Copy(Move),
}

/// The index next to what it has to show: of each key the completed change with the highest
/// sequence.
struct World {
    random: fastrand::Rng,
    index: Index,
    keys: HashMap<KeyHash, u64>,
    newest: HashMap<u64, (u64, Option<Located>)>,
    in_flight: Vec<Change>,
    sequence: u64,
    /// How many numbers of each segment were given out.
    used: [u32; SEGMENTS as usize],
    open: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            index: Index::new(SEGMENTS),
            keys: (0..KEYS).map(|key| (hash(key), key)).collect(),
            newest: HashMap::new(),
            in_flight: Vec::new(),
            sequence: 0,
            used: [0; SEGMENTS as usize],
            open: 0,
        }
    }

    fn oldest_in_flight(&self) -> u64 {
        let sequences = self.in_flight.iter().map(|change| match change {
            Change::Put(new) => new.sequence(),
            Change::Delete(_, sequence) => *sequence,
            Change::Copy(_) => NOTHING,
        });
        sequences.min().unwrap_or(NOTHING)
    }

    fn shown(&self) -> impl Iterator<Item = Located> {
        self.newest.values().filter_map(|(_, shown)| *shown)
    }

    fn is_in_use(&self, segment: u32) -> bool {
        self.shown().any(|object| object.place.segment == segment)
            || self.in_flight.iter().any(|change| match change {
                Change::Put(new) => new.place.segment == segment,
                Change::Delete(..) => false,
                Change::Copy(copy) => {
                    copy.to.place.segment == segment || copy.from.segment == segment
                }
            })
    }

    /// Gives out a number; `None` if every segment is full and in use.
    fn allocate(&mut self) -> Option<Place> {
        if self.used[self.open as usize] == ENTRIES {
            self.open = (0..SEGMENTS).find(|segment| !self.is_in_use(*segment))?;
            self.index.release(self.open);
            self.used[self.open as usize] = 0;
        }
        let used = &mut self.used[self.open as usize];
        *used += 1;
        self.index.extend(self.open, *used).unwrap();
        Some(Place { segment: self.open, number: *used - 1 })
    }

    fn step(&mut self) {
        let key = self.random.u64(..KEYS);
        match self.random.u8(..10) {
            0..4 if self.in_flight.len() < 12 => {
                if let Some(place) = self.allocate() {
                    self.sequence += 1;
                    let entry = entry(key, self.sequence);
                    self.in_flight.push(Change::Put(Located { place, entry }));
                }
            }
            4 => {
                self.sequence += 1;
                self.in_flight.push(Change::Delete(key, self.sequence));
            }
            5 => {
                let object = self.newest.get(&key).and_then(|(_, object)| *object);
                if let Some(object) = object
                    && let Some(place) = self.allocate()
                {
                    let to = Located { place, ..object };
                    let copy = Move { from: object.place, to, stamp: Stamp::default() };
                    self.in_flight.push(Change::Copy(copy));
                }
            }
            6 => self.remove(key),
            _ if !self.in_flight.is_empty() => {
                let change = self.random.usize(..self.in_flight.len());
                self.complete(self.in_flight[change]);
                self.in_flight.swap_remove(change);
            }
            _ => {}
        }
    }

    fn complete(&mut self, change: Change) {
        match change {
            Change::Put(new) => {
                let key = self.keys[&new.entry.key_hash];
                let before = self.newest.get(&key).copied().unwrap_or((0, None));
                let expected = if before.0 > new.sequence() {
                    Published::Superseded
                } else {
                    self.newest.insert(key, (new.sequence(), Some(new)));
                    Published::Shown { replaced: before.1 }
                };
                assert_eq!(self.index.publish(&new), expected);
            }
            Change::Delete(key, sequence) => {
                let newest = self.newest.entry(key).or_default();
                let expected = newest.1.filter(|_| newest.0 < sequence);
                if newest.0 < sequence {
                    *newest = (sequence, None);
                }
                let oldest = self.oldest_in_flight();
                assert_eq!(self.index.delete(&hash(key), sequence, oldest), expected);
            }
            Change::Copy(copy) => {
                let key = self.keys[&copy.to.entry.key_hash];
                let from = Located { place: copy.from, ..copy.to };
                let newest = self.newest.get_mut(&key).unwrap();
                let expected = newest.1 == Some(from);
                if expected {
                    newest.1 = Some(copy.to);
                }
                self.index.publish_moves(&[copy], |_, shown| assert_eq!(shown, expected));
            }
        }
    }

    /// Removes a damaged object.
    fn remove(&mut self, key: u64) {
        let oldest = self.oldest_in_flight();
        if let Some((_, shown)) = self.newest.get_mut(&key)
            && let Some(object) = shown.take()
        {
            assert!(self.index.remove(&object, Some(oldest)));
            assert!(!self.index.remove(&object, Some(oldest)));
        }
    }

    fn check(&self) {
        let hashes: Vec<_> = (0..KEYS).map(hash).collect();
        let mut found = Vec::new();
        self.index.find_many(&hashes, &mut found);
        for (key, found) in (0..).zip(found) {
            assert_eq!(found, self.newest.get(&key).and_then(|(_, object)| *object), "key {key}");
        }
        let mut expected: Vec<_> = self.shown().collect();
        expected.sort_by_key(|object| object.place);
        let mut live = Vec::new();
        for segment in 0..SEGMENTS {
            self.index.for_each_live(segment, |number, entry| {
                live.push(located(segment, number, entry));
            });
        }
        assert_eq!(live, expected);
        assert_eq!(self.index.len(), live.len() as u64);
    }
}

#[test]
fn the_newest_completed_change_of_a_key_counts() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for step in 0..2000 {
            world.step();
            if step % 20 == 0 {
                world.check();
            }
        }
        world.check();
    }
}
