//! The processors that scenarios run on.
//!
//! One thread of a scenario runs at a time. Where all share a processor, the next one runs at once;
//! otherwise an idle processor has to wake, which takes longer than the step of most threads.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps this thread, and those that it starts, on one of the processors of this process. Without
/// that a scenario takes longer, so errors are ignored.
pub(super) fn stay_on_one(worker: usize) {
    let this_thread = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this_thread) else { return };
    let numbers = (0..CpuSet::count()).filter(|&number| allowed.is_set(number) == Ok(true));
    let numbers: Vec<_> = numbers.collect();
    let mut one = CpuSet::new();
    if let Some(number) = numbers.get(worker % numbers.len().max(1))
        && one.set(*number).is_ok()
    {
        let _ = sched_setaffinity(this_thread, &one);
    }
}
