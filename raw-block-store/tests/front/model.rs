//! What a key may hold, according to the results of its requests.

use raw_block_store::Error;

/// Bytes of each payload. Its first byte is its value, and so are the others.
pub(crate) const PAYLOAD: usize = 700;

/// A key that one thread uses, with at most one request at a time.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: [u8; 2],
    /// What it may hold, by the results.
    possible: Vec<Option<u8>>,
    /// What requests may still do, or have done, whose results were ignored.
    unknown: Vec<Option<u8>>,
    last_value: u8,
}

/// A change of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Put(u8),
    PutIfAbsent(u8),
    Delete,
}

impl Change {
    fn after(self) -> Option<u8> {
        match self {
            Self::Put(value) | Self::PutIfAbsent(value) => Some(value),
            Self::Delete => None,
        }
    }
}

impl Key {
    pub(crate) fn new(name: [u8; 2]) -> Self {
        Self { name, possible: vec![None], unknown: Vec::new(), last_value: 0 }
    }

    /// A value that no other put of this key has.
    pub(crate) fn next_value(&mut self) -> u8 {
        self.last_value += 1;
        self.last_value
    }

    fn may_be(&self, is_wanted: impl Fn(&Option<u8>) -> bool) -> bool {
        self.possible.iter().chain(&self.unknown).any(is_wanted)
    }

    /// The result of a change was ignored.
    pub(crate) fn give_up(&mut self, change: Change) {
        self.unknown.push(change.after());
    }

    /// A change has completed. Of a put of an absent key the result says whether it was put, of a
    /// delete whether there was an object.
    pub(crate) fn change(&mut self, change: Change, result: Result<bool, Error>) {
        match (change, result) {
            (Change::Put(_), Ok(_)) => self.possible = vec![change.after()],
            (Change::PutIfAbsent(_), Ok(true)) => {
                assert!(self.may_be(Option::is_none), "it was present: {self:?}");
                self.possible = vec![change.after()];
            }
            (Change::PutIfAbsent(_), Ok(false)) => {
                assert!(self.may_be(Option::is_some), "it was absent: {self:?}");
                self.possible.retain(Option::is_some);
            }
            (Change::Delete, Ok(was_present)) => {
                assert!(self.may_be(|of| of.is_some() == was_present), "{was_present}: {self:?}");
                self.possible = vec![None];
            }
            // A failed put leaves the older object; a failed delete may have happened.
            (Change::Delete, Err(Error::Device { .. } | Error::OutOfSpace { .. })) => {
                self.possible.push(None);
            }
            (_, Err(_)) => {}
        }
    }

    /// The key was found present or absent.
    pub(crate) fn check_presence(&self, is_present: bool) {
        // While the device is slow or failed, keys are absent.
        assert!(!is_present || self.may_be(Option::is_some), "it is absent: {self:?}");
    }

    /// The key was got with this result.
    pub(crate) fn check(&self, payload: Option<&[u8]>) {
        let value = payload.map(value_of);
        assert!(self.may_be(|of| *of == value), "{value:?} was got: {self:?}");
    }

    /// The key was got with this payload after a power cut. Nothing was flushed.
    pub(crate) fn check_recovered(&self, payload: Option<&[u8]>) {
        let value = payload.map(value_of);
        assert!(value.is_none_or(|value| value <= self.last_value), "{value:?} was got: {self:?}");
    }
}

/// The value of a payload, which is whole.
fn value_of(payload: &[u8]) -> u8 {
    assert_eq!(payload.len(), PAYLOAD);
    assert!(payload.iter().all(|byte| byte == &payload[0]), "{payload:?}");
    payload[0]
}
