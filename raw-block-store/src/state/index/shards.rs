//! The shards of the index, whose number grows one by one.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::directory::Directory;
use super::entries::{Entries, Location};
use super::located::KeyHash;
use super::shard::Shard;

/// Shards at the beginning, a power of two.
const FIRST_SHARDS: u32 = 64;
/// Shards that are allocated at once.
const BLOCK: usize = 64;
/// Keys for each shard at which one is split. Those that are next have twice as many: with their
/// spread few of them outgrow a table of 1,024.
const KEYS_PER_SHARD: u64 = 400;
/// Keys for which shards are locked at once.
pub(crate) const KEYS_AT_ONCE: usize = 64;

/// Shards by linear hashing: of the first *n*, a power of two, up to twice as many exist, and each
/// new one takes half of the keys of the shard that is *n* before it. So growth moves some hundred
/// keys at a time, under the locks of two shards.
///
/// A thread computes the shard of a key from the number of shards, locks it, and computes it again.
/// That number changes the shard of a key only under the lock of that shard, so what the thread
/// computes with the lock holds as long as it has it. Threads that lock several do so in ascending
/// order.
pub(super) struct Shards {
    blocks: Directory<[Line; BLOCK]>,
    active: AtomicU32,
    /// The memory for one split at a time.
    growing: Mutex<Split>,
}

/// A shard that shares its cache line with no other.
#[derive(Default)]
#[repr(align(64))]
struct Line(RwLock<Shard>);

/// The objects of a shard that is split.
#[derive(Default)]
struct Split(Vec<(KeyHash, Location)>);

impl Split {
    /// Records the objects of a shard. A later loop decides their shards, because a branch per key
    /// would keep the processor from reading ahead.
    fn collect(&mut self, shard: &Shard, entries: &Entries) {
        self.0.clear();
        self.0.extend(shard.iter(entries));
    }

    /// The shards of the objects that stay and of those that go with one more than `active` shards.
    fn halves(&self, active: u32, entries: &Entries) -> [Shard; 2] {
        [false, true].map(|goes| {
            let goes = |hash| (shard_of(hash, active + 1) == active) == goes;
            let objects = self.0.iter().filter(|(hash, _)| goes(hash));
            Shard::of(objects.clone().count(), objects, entries)
        })
    }
}

impl Shards {
    pub(super) fn new() -> Self {
        let blocks = Directory::new();
        (0..FIRST_SHARDS as usize / BLOCK).for_each(|at| {
            blocks.get_or_make(at, new_block);
        });
        Self { blocks, active: AtomicU32::new(FIRST_SHARDS), growing: Mutex::default() }
    }

