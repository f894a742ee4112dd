//! The stamp of an object, for the eviction policy: 15 bits in its entry in memory.

/// Bits of the time of the last use.
const TIME_BITS: u32 = 12;
/// Mask of the time of the last use.
const TIME: u16 = (1 << TIME_BITS) - 1;
/// The most uses that are counted.
const MAX_USES: u8 = 3;
/// The bit that says that the object was used since it was written.
const USED: u16 = 1 << 14;
/// The bit that says that the payload is known to be damaged.
pub(super) const DAMAGED: u16 = 1 << 15;

/// How an object was used. Times are in units of the caller, modulo [`Stamp::TIMES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Whether it was used since it was written.
    pub(crate) used: bool,
    /// Number of uses, at most 3.
    pub(crate) uses: u8,
    /// Time of the last use, below [`Stamp::TIMES`].
    pub(crate) last_use: u16,
}

impl Stamp {
    /// The number of distinct times.
    pub(crate) const TIMES: u16 = TIME + 1;

    /// The stamp after one more use.
    pub(super) fn after_use(self, now: u16) -> Self {
        Self { used: true, uses: self.uses.saturating_add(1).min(MAX_USES), last_use: now }
    }

    pub(super) fn to_bits(self) -> u16 {
        let used = if self.used { USED } else { 0 };
        used | u16::from(self.uses.min(MAX_USES)) << TIME_BITS | self.last_use & TIME
    }

    pub(super) fn from_bits(bits: u16) -> Self {
        let [uses, _] = (bits >> TIME_BITS & u16::from(MAX_USES)).to_le_bytes();
        Self { used: bits & USED != 0, uses, last_use: bits & TIME }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_their_form_in_an_entry() {
        for used in [false, true] {
            for uses in 0..=MAX_USES {
                for last_use in [0, 1, 2048, TIME] {
                    let stamp = Stamp { used, uses, last_use };
                    assert_eq!(Stamp::from_bits(stamp.to_bits()), stamp);
                    assert_eq!(Stamp::from_bits(stamp.to_bits() | DAMAGED), stamp);
                }
            }
        }
    }
}
