//! Objects that failed their checks twice.

use crate::Error;
use crate::state::StoreState;
use crate::state::index::Located;

impl StoreState {
    /// Marks an object that failed its checks twice, if the index still shows exactly it; the first time it is counted
    /// and logged. Returns whether gets miss it from now on, or else report it as damaged.
    ///
    /// They miss it if it was found by a recovery and never read since: then the power cut tore it before it was durable.
    /// They miss any in a store that evicts.
    pub(super) fn mark_damaged(&self, object: &Located, error: &Error) -> bool {
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
        if is_first {
            self.counters.failed_checks.add(1);
            tracing::warn!(device = self.device_name(), %error, is_torn, "an object is damaged");
        }
        is_missed
    }
}