    /// Locks the shard of a key for reading.
    pub(super) fn read(&self, hash: &KeyHash) -> RwLockReadGuard<'_, Shard> {
        self.lock(hash, read)
    }

    /// Locks the shard of a key for writing.
    pub(super) fn write(&self, hash: &KeyHash) -> RwLockWriteGuard<'_, Shard> {
        self.lock(hash, write)
    }

    /// Locks the shards of up to [`KEYS_AT_ONCE`] keys for reading.
    pub(super) fn read_many<'k>(
        &self,
        hashes: &(impl Iterator<Item = &'k KeyHash> + Clone),
    ) -> LockedShards<RwLockReadGuard<'_, Shard>> {
        self.lock_many(hashes, read)
    }

    /// Locks the shards of up to [`KEYS_AT_ONCE`] keys for writing.
    pub(super) fn write_many<'k>(
        &self,
        hashes: &(impl Iterator<Item = &'k KeyHash> + Clone),
    ) -> LockedShards<RwLockWriteGuard<'_, Shard>> {
        self.lock_many(hashes, write)
    }

    /// Locks all shards for reading, in sequence.
    pub(super) fn each(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Shard>> {
        (0..self.active.load(Ordering::Acquire)).map(|shard| read(self.shard(shard)))
    }

    /// Into how many parts the keys can be divided for [`keys_of`](Self::keys_of), so that none has
    /// many keys.
    pub(super) fn parts(&self) -> u32 {
        1 << self.active.load(Ordering::Acquire).ilog2()
    }

    /// Appends the keys of one part of `parts`, a number that [`parts`](Self::parts) returned.
    /// Locks one shard at a time.
    ///
    /// The part of a key does not depend on the number of shards: the numbers of the shards of a
    /// part have the same remainder. A split moves keys to a shard of the same part with a higher
    /// number, so a key that is there all the time is found, perhaps twice.
    pub(super) fn keys_of(
        &self,
        part: u32,
        parts: u32,
        entries: &Entries,
        keys: &mut Vec<KeyHash>,
    ) {
        let mut shard = part;
        while shard < self.active.load(Ordering::Acquire) {
            keys.extend(read(self.shard(shard)).iter(entries).map(|(hash, _)| hash));
            shard += parts;
        }
    }

    /// Splits shards until there are enough for this number of keys, unless another thread does.
    pub(super) fn grow(&self, keys: u64, entries: &Entries) {
        while keys > u64::from(self.active.load(Ordering::Acquire)) * KEYS_PER_SHARD {
            let mut split = match self.growing.try_lock() {
                Ok(split) => split,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if self.split_one(&mut split, entries).is_none() {
                return;
            }
        }
    }

    /// Bytes that the shards take.
    pub(super) fn memory(&self) -> usize {
        let tables: usize = self.each().map(|shard| shard.memory()).sum();
        let growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let split = growing.0.capacity() * size_of::<(KeyHash, Location)>();
        self.blocks.memory()
            + self.blocks.iter().count() * size_of::<[Line; BLOCK]>()
            + tables
            + split
    }

    /// Splits the next shard. `None` if there cannot be more.
    fn split_one(&self, split: &mut Split, entries: &Entries) -> Option<()> {
        // Only this thread changes it, because it has the memory for a split.
        let active = self.active.load(Ordering::Relaxed);
        let new = active;
        let old = active - (1 << active.ilog2());
        self.blocks.get_or_make(new as usize / BLOCK, new_block)?;
        // The new tables are built concurrently with gets and puts. Only if the shard changes in
        // the meantime, which is rare, they are built again under its lock.
        let (mut halves, changes) = {
            let shard = read(self.shard(old));
            split.collect(&shard, entries);
            let changes = shard.changes();
            drop(shard);
            (split.halves(active, entries), changes)
        };
        let (mut from, mut to) = (write(self.shard(old)), write(self.shard(new)));
        if from.changes() != changes {
            split.collect(&from, entries);
            halves = split.halves(active, entries);
        }
        let [stay, go] = halves;
        let replaced = std::mem::replace(&mut *from, stay);
        *to = go;
        self.active.store(active + 1, Ordering::Release);
        drop((from, to));
        drop(replaced);
        Some(())
    }

    fn lock<'a, G>(&'a self, hash: &KeyHash, lock: impl Fn(&'a RwLock<Shard>) -> G) -> G {
        loop {
            let shard = self.shard_of(hash);
            let guard = lock(self.shard(shard));
            if self.shard_of(hash) == shard {
                return guard;
            }
        }
    }

    fn lock_many<'a, 'k, G>(
        &'a self,
        hashes: &(impl Iterator<Item = &'k KeyHash> + Clone),
        lock: impl Fn(&'a RwLock<Shard>) -> G,
    ) -> LockedShards<G> {
        let mut active = self.active.load(Ordering::Acquire);
        loop {
            let locked = self.lock_all_of(hashes.clone(), active, &lock);
            let now = self.active.load(Ordering::Acquire);
            let mut changed = hashes.clone().filter(|h| shard_of(h, now) != shard_of(h, active));
            if now == active || changed.next().is_none() {
                return locked;
            }
            active = now;
        }
    }

    /// Locks the shards that the keys have with this number of shards.
    fn lock_all_of<'a, 'k, G>(
        &'a self,
        hashes: impl Iterator<Item = &'k KeyHash>,
        active: u32,
        lock: impl Fn(&'a RwLock<Shard>) -> G,
    ) -> LockedShards<G> {
        // The shard of each key, and the key's position.
        let mut wanted = [(0, 0_u8); KEYS_AT_ONCE];
        let mut keys = 0;
        for (hash, (position, wanted)) in hashes.zip((0..).zip(&mut wanted)) {
            *wanted = (shard_of(hash, active), position);
            keys += 1;
        }
        let wanted = &mut wanted[..keys];
        // Brings all locks into the cache together: the processor does not read ahead between two
        // acquisitions.
        let poisoned = wanted.iter().filter(|(shard, _)| self.shard(*shard).is_poisoned()).count();
        std::hint::black_box(poisoned);
        wanted.sort_unstable();
        let mut locked =
            LockedShards { guards: [const { None }; KEYS_AT_ONCE], of_key: [0; KEYS_AT_ONCE] };
        for (at, of_one) in (0..).zip(wanted.chunk_by(|(shard, _), (next, _)| shard == next)) {
            locked.guards[usize::from(at)] = Some(lock(self.shard(of_one[0].0)));
            for &(_, position) in of_one {
                locked.of_key[usize::from(position)] = at;
            }
        }
        locked
    }

    fn shard_of(&self, hash: &KeyHash) -> u32 {
        shard_of(hash, self.active.load(Ordering::Acquire))
    }

    /// A shard below the number of active ones.
    fn shard(&self, shard: u32) -> &RwLock<Shard> {
        let block = self.blocks.get(shard as usize / BLOCK).expect("active shards exist");
        &block[shard as usize % BLOCK].0
    }
}

/// The locked shards of several keys.
pub(super) struct LockedShards<G> {
    guards: [Option<G>; KEYS_AT_ONCE],
    /// The guard of each key, by its position in the batch.
    of_key: [u8; KEYS_AT_ONCE],
}

impl<G: Deref<Target = Shard>> LockedShards<G> {
    /// The shard of the key at this position.
    pub(super) fn of_key(&self, position: usize) -> Option<&Shard> {
        self.guards[usize::from(self.of_key[position])].as_deref()
    }

    /// The shard of the key at this position, to change it.
    pub(super) fn of_key_mut(&mut self, position: usize) -> Option<&mut Shard>
    where
        G: DerefMut,
    {
        self.guards[usize::from(self.of_key[position])].as_deref_mut()
    }
}

fn new_block() -> Option<Box<[Line; BLOCK]>> {
    Some(Box::new(std::array::from_fn(|_| Line::default())))
}

/// The shard of a key: other bits of its hash than those that spread it over the table.
fn shard_of(hash: &KeyHash, active: u32) -> u32 {
    let [.., a, b, c, d, _, _, _, _] = *hash;
    let bits = u32::from_le_bytes([a, b, c, d]);
    let mask = active.next_power_of_two() - 1;
    let shard = bits & mask;
    if shard < active { shard } else { shard & mask >> 1 }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::iter;

    use super::*;
    use crate::format::Entry;
    use crate::state::index::{Index, Located, Place, Published};

    /// The key that moves from shard 0 to the first new one.
    fn moving_key() -> KeyHash {
        let mut hash = [0; 16];
        hash[8] = 64;
        hash
    }

    #[test]
    fn a_shard_that_is_split_just_before_it_is_locked_is_not_used() {
        for many in [false, true] {
            let index = Index::new(1);
            index.extend(0, 1).unwrap();
            let hash = moving_key();
            let entry = Entry { key_hash: hash, sequence: 1.into(), ..Entry::EMPTY };
            let object = Located { place: Place { segment: 0, number: 0 }, entry };
            assert_eq!(index.publish(&object), Published::Shown { replaced: None });
            let locks = Cell::new(0);
            let split_and_lock = |shard| {
                if locks.replace(locks.get() + 1) == 0 {
                    index.reserve(u64::from(FIRST_SHARDS) * KEYS_PER_SHARD + 1);
                }
                read(shard)
            };
            let found = if many {
                let locked = index.shards.lock_many(&iter::once(&hash), split_and_lock);
                locked.of_key(0).and_then(|shard| shard.find(&hash, &index.entries))
            } else {
                index.shards.lock(&hash, split_and_lock).find(&hash, &index.entries)
            };
            assert_eq!((found, locks.get()), (Some(object), 2));
        }
    }
}
