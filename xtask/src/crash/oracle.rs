//! What a store may answer.

use std::fmt;

/// The contents of an object: a number, from which its bytes follow. `None` is no object.
pub(super) type Value = Option<u64>;

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An object with these contents, or none.
    Whole(Value),
    /// An object that fails its checks.
    Damaged,
}

/// How a life ended that was not closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// What was not flushed may be lost or torn.
    PowerCut,
    /// Only the process was gone: everything that it had done is there.
    Kill,
    /// The same, and the outcome of a put was unknown: the device may have carried out a part of it.
    KillDuringPut,
}

/// The payload of an object; about every second one is in its header block.
pub(super) fn payload(number: u64) -> Vec<u8> {
    bytes(number, [20, 300, 1000, 1400][(number % 4) as usize])
}

/// The metadata of an object in a store with blocks of this size. Long ones can be torn.
pub(super) fn metadata(number: u64, block_size: u32) -> Vec<u8> {
    let long = block_size as usize / 4;
    bytes(number, [8, 60, long, 2 * long][(number % 8 / 2) as usize])
}

fn bytes(number: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize_with(len, || random.u8(..));
    bytes
}

/// The number of an object with these bytes, if they are those of any.
pub(super) fn number(payload_found: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(payload_found.get(..8)?.try_into().ok()?);
    (payload(number) == payload_found).then_some(number)
}

/// A change of one key, from when it began until it was over.
#[derive(Clone, Debug)]
struct Change {
    value: Value,
    begun: u64,
    over: Option<u64>,
    acknowledged: bool,
    /// Whether it failed and may still have taken effect later.
    outcome_unknown: bool,
    /// Whether a flush that began after it was acknowledged succeeded.
    durable: bool,
    /// When those changes began that were at the same time, and turned out to be later.
    later: Vec<u64>,
}

/// What became of one key since a state that is durable for certain. Several changes of it may be under way
/// at once; then it is for the store to say in which order they happened.
#[derive(Clone, Debug)]
pub(super) struct History {
    changes: Vec<Change>,
    /// Whether the object may be missing at any time, because the store evicts.
    evicts: bool,
    /// Whether that state is an object that a power cut tore, which shows as damaged.
    torn: bool,
}

impl History {
    pub(super) fn new(evicts: bool) -> Self {
        Self { changes: vec![Change::certain(None, 0)], evicts, torn: false }
    }

    /// A change begins, at a moment when no other one does.
    pub(super) fn begin(&mut self, value: Value, now: u64) {
        let change = Change {
            value,
            begun: now,
            over: None,
            acknowledged: false,
            outcome_unknown: false,
            durable: false,
            later: Vec::new(),
        };
        self.changes.push(change);
    }

    /// The change that began at `begun` is over.
    pub(super) fn end(&mut self, begun: u64, now: u64, acknowledged: bool) {
        if let Some(change) = self.changes.iter_mut().find(|change| change.begun == begun) {
            change.over = Some(now);
            change.acknowledged = acknowledged;
        }
    }

    /// The change that began at `begun` failed, and may take effect until the device is opened again.
    pub(super) fn outcome_is_unknown(&mut self, begun: u64) {
        let change = self.changes.iter_mut().find(|change| change.begun == begun);
        if let Some(change) = change {
            change.outcome_unknown = true;
        }
    }

    /// Whether a change of this key failed and may have taken effect later.
    pub(super) fn has_unknown_outcome(&self) -> bool {
        self.changes.iter().any(|change| change.outcome_unknown)
    }

    /// Whether nothing changed this key since a moment, and nothing was about to.
    pub(super) fn is_unchanged_since(&self, moment: u64) -> bool {
        self.changes.iter().all(|change| change.over.is_some_and(|over| over < moment))
    }

    /// A flush that began at `began` succeeded.
    pub(super) fn flushed(&mut self, began: u64) {
        for change in &mut self.changes {
            change.durable |= change.acknowledged && change.over.is_some_and(|over| over < began);
        }
    }

