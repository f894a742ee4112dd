//! What a get checks, and which objects it has to check in any case.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// What a get checks of an object before it is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verification {
    /// Header, key and payload: what comes back are the exact bytes that were put.
    #[default]
    Full,
    /// Header and key. A payload that decayed comes back as it is.
    Header,
    /// Nothing where it can be helped: the header is not even read unless it holds the payload, or the
    /// metadata are asked for.
    None,
}

/// The slots whose objects were found by a recovery and not verified since: one bit a slot, or nothing if
/// there was no recovery.
#[derive(Debug, Default)]
pub(crate) struct Unverified(Box<[AtomicU64]>);

impl Unverified {
    /// All of `slots` slots.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn all(slots: u64) -> Result<Self, Error> {
        let words = slots.div_ceil(64);
        let no_memory = || Error::OutOfMemory { what: "what is to be verified", bytes: words * 8 };
        let len = usize::try_from(words).map_err(|_| no_memory())?;
        let mut bits = Vec::new();
        bits.try_reserve_exact(len).map_err(|_| no_memory())?;
        bits.resize_with(len, || AtomicU64::new(u64::MAX));
        Ok(Self(bits.into()))
    }

    /// Whether there is one among those that `is_live` names.
    pub(crate) fn is_left(&self, is_live: impl Fn(u64) -> bool) -> bool {
        let slots = self.0.len() as u64 * 64;
        (0..slots).any(|slot| self.holds(slot) && is_live(slot))
    }

    pub(crate) fn holds(&self, slot: u64) -> bool {
        self.word(slot).is_some_and(|word| word.load(Ordering::Relaxed) & bit(slot) != 0)
    }

    /// The object in this slot was verified, or is another one.
    pub(crate) fn remove(&self, slot: u64) {
        if self.holds(slot)
            && let Some(word) = self.word(slot)
        {
            word.fetch_and(!bit(slot), Ordering::Relaxed);
        }
    }

    fn word(&self, slot: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(slot / 64).ok()?)
    }
}

fn bit(slot: u64) -> u64 {
    1 << (slot % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_verified_by_itself() {
        let unverified = Unverified::all(130).unwrap();
        assert!([0, 63, 64, 129].iter().all(|&slot| unverified.holds(slot)));
        unverified.remove(64);
        assert!(!unverified.holds(64) && unverified.holds(63) && unverified.holds(65));
        assert!(unverified.is_left(|slot| slot == 65) && !unverified.is_left(|slot| slot == 64));
        let none = Unverified::default();
        assert!(!none.is_left(|_| true));
        none.remove(7);
        assert!(!none.holds(7));
    }
}
