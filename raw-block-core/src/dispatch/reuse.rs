//! How much memory a lane keeps allocated from one batch to the next.

/// The number of transfers for which a batch keeps its lists allocated. They take about 350 bytes a
/// transfer: less than 2 MiB in all. A longer batch allocates them anew, which costs little
/// compared with its I/O.
pub(super) const KEPT_TRANSFERS: usize = 4096;

/// Empties a list, and frees what exceeds [`KEPT_TRANSFERS`].
pub(super) fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    list.shrink_to(KEPT_TRANSFERS);
}
