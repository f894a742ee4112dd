//! Which objects go when the store is full.

mod list;
mod lru;
mod s3_fifo;

use std::sync::Mutex;

use enum_dispatch::enum_dispatch;
use lru::Lru;
use raw_block_core::waiting;
use s3_fifo::S3Fifo;

use crate::Error;
use crate::index::{Index, KeyHash, Located};

/// How many parts of the slots are evicted at once, so that a batch finds neighbouring slots.
const PARTS: u64 = 128;

/// What a full store does with a put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Nothing is evicted: the put fails with [`Error::Full`].
    #[default]
    None,
    /// The objects go that were put or got least recently.
    Lru,
    /// Objects that were put and not got soon after go first, so that a scan does not wash out what is
    /// used: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
    S3Fifo,
}

/// A policy. It knows slots only, and some that it knows may be empty.
#[enum_dispatch]
trait Policy {
    /// An object was put into a slot.
    fn insert(&mut self, slot: u32, hash: &KeyHash);

    /// The object in a slot was got.
    fn touch(&mut self, slot: u32);

    /// A slot holds no object any more.
    fn remove(&mut self, slot: u32);

    /// Takes the slot whose object is to go next. `hash` tells the key hash of the object in a slot.
    fn victim(&mut self, hash: &dyn Fn(u32) -> KeyHash) -> Option<u32>;
}

#[enum_dispatch(Policy)]
enum Chosen {
    Lru,
    S3Fifo,
}

/// The policy of a store.
pub(crate) struct Eviction(Option<Mutex<Chosen>>);

/// What came of trying to evict an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Evicted,
    /// The slot holds no object.
    Empty,
    Pinned,
}

impl Eviction {
    /// A policy that knows the objects of `index`, the oldest as those that were put first.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(policy: EvictionPolicy, index: &Index) -> Result<Self, Error> {
        let slots = index.slots();
        let mut chosen = match policy {
            EvictionPolicy::None => return Ok(Self(None)),
            EvictionPolicy::Lru => Chosen::from(Lru::new(slots)?),
            EvictionPolicy::S3Fifo => Chosen::from(S3Fifo::new(slots)?),
        };
        let known = |live: Located| known(live.slot).map(|slot| (live.entry.sequence.get(), slot));
        let mut live: Vec<(u64, u32)> = index.live().filter_map(known).collect();
        live.sort_unstable();
        for (_, slot) in live {
            chosen.insert(slot, &index.entry(slot.into()).key_hash);
        }
        Ok(Self(Some(Mutex::new(chosen))))
    }

    /// Objects were put, into the slots of `put`, and those of `replaced` hold none any more.
    pub(crate) fn note_puts(
        &self,
        put: impl Iterator<Item = (u64, KeyHash)>,
        replaced: impl Iterator<Item = u64>,
    ) {
        self.with(|policy| {
            for (slot, hash) in put {
                known(slot).into_iter().for_each(|slot| policy.insert(slot, &hash));
            }
            // Afterwards, because a batch may replace its own objects.
            replaced.filter_map(known).for_each(|slot| policy.remove(slot));
        });
    }

    /// Objects were got from these slots.
    pub(crate) fn note_gets(&self, slots: impl Iterator<Item = u64>) {
        self.with(|policy| slots.filter_map(known).for_each(|slot| policy.touch(slot)));
    }

    /// Lets `evict` evict about `count` objects, more if the store is large; the policy chooses which.
    pub(crate) fn run(&self, count: u64, index: &Index, mut evict: impl FnMut(u64) -> Fate) {
        let wanted = count.max(index.slots() / PARTS);
        let hash = |slot: u32| index.entry(slot.into()).key_hash;
        self.with(|policy| {
            let mut pinned = Vec::new();
            let mut evicted = 0;
            while evicted < wanted
                && let Some(slot) = policy.victim(&hash)
            {
                match evict(slot.into()) {
                    Fate::Evicted => evicted += 1,
                    Fate::Empty => {}
                    Fate::Pinned => pinned.push(slot),
                }
            }
            pinned.into_iter().for_each(|slot| policy.insert(slot, &hash(slot)));
        });
    }

    fn with(&self, act: impl FnOnce(&mut Chosen)) {
        if let Some(policy) = &self.0 {
            act(&mut waiting::lock(policy));
        }
    }
}

/// The slot as policies know it. They do not know the last of 2^32 slots, whose object is never evicted.
fn known(slot: u64) -> Option<u32> {
    u32::try_from(slot).ok().filter(|&slot| slot != u32::MAX)
}
