//! What a store may answer for one key.

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

/// How an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was closed.
    Close,
    /// The process ended without a close. Everything that it had done is there.
    Kill,
    /// What was not flushed may be lost or torn.
    PowerCut,
}

/// A change of one key.
#[derive(Clone, Debug)]
struct Change {
    value: Value,
    begun: u64,
    completed: Option<u64>,
    acknowledged: bool,
    /// Whether it failed and may still take effect.
    outcome_unknown: bool,
    /// Whether a flush that began after it was acknowledged succeeded.
    durable: bool,
    /// When those changes began that were concurrent with this one and are later in the store's order.
    later: Vec<u64>,
}

/// The changes of one key since a state that is durable for certain.
///
/// Several changes of a key may be in flight at once; then the store decides their order.
#[derive(Clone, Debug)]
pub(super) struct History {
    changes: Vec<Change>,
    /// Whether the object may be missing at any time.
    evicts: bool,
    /// Whether a power cut may have torn an object that was evicted.
    tears_evicted: bool,
    /// Whether the first of the changes is an object that a power cut tore.
    torn: bool,
    /// Changes that began by then may show as damaged, because reads failed.
    doubted: Option<u64>,
}

impl History {
    pub(super) fn new(value: Value, evicts: bool, tears_evicted: bool) -> Self {
        let changes = vec![Change::certain(value, 0)];
        Self { changes, evicts, tears_evicted, torn: false, doubted: None }
    }

    /// A change begins. It wins over those of the same batch, which are those that began at `batch_began` or
    /// later.
    pub(super) fn begin(&mut self, value: Value, now: u64, batch_began: u64) {
        for change in self.changes.iter_mut().filter(|change| change.begun >= batch_began) {
            change.later.push(now);
        }
        let mut change = Change::certain(value, now);
        change.completed = None;
        change.acknowledged = false;
        change.durable = false;
        self.changes.push(change);
    }

    /// The change that began at `begun` has completed.
    pub(super) fn end(&mut self, begun: u64, now: u64, acknowledged: bool) {
        if let Some(change) = self.change(begun) {
            change.completed = Some(now);
            change.acknowledged = acknowledged;
        }
    }

    /// The change that began at `begun` failed, and may take effect until the device is opened again.
    pub(super) fn outcome_is_unknown(&mut self, begun: u64) {
        if let Some(change) = self.change(begun) {
            change.outcome_unknown = true;
        }
    }

    /// The change that began at `begun` did not take place, and never will.
    pub(super) fn cancel(&mut self, begun: u64) {
        self.changes.retain(|change| change.begun != begun);
    }

    fn change(&mut self, begun: u64) -> Option<&mut Change> {
        self.changes.iter_mut().find(|change| change.begun == begun)
    }

    /// Whether nothing changed this key since a moment, and nothing is in flight.
    pub(super) fn is_unchanged_since(&self, moment: u64) -> bool {
        self.changes.iter().all(|change| change.completed.is_some_and(|then| then < moment))
    }

    /// A flush that began at `began` succeeded. No call in flight began before `oldest`.
    pub(super) fn flushed(&mut self, began: u64, oldest: u64) {
        for change in &mut self.changes {
            change.durable |=
                change.acknowledged && change.completed.is_some_and(|then| then < began);
        }
        if self.changes.len() > 8 {
            self.forget_replaced(oldest);
        }
    }

    /// Forgets what will never be found again.
    fn forget_replaced(&mut self, oldest: u64) {
        let replaces = |by: &Change| by.durable && by.completed.is_some_and(|then| then < oldest);
        let kept: Vec<_> =
            self.changes.iter().map(|change| !self.is_replaced(change, replaces)).collect();
        // The first one may stand for a torn object.
        let mut index = 0;
        self.changes.retain(|_| {
            index += 1;
            kept[index - 1] || index == 1 && self.torn
        });
    }

    /// When the first of the changes in flight began.
    pub(super) fn oldest_in_flight(&self) -> Option<u64> {
        let in_flight = self.changes.iter().filter(|change| change.completed.is_none());
        in_flight.map(|change| change.begun).min()
    }

    /// Reads have failed or found something else than was written: what they concerned may show as damaged.
    pub(super) fn doubt(&mut self, now: u64) {
        self.doubted = Some(now);
    }

