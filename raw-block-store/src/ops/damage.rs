//! Objects that failed their checks twice.

use crate::Error;
use crate::state::StoreState;
use crate::state::index::Located;

impl StoreState {
    /// [Marks](Self::mark_damaged) an object that failed its checks twice, and logs it the first
    /// time. Returns whether gets miss it from now on, or else report it as damaged.
    pub(super) fn report_damaged(&self, object: &Located, error: &Error) -> bool {
        let is_torn = self.index.is_unverified(object.place);
        let (is_missed, is_first) = self.mark_damaged(object);
        if is_first {
            tracing::warn!(device = self.device_name(), %error, is_torn, "an object is damaged");
        }
        is_missed
    }

    /// Marks an object that failed its checks twice, if the index still shows exactly it; the first
    /// time it is counted. Returns whether gets miss it from now on, or else report it as damaged,
    /// and whether it is the first time.
    ///
    /// They miss it if it was found by a recovery and never read since: then the power cut tore it
    /// before it was durable. They miss any in a store that evicts.
    pub(super) fn mark_damaged(&self, object: &Located) -> (bool, bool) {
        let is_torn = self.index.is_unverified(object.place);
        let (is_missed, is_first) = self.with_space(|space| {
            if !is_torn && !space.evicts() {
                return (false, self.index.mark_damaged(object));
            }
            // An older put in flight must not come back.
            let oldest = space.oldest_in_flight();
            let removed = self.index.remove(object, Some(oldest));
            if removed {
                space.drop_objects(std::slice::from_ref(object));
            }
            (true, removed)
        });
        self.counters.failed_checks.add(is_first.into());
        (is_missed, is_first)
    }
}