    /// Checks what was found by a get that began at `began`, while nothing crashed. It is later than everything
    /// that had succeeded then.
    pub(super) fn check_get(&mut self, found: Found, began: u64) -> Result<(), String> {
        let over_before = |change: &Change| change.over.is_some_and(|over| over < began);
        let may_show = |change: &Change| {
            (change.acknowledged || !over_before(change))
                && !self.is_replaced(change, |by| by.acknowledged && over_before(by))
        };
        let torn = self.torn && may_show(&self.changes[0]);
        self.check(found, may_show, torn, "")?;
        // One deletion of a key looks like another.
        let Found::Whole(Some(number)) = found else { return Ok(()) };
        let change = self.changes.iter().find(|change| change.value == Some(number));
        if let Some(shown) = change.map(|change| change.begun) {
            for change in &mut self.changes {
                if change.begun != shown && change.acknowledged && over_before(change) {
                    change.later.push(shown);
                }
            }
        }
        Ok(())
    }

    /// How many slots a power cut can tear by what was put under this key and never flushed.
    pub(super) fn tearable(&self) -> usize {
        self.changes.iter().filter(|change| change.value.is_some() && !change.durable).count()
    }

    /// Whether the object showed as damaged when this life began.
    pub(super) fn was_torn(&self) -> bool {
        self.torn
    }

    /// Checks what was found after a crash. From then on that is the durable state.
    pub(super) fn check_after_crash(
        &mut self,
        found: Found,
        crash: Crash,
        now: u64,
    ) -> Result<(), String> {
        let is_safe = |change: &Change| match crash {
            Crash::PowerCut => change.durable,
            Crash::Kill | Crash::KillDuringPut => change.acknowledged,
        };
        let may_be_left = |change: &Change| !self.is_replaced(change, is_safe);
        let may_be_torn = |change: &Change| {
            let may_be_in_part = match crash {
                Crash::PowerCut => !change.durable,
                Crash::Kill | Crash::KillDuringPut => change.outcome_unknown,
            };
            change.value.is_some() && may_be_in_part && may_be_left(change)
        };
        let still_torn = self.torn && may_be_left(&self.changes[0]);
        // The slot of an object that was evicted may have been torn by another: the caller counts these.
        let tears = crash != Crash::Kill;
        let torn = still_torn || tears && (self.evicts || self.changes.iter().any(may_be_torn));
        self.check(found, may_be_left, torn, " after a crash")?;
        let value = match found {
            Found::Whole(value) => value,
            Found::Damaged => None,
        };
        self.torn = found == Found::Damaged;
        self.changes = vec![Change::certain(value, now)];
        Ok(())
    }

    /// Whether a change that is one of `by` is later than this one for certain.
    fn is_replaced(&self, change: &Change, by: impl Fn(&Change) -> bool) -> bool {
        let Some(over) = change.over else { return false };
        let is_later = |other: &Change| over < other.begun || change.later.contains(&other.begun);
        self.changes.iter().any(|other| is_later(other) && by(other))
    }

    fn check(
        &self,
        found: Found,
        possible: impl Fn(&Change) -> bool,
        torn: bool,
        when: &str,
    ) -> Result<(), String> {
        let possible = || self.changes.iter().filter(|change| possible(change));
        // What is torn is found in place of nothing: of an older object, that is what is found.
        let (value, is_fine) = match found {
            Found::Whole(value) => (value, true),
            Found::Damaged => (None, torn),
        };
        if is_fine
            && (self.evicts && value.is_none() || possible().any(|change| change.value == value))
        {
            return Ok(());
        }
        let possible: Vec<_> = possible()
            .map(|change| Found::Whole(change.value).to_string())
            .chain(torn.then(|| Found::Damaged.to_string()))
            .collect();
        Err(format!("found {found}{when}, which is none of {}", possible.join(", ")))
    }
}

