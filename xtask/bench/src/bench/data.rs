//! Random bytes and random offsets, the same in every run.

use std::sync::Arc;

/// The generator `SplitMix64`: small, fast, and its output is neither compressible nor predictable
/// for a device.
#[derive(Clone, Debug)]
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The bias is bound / 2^64.
        self.next() % bound.max(1)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The numbers below `count` in random order.
pub(super) fn permutation(count: u32) -> Arc<[u32]> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut random = SplitMix(u64::from(count));
    for last in (1..order.len()).rev() {
        let other = random.below(last as u64 + 1);
        order.swap(last, usize::try_from(other).unwrap_or(last));
    }
    order.into()
}

/// Walks through one thread's part of a permutation in a cycle: a stretch that is no longer than
/// the part has each item at most once.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    order: Arc<[u32]>,
    first: usize,
    len: usize,
    at: usize,
}

impl Walk {
    /// The part of thread `thread` of `threads`. Each round starts at another item.
    pub(super) fn new(order: &Arc<[u32]>, thread: usize, threads: usize, round: usize) -> Self {
        let len = order.len() / threads;
        let start = SplitMix(round as u64).below(len as u64);
        Self {
            order: Arc::clone(order),
            first: thread * len,
            len,
            at: usize::try_from(start).unwrap_or(0),
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        let place = self.order[self.first + self.at];
        self.at += 1;
        if self.at == self.len {
            self.at = 0;
        }
        u64::from(place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_permutation_has_every_place_once_and_not_in_order() {
        let order = permutation(1000);
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 1000);
        assert!(!order.is_sorted());
    }

    #[test]
    fn the_walks_of_two_threads_visit_every_place_and_never_meet() {
        let order = permutation(100);
        let mut seen = HashSet::new();
        for thread in 0..2 {
            let mut walk = Walk::new(&order, thread, 2, 7);
            seen.extend((0..50).map(|_| walk.next()));
        }
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn random_bytes_fill_odd_lengths_to_the_end() {
        let mut bytes = [0; 1021];
        SplitMix(1).fill(&mut bytes);
        assert!(bytes[1013..].iter().any(|&byte| byte != 0));
    }
}
