//! The order in which the batches of a driver submit their ops.

use std::collections::VecDeque;

/// Bytes of stores that are in flight while there are loads. A device may write all of them before
/// it serves a load that was submitted later.
const STORE_WINDOW: u64 = 1 << 20;

/// While loads wait, one of this many turns is a store's, so that stores do not starve.
const STORE_TURNS: u32 = 8;

/// A batch, by the address of its memory.
pub(super) type Key = usize;

/// The batches that have ops to submit. Batches of one kind take turns.
#[derive(Debug, Default)]
pub(super) struct Order {
    loads: VecDeque<Key>,
    stores: VecDeque<Key>,
    /// The number of turns since the last one of a store, while stores wait.
    load_turns: u32,
}

/// What a queue has accepted and not completed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InFlight {
    /// The number of ops.
    pub(super) ops: usize,
    /// The number of those that load.
    pub(super) loads: usize,
    /// Bytes of the others.
    pub(super) store_bytes: u64,
}

impl Order {
    /// Adds a batch at the end of its kind.
    pub(super) fn push(&mut self, key: Key, is_load: bool) {
        if is_load { self.loads.push_back(key) } else { self.stores.push_back(key) }
    }

    /// Removes the batch whose turn it is, and returns it with the bytes that it may submit, or one
    /// op.
    ///
    /// Loads come before stores. While there are loads, stores are limited to [`STORE_WINDOW`].
    pub(super) fn pop(&mut self, in_flight: InFlight) -> Option<(Key, u64)> {
        let alone = self.loads.is_empty() && in_flight.loads == 0;
        let room =
            if alone { u64::MAX } else { STORE_WINDOW.saturating_sub(in_flight.store_bytes) };
        let is_stores_turn = self.loads.is_empty() || self.load_turns + 1 >= STORE_TURNS;
        if room > 0
            && is_stores_turn
            && let Some(key) = self.stores.pop_front()
        {
            self.load_turns = 0;
            return Some((key, room));
        }
        self.load_turns =
            if self.stores.is_empty() { 0 } else { self.load_turns.saturating_add(1) };
        self.loads.pop_front().map(|key| (key, u64::MAX))
    }

    /// Removes a batch.
    pub(super) fn remove(&mut self, key: Key) {
        self.loads.retain(|&other| other != key);
        self.stores.retain(|&other| other != key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.loads.is_empty() && self.stores.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_pass_stores_and_stores_do_not_starve() {
        let mut order = Order::default();
        order.push(100, false);
        (0..20).for_each(|load| order.push(load, true));
        let turns: Vec<_> = std::iter::from_fn(|| order.pop(InFlight::default())).collect();
        assert!(turns[..7].iter().map(|turn| turn.0).eq(0..7));
        assert_eq!(turns[7], (100, STORE_WINDOW), "the eighth turn is the store's");
        assert!(turns[8..].iter().map(|turn| turn.0).eq(7..20));
    }

    #[test]
    fn stores_are_limited_while_there_are_loads() {
        let mut order = Order::default();
        order.push(100, false);
        let mut in_flight = InFlight { ops: 2, loads: 1, store_bytes: STORE_WINDOW };
        assert_eq!(order.pop(in_flight), None);
        (0..20).for_each(|load| order.push(load, true));
        assert!((0..20).all(|load| order.pop(in_flight) == Some((load, u64::MAX))));
        in_flight.store_bytes -= 1;
        assert_eq!(order.pop(in_flight), Some((100, 1)));
        order.push(100, false);
        in_flight.loads = 0;
        assert_eq!(order.pop(in_flight), Some((100, u64::MAX)), "no load is left");
    }

    #[test]
    fn stores_alone_take_every_turn() {
        let mut order = Order::default();
        (0..3).for_each(|store| order.push(store, false));
        let in_flight = InFlight { ops: 9, loads: 0, store_bytes: 9 << 20 };
        let turns: Vec<_> = std::iter::from_fn(|| order.pop(in_flight)).collect();
        assert_eq!(turns, [0, 1, 2].map(|store| (store, u64::MAX)));
        assert!(order.is_empty());
    }
}