impl Change {
    fn certain(value: Value, now: u64) -> Self {
        Self {
            value,
            begun: now,
            over: Some(now),
            acknowledged: true,
            outcome_unknown: false,
            durable: true,
            later: Vec::new(),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(Some(number)) => write!(f, "#{number}"),
            Self::Whole(None) => f.write_str("nothing"),
            Self::Damaged => f.write_str("a damaged object"),
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
        history.begin(Some(1), 1);
        history.end(1, 2, true);
        history.begin(Some(2), 3);
        history.end(3, 4, false);
        assert!(history.check_get(Found::Whole(Some(1)), 5).is_ok());
        assert!(history.check_get(Found::Whole(Some(2)), 5).is_err(), "it failed");
        assert!(history.check_get(Found::Whole(Some(2)), 3).is_ok(), "it was under way");
        let after = |history: &History, found| {
            history.clone().check_after_crash(Found::Whole(found), Crash::PowerCut, 9).is_ok()
        };
        assert!(after(&history, None), "nothing was flushed");
        history.flushed(5);
        assert!(after(&history, Some(1)), "it was flushed");
        assert!(after(&history, Some(2)), "it failed, and may have happened");
        assert!(!after(&history, None));
        history.begin(Some(3), 6);
        history.end(6, 7, true);
        history.flushed(8);
        assert!(after(&history, Some(3)));
        assert!(!after(&history, Some(2)), "what failed was over before");
    }

    #[test]
    fn of_two_changes_at_once_either_may_be_the_last() {
        let mut history = History::new(false);
        history.begin(Some(1), 1);
        history.begin(Some(2), 2);
        history.end(1, 3, true);
        history.end(2, 4, true);
        history.flushed(5);
        for found in [Some(1), Some(2)] {
            assert!(history.clone().check_get(Found::Whole(found), 6).is_ok());
            assert!(
                history.clone().check_after_crash(Found::Whole(found), Crash::PowerCut, 6).is_ok()
            );
        }
        assert!(history.check_get(Found::Whole(None), 6).is_err());
        assert!(history.check_after_crash(Found::Whole(None), Crash::PowerCut, 6).is_err());
    }

    #[test]
    fn what_was_got_after_two_changes_is_the_later_of_them() {
        let mut history = History::new(false);
        history.begin(Some(1), 1);
        history.begin(None, 2);
        history.end(1, 3, true);
        history.end(2, 4, true);
        assert!(history.check_get(Found::Whole(Some(1)), 5).is_ok());
        assert!(
            history.clone().check_after_crash(Found::Whole(None), Crash::PowerCut, 7).is_ok(),
            "nothing was flushed"
        );
        history.flushed(6);
        assert!(history.check_get(Found::Whole(None), 7).is_err());
        assert!(history.check_after_crash(Found::Whole(None), Crash::PowerCut, 7).is_err());
    }

    #[test]
    fn a_kill_loses_nothing_that_was_acknowledged() {
        let mut history = History::new(false);
        history.begin(Some(1), 1);
        history.end(1, 2, true);
        let after = |found, crash| history.clone().check_after_crash(found, crash, 3).is_ok();
        assert!(after(Found::Whole(None), Crash::PowerCut));
        assert!(!after(Found::Whole(None), Crash::Kill));
        assert!(after(Found::Whole(Some(1)), Crash::Kill));
    }

    #[test]
    fn a_kill_tears_only_puts_with_an_unknown_outcome() {
        let mut history = History::new(false);
        history.begin(Some(1), 1);
        history.end(1, 2, false);
        let after = |history: &History| {
            history.clone().check_after_crash(Found::Damaged, Crash::KillDuringPut, 9).is_ok()
        };
        assert!(!after(&history), "the unknown one was of another key");
        history.outcome_is_unknown(1);
        assert!(history.has_unknown_outcome());
        assert!(after(&history));
        history.begin(Some(2), 3);
        history.end(3, 4, true);
        assert!(!after(&history), "something newer was acknowledged");
    }

    #[test]
    fn damaged_is_only_what_a_power_cut_can_have_torn() {
        for evicts in [false, true] {
            let mut history = History::new(evicts);
            history.begin(Some(1), 1);
            history.end(1, 2, true);
            assert!(history.check_get(Found::Damaged, 3).is_err());
            let after = |history: &History, crash| {
                history.clone().check_after_crash(Found::Damaged, crash, 9).is_ok()
            };
            assert!(after(&history, Crash::PowerCut), "it was never flushed");
            assert!(!after(&history, Crash::Kill));
            let mut torn = history.clone();
            torn.check_after_crash(Found::Damaged, Crash::PowerCut, 4).unwrap();
            assert!(torn.check_get(Found::Damaged, 5).is_ok(), "it stays as it is");
            torn.begin(Some(2), 6);
            torn.end(6, 7, true);
            assert!(torn.check_get(Found::Damaged, 8).is_err(), "it was replaced");
            assert!(after(&torn, Crash::PowerCut), "what replaced it was not flushed");
            torn.flushed(8);
            assert_eq!(after(&torn, Crash::PowerCut), evicts);
            history.flushed(5);
            assert_eq!(
                after(&history, Crash::PowerCut),
                evicts,
                "it was flushed, and may be evicted"
            );
            assert!(!after(&history, Crash::Kill));
        }
    }
}
