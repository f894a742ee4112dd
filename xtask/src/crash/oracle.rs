//! What a store may answer.

use std::fmt;

/// The contents of an object: a number, from which its bytes follow. `None` is no object.
pub(super) type Value = Option<u64>;

/// The bytes of an object; about every second one is in its header block.
pub(super) fn payload(number: u64) -> Vec<u8> {
    let len = [20, 300, 1000, 1400][(number % 4) as usize];
    let mut random = fastrand::Rng::with_seed(number);
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize_with(len, || random.u8(..));
    payload
}

/// The number of an object with these bytes, if they are those of any.
pub(super) fn number(payload_found: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(payload_found.get(..8)?.try_into().ok()?);
    (payload(number) == payload_found).then_some(number)
}

/// The states of one key since the last that is durable for certain.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Each state, and whether the change to it was acknowledged. The first was.
    states: Vec<(Value, bool)>,
    /// Whether the object may be missing at any time, because the store evicts.
    evicts: bool,
}

impl History {
    pub(super) fn new(evicts: bool) -> Self {
        Self { states: vec![(None, true)], evicts }
    }

    /// A change begins. Returns its place, for [`acknowledge`](Self::acknowledge).
    pub(super) fn begin(&mut self, value: Value) -> usize {
        self.states.push((value, false));
        self.states.len() - 1
    }

    pub(super) fn acknowledge(&mut self, change: usize) {
        self.states[change].1 = true;
    }

    /// The place of the last change that was acknowledged: what a flush that begins now makes durable.
    pub(super) fn acknowledged(&self) -> usize {
        self.states.iter().rposition(|&(_, acknowledged)| acknowledged).unwrap_or(0)
    }

    /// Everything up to a change is durable.
    pub(super) fn flushed(&mut self, change: usize) {
        self.states.drain(..change);
    }

    /// Checks what was found while nothing crashed.
    pub(super) fn check_now(&self, found: Value) -> Result<(), String> {
        let (now, _) = self.states[self.acknowledged()];
        if found == now || self.evicts && found.is_none() {
            return Ok(());
        }
        Err(format!("found {}, expected {}", Shown(found), Shown(now)))
    }

    /// Checks what was found after a crash. From then on that is the durable state.
    pub(super) fn check_after_crash(&mut self, found: Value) -> Result<(), String> {
        let possible = self.states.iter().any(|&(state, _)| state == found);
        let missing = self.evicts && found.is_none();
        if !possible && !missing {
            let states: Vec<_> =
                self.states.iter().map(|(state, _)| Shown(*state).to_string()).collect();
            return Err(format!(
                "found {} after a crash, which is none of {}",
                Shown(found),
                states.join(", ")
            ));
        }
        self.states = vec![(found, true)];
        Ok(())
    }
}

/// A value in words.
pub(super) struct Shown(pub(super) Value);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "#{number}"),
            None => f.write_str("nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_known_by_all_of_its_bytes() {
        for seed in 0..8 {
            let mut bytes = payload(seed);
            assert_eq!(number(&bytes), Some(seed));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_eq!(number(&bytes), None);
        }
    }

    #[test]
    fn after_a_crash_nothing_older_than_the_flush_is_possible() {
        let mut history = History::new(false);
        let first = history.begin(Some(1));
        history.acknowledge(first);
        let failed = history.begin(Some(2));
        assert!(history.check_now(Some(1)).is_ok());
        assert!(history.check_now(Some(2)).is_err());
        let acknowledged = history.acknowledged();
        assert!(acknowledged < failed);
        history.flushed(acknowledged);
        let after = |found| history.clone().check_after_crash(found).is_ok();
        assert!(after(Some(1)), "it was flushed");
        assert!(after(Some(2)), "it failed, and may have happened");
        assert!(!after(None));
    }
}
