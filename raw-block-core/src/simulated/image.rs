//! The blocks of a device: what is durable, and what is only in its cache.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The bytes of one logical block. Shared, so that copies of a whole device are cheap.
pub(super) type Bytes = Arc<[u8]>;

/// What a block holds since it was last written.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The write that it is part of. Writes are numbered as they take effect, and of two versions
    /// the higher number wins wherever they meet: in a flush and in a power cut.
    write: u64,
    bytes: Bytes,
    before: Bytes,
}

impl Version {
    /// A version of which the power cut left only a part: the rest is what was there before, or
    /// noise; or one bit is wrong.
    pub(super) fn torn(self, rng: &mut fastrand::Rng) -> Self {
        let mut bytes = self.bytes.to_vec();
        let from = rng.usize(..bytes.len());
        match rng.u8(..3) {
            0 => rng.fill(&mut bytes[from..]),
            1 => bytes[from..].copy_from_slice(&self.before[from..]),
            _ => bytes[from] ^= 1 << rng.u8(..8),
        }
        Self { bytes: bytes.into(), ..self }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Image {
    zeroes: Bytes,
    /// What survives a power cut whatever happens. A block that is not here holds zeroes.
    durable: Arc<BTreeMap<u64, Version>>,
    /// What reads find first.
    cache: BTreeMap<u64, Version>,
}

impl Image {
    /// Blocks of this number of bytes, all zero.
    pub(super) fn new(block_len: usize) -> Self {
        let zeroes = vec![0; block_len].into();
        Self { zeroes, durable: Arc::default(), cache: BTreeMap::new() }
    }

    pub(super) fn zeroes(&self) -> &Bytes {
        &self.zeroes
    }

    fn version(&self, block: u64) -> Option<&Version> {
        self.cache.get(&block).or_else(|| self.durable.get(&block))
    }

    /// What a block holds.
    pub(super) fn now(&self, block: u64) -> &Bytes {
        self.version(block).map_or(&self.zeroes, |version| &version.bytes)
    }

    /// What a block held before it was last written.
    pub(super) fn before(&self, block: u64) -> &Bytes {
        self.version(block).map_or(&self.zeroes, |version| &version.before)
    }

    /// The blocks of a range that were ever written.
    pub(super) fn written(&self, range: Range<u64>) -> BTreeSet<u64> {
        let durable = self.durable.range(range.clone());
        durable.chain(self.cache.range(range)).map(|(&block, _)| block).collect()
    }

    /// Puts what a write, the newest of all, has for a block into the cache.
    pub(super) fn put(&mut self, block: u64, bytes: Bytes, write: u64) -> Version {
        let version = Version { write, bytes, before: Arc::clone(self.now(block)) };
        self.cache.insert(block, version.clone());
        version
    }

    /// Makes a version durable, unless a newer one of this block is.
    pub(super) fn make_durable(&mut self, block: u64, version: Version) {
        let durable = Arc::make_mut(&mut self.durable);
        if durable.get(&block).is_some_and(|other| other.write > version.write) {
            return;
        }
        if self.cache.get(&block).is_some_and(|cached| cached.write <= version.write) {
            self.cache.remove(&block);
        }
        durable.insert(block, version);
    }

    /// Removes what is not durable.
    pub(super) fn lose_cache(&mut self) {
        self.cache.clear();
    }
}
