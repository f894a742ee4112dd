//! The values that a store may return for one key.

use std::fmt;

/// The value of a key: the number of an object, from which its bytes follow, or no object.
pub(super) type Value = Option<u64>;

/// The result of a get.
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
    /// The store was closed.
    Close,
    /// The process ended without a close. All its completed writes have taken effect.
    Kill,
    /// Unflushed writes may be lost or torn.
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
    /// Whether it failed after it had taken effect in memory.
    failed_late: bool,
    /// Whether a flush that began after its acknowledgement succeeded.
    durable: bool,
    /// The beginnings of concurrent changes that are later in the order of the store.
    later: Vec<u64>,
}

/// The changes of one key since a durable state.
///
/// Several changes of a key may be in flight at once. Then the store decides their order.
#[derive(Clone, Debug)]
pub(super) struct History {
    changes: Vec<Change>,
    /// Whether the object may be missing at any time.
    evicts: bool,
    /// Whether a power cut may have torn an evicted object.
    tears_evicted: bool,
    /// Whether the first change is an object that a power cut tore.
    torn: bool,
    /// Changes that began before this moment may be found damaged, because reads failed.
    doubted: Option<u64>,
}

impl History {
    pub(super) fn new(value: Value, evicts: bool, tears_evicted: bool) -> Self {
        let changes = vec![Change::certain(value, 0)];
        Self { changes, evicts, tears_evicted, torn: false, doubted: None }
    }

    /// Begins a change. It replaces those of the same batch, which began at `batch_began` or later.
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

    /// The change that began at `begun` failed, and may take effect until the device is opened
    /// again.
    pub(super) fn outcome_is_unknown(&mut self, begun: u64) {
        if let Some(change) = self.change(begun) {
            change.outcome_unknown = true;
        }
    }

    /// The change that began at `begun` failed, perhaps after it had taken effect in memory: gets
    /// may show it.
    pub(super) fn may_show_failed(&mut self, begun: u64) {
        if let Some(change) = self.change(begun) {
            change.failed_late = true;
        }
    }

    /// The change that began at `begun` did not and will not take effect.
    pub(super) fn cancel(&mut self, begun: u64) {
        self.changes.retain(|change| change.begun != begun);
    }

    fn change(&mut self, begun: u64) -> Option<&mut Change> {
        self.changes.iter_mut().find(|change| change.begun == begun)
    }

    /// Whether the key has not changed since a moment, and no change is in flight.
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

    /// Removes changes that no get or opening can find any more.
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

    /// The beginning of the first change in flight.
    pub(super) fn oldest_in_flight(&self) -> Option<u64> {
        let in_flight = self.changes.iter().filter(|change| change.completed.is_none());
        in_flight.map(|change| change.begun).min()
    }

    /// Reads have failed or returned other bytes: the objects may be found damaged.
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

    /// Checks the result of a get that began at `began`. A get sees every change that had succeeded
    /// before.
    pub(super) fn check_get(&mut self, found: Found, began: u64) -> Result<(), String> {
        let may_show = |change: &Change| self.may_show(change, began);
        let torn = self.torn && self.changes.first().is_some_and(may_show);
        self.check(found, may_show, torn, "")?;
        // Two deletes of a key cannot be distinguished.
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
        Err(format!("found {}, which it cannot be", if present { "present" } else { "absent" }))
    }

    fn may_show(&self, change: &Change, began: u64) -> bool {
        let before = |change: &Change| change.completed.is_some_and(|then| then < began);
        (change.acknowledged || change.failed_late || !before(change))
            && !self.is_replaced(change, |by| by.acknowledged && before(by))
    }

    /// Number of objects of this key that a power cut can tear, because they were never flushed.
    pub(super) fn tearable(&self) -> usize {
        self.changes.iter().filter(|change| change.value.is_some() && !change.durable).count()
    }

    /// Whether the history of this key alone explains a damaged object.
    pub(super) fn was_damaged(&self) -> bool {
        self.torn || self.doubted.is_some()
    }

    /// Checks the value after an opening. From then on it is the durable state.
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

    /// Whether a change of `by` is certainly later than this one.
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
        // A torn object is found in place of no object: an older object would be found instead.
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
            failed_late: false,
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
mod tests;