    /// Numbers of the objects that may be found.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.changes.iter().filter_map(|change| change.value)
    }

    /// Numbers of the objects that may be live.
    pub(super) fn live(&self) -> impl Iterator<Item = u64> {
        let live = |change: &&Change| !self.is_replaced(change, |by| by.acknowledged);
        self.changes.iter().filter(live).filter_map(|change| change.value)
    }

    /// Checks what was found by a get that began at `began`. It is later than everything that had succeeded
    /// then.
    pub(super) fn check_get(&mut self, found: Found, began: u64) -> Result<(), String> {
        let may_show = |change: &Change| self.may_show(change, began);
        let torn = self.torn && self.changes.first().is_some_and(may_show);
        self.check(found, may_show, torn, "")?;
        // One delete of a key looks like another.
        let Found::Whole(Some(number)) = found else { return Ok(()) };
        let change = self.changes.iter().find(|change| change.value == Some(number));
        if let Some(shown) = change.map(|change| change.begun) {
            for change in &mut self.changes {
                let completed = change.completed.is_some_and(|then| then < began);
                if change.begun != shown && change.acknowledged && completed {
                    change.later.push(shown);
                }
            }
        }
        Ok(())
    }

    /// Checks that a call that began at `began` could find the key present, or absent.
    pub(super) fn check_presence(&self, present: bool, began: u64) -> Result<(), String> {
        let of = |change: &Change| change.value.is_some() == present;
        let evicted = self.evicts && !present;
        if evicted
            || self.was_damaged()
            || self.changes.iter().any(|c| of(c) && self.may_show(c, began))
        {
            return Ok(());
        }
        Err(format!("found {}, which it was not", if present { "present" } else { "absent" }))
    }

    fn may_show(&self, change: &Change, began: u64) -> bool {
        let before = |change: &Change| change.completed.is_some_and(|then| then < began);
        (change.acknowledged || !before(change))
            && !self.is_replaced(change, |by| by.acknowledged && before(by))
    }

    /// How many objects of this key a power cut can tear, because they were never flushed.
    pub(super) fn tearable(&self) -> usize {
        self.changes.iter().filter(|change| change.value.is_some() && !change.durable).count()
    }

    /// Whether damage of this key is explained by what happened to it alone.
    pub(super) fn was_damaged(&self) -> bool {
        self.torn || self.doubted.is_some()
    }

    /// Checks what an opening found. From then on that is the durable state.
    pub(super) fn check_opening(&mut self, found: Found, end: End, now: u64) -> Result<(), String> {
        let is_safe = |change: &Change| match end {
            End::PowerCut => change.durable,
            End::Kill | End::Close => change.acknowledged,
        };
        let may_be_left = |change: &Change| match end {
            End::Close => self.may_show(change, now),
            End::Kill | End::PowerCut => !self.is_replaced(change, is_safe),
        };
        let may_be_torn = |change: &Change| {
            let may_be_in_part = match end {
                End::PowerCut => !change.durable,
                End::Kill | End::Close => change.outcome_unknown,
            };
            change.value.is_some() && may_be_in_part && may_be_left(change)
        };
        let still_torn = self.torn && self.changes.first().is_some_and(may_be_left);
        let torn_evicted = self.tears_evicted && self.evicts && end != End::Close;
        let torn = still_torn || torn_evicted || self.changes.iter().any(may_be_torn);
        let when = match end {
            End::Close => " after a close",
            End::Kill => " after a kill",
            End::PowerCut => " after a power cut",
        };
        self.check(found, may_be_left, torn, when)?;
        let value = match found {
            Found::Whole(value) => value,
            Found::Damaged => None,
        };
        self.torn = found == Found::Damaged;
        self.doubted = None;
        self.changes = vec![Change::certain(value, now)];
        Ok(())
    }

    /// Whether a change that is one of `by` is later than this one for certain.
    fn is_replaced(&self, change: &Change, by: impl Fn(&Change) -> bool) -> bool {
        let is_later = |other: &Change| {
            change.completed.is_some_and(|then| then < other.begun)
                || change.later.contains(&other.begun)
        };
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
        let doubted = self.doubted.is_some_and(|then| {
            possible().any(|change| change.value.is_some() && change.begun <= then)
        });
        // A torn object is found in place of none: where there is an older one, that is found.
        let fits = match found {
            Found::Whole(None) => doubted || self.evicts || possible().any(|c| c.value.is_none()),
            Found::Whole(value) => possible().any(|change| change.value == value),
            Found::Damaged => {
                doubted || torn && (self.evicts || possible().any(|change| change.value.is_none()))
            }
        };
        if fits {
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
            completed: Some(now),
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

    fn history(evicts: bool) -> History {
        History::new(None, evicts, false)
    }

    fn opens(history: &History, found: Found, end: End) -> bool {
        history.clone().check_opening(found, end, 99).is_ok()
    }

    const fn whole(number: u64) -> Found {
        Found::Whole(Some(number))
    }

    #[test]
    fn a_power_cut_undoes_nothing_that_was_flushed() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.end(1, 2, true);
        history.begin(Some(2), 3, 3);
        history.end(3, 4, false);
        assert!(history.check_get(whole(1), 5).is_ok());
        assert!(history.check_get(whole(2), 5).is_err(), "it failed");
        assert!(history.check_get(whole(2), 3).is_ok(), "it was in flight");
        assert!(opens(&history, Found::Whole(None), End::PowerCut), "nothing was flushed");
        history.flushed(5, u64::MAX);
        assert!(opens(&history, whole(1), End::PowerCut));
        assert!(opens(&history, whole(2), End::PowerCut), "it failed, and may have happened");
        assert!(!opens(&history, Found::Whole(None), End::PowerCut));
        history.begin(Some(3), 6, 6);
        history.end(6, 7, true);
        history.flushed(8, u64::MAX);
        assert!(opens(&history, whole(3), End::PowerCut));
        assert!(!opens(&history, whole(2), End::PowerCut), "it completed before");
    }

    #[test]
    fn either_of_two_concurrent_changes_may_be_the_last() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.begin(Some(2), 2, 2);
        history.end(1, 3, true);
        history.end(2, 4, true);
        history.flushed(5, u64::MAX);
        for found in [whole(1), whole(2)] {
            assert!(history.clone().check_get(found, 6).is_ok());
            assert!(opens(&history, found, End::PowerCut));
        }
        assert!(history.check_get(Found::Whole(None), 6).is_err());
        assert!(!opens(&history, Found::Whole(None), End::PowerCut));
    }

    #[test]
    fn the_later_put_of_a_batch_wins() {
        let mut history = history(false);
        history.begin(Some(1), 2, 1);
        history.begin(Some(2), 3, 1);
        history.begin(Some(3), 4, 1);
        [2, 3, 4].into_iter().for_each(|begun| history.end(begun, 5, begun != 4));
        assert!(history.check_get(whole(1), 6).is_err());
        assert!(history.check_get(whole(2), 6).is_ok());
        assert!(history.check_get(whole(3), 6).is_err(), "it failed");
        assert!(!opens(&history, whole(1), End::Kill));
        assert!(opens(&history, whole(3), End::Kill), "it may have happened");
    }

    #[test]
    fn a_get_fixes_the_order_of_two_changes() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.begin(None, 2, 2);
        history.end(1, 3, true);
        history.end(2, 4, true);
        assert!(history.check_get(whole(1), 5).is_ok());
        assert!(opens(&history, Found::Whole(None), End::PowerCut), "nothing was flushed");
        history.flushed(6, u64::MAX);
        assert!(history.check_get(Found::Whole(None), 7).is_err());
        assert!(!opens(&history, Found::Whole(None), End::PowerCut));
    }

    #[test]
    fn a_kill_loses_nothing_that_was_acknowledged() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.end(1, 2, true);
        assert!(opens(&history, Found::Whole(None), End::PowerCut));
        assert!(!opens(&history, Found::Whole(None), End::Kill));
        assert!(opens(&history, whole(1), End::Kill));
    }

    #[test]
    fn a_kill_tears_only_puts_with_an_unknown_outcome() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.end(1, 2, false);
        assert!(!opens(&history, Found::Damaged, End::Kill));
        history.outcome_is_unknown(1);
        assert!(opens(&history, Found::Damaged, End::Kill));
        history.begin(Some(2), 3, 3);
        history.end(3, 4, true);
        assert!(!opens(&history, Found::Damaged, End::Kill), "something newer was acknowledged");
    }

    #[test]
    fn only_what_was_not_flushed_can_be_torn() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.end(1, 2, true);
        assert!(history.check_get(Found::Damaged, 3).is_err());
        assert!(opens(&history, Found::Damaged, End::PowerCut));
        let mut torn = history.clone();
        torn.check_opening(Found::Damaged, End::PowerCut, 4).unwrap();
        assert!(torn.check_get(Found::Damaged, 5).is_ok(), "it stays as it is");
        torn.begin(Some(2), 6, 6);
        torn.end(6, 7, true);
        assert!(torn.check_get(Found::Damaged, 8).is_err(), "it was replaced");
        history.flushed(5, u64::MAX);
        assert!(!opens(&history, Found::Damaged, End::PowerCut));
    }

    #[test]
    fn what_was_misread_may_be_damaged_until_it_is_replaced() {
        let mut history = history(false);
        history.begin(Some(1), 1, 1);
        history.end(1, 2, true);
        history.flushed(3, u64::MAX);
        history.doubt(4);
        for found in [whole(1), Found::Whole(None), Found::Damaged] {
            assert!(opens(&history, found, End::PowerCut));
        }
        history.begin(Some(2), 5, 5);
        history.end(5, 6, true);
        history.flushed(7, u64::MAX);
        assert!(!opens(&history, Found::Damaged, End::PowerCut));
    }

    #[test]
    fn replaced_changes_are_forgotten_and_nothing_else() {
        let mut history = history(false);
        for number in 1..=20 {
            history.begin(Some(number), 2 * number, 2 * number);
            history.end(2 * number, 2 * number + 1, true);
        }
        history.flushed(50, u64::MAX);
        assert_eq!(history.changes.len(), 1);
        assert!(opens(&history, whole(20), End::PowerCut));
        assert!(!opens(&history, whole(19), End::PowerCut));
    }

    #[test]
    fn presence_follows_the_changes_that_may_show() {
        let mut history = history(false);
        assert!(history.check_presence(false, 1).is_ok());
        assert!(history.check_presence(true, 1).is_err());
        history.begin(Some(1), 2, 2);
        assert!(
            history.check_presence(false, 3).is_ok() && history.check_presence(true, 3).is_ok()
        );
        history.end(2, 4, true);
        assert!(history.check_presence(false, 5).is_err());
        assert!(history.check_presence(true, 5).is_ok());
    }
}
