//! How a checkpoint leaves the device to the puts and gets beside it.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use raw_block_core::waiting;

use crate::checkpoint::{Others, Written};
use crate::shared::Shared;

/// A checkpoint writes during one of so many parts of the time.
const PARTS: u32 = 32;
/// No pause is longer. A write that would ask for more was itself kept waiting, by a flush for example.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a checkpoint pauses behind a write that took so long.
fn pause_behind(took: Duration) -> Duration {
    took.saturating_mul(PARTS - 1).min(LONGEST_PAUSE)
}

/// The pauses of checkpoints: there are none while somebody waits for one.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many wait.
    waiting: Mutex<usize>,
    /// Signalled when there is one more.
    hurried: Condvar,
}

impl Pace {
    /// Ends the pause of a checkpoint under way, and lets none begin until what is returned is dropped.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        *waiting::lock(&self.waiting) += 1;
        self.hurried.notify_all();
        Hurry { pace: self }
    }

    /// Pauses for no longer than this.
    pub(crate) fn pause(&self, at_most: Duration) {
        let waiting = waiting::lock(&self.waiting);
        if *waiting == 0 {
            drop(waiting::wait_for(&self.hurried, &self.waiting, waiting, at_most));
        }
    }
}

/// Somebody waits for a checkpoint, or takes one to have room.
#[must_use = "checkpoints hurry until it is dropped"]
pub(crate) struct Hurry<'a> {
    pace: &'a Pace,
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        *waiting::lock(&self.pace.waiting) -= 1;
    }
}

/// Puts, deletes and gets beside a checkpoint.
pub(crate) struct Beside<'a> {
    pub(crate) shared: &'a Shared,
    /// The sequence of the next change when the checkpoint began.
    pub(crate) next_sequence: u64,
    /// How many blocks of the log were free then.
    pub(crate) free_log_blocks: u64,
}

impl Beside<'_> {
    /// Whether the checkpoint can take its time: others are there to gain by it, and no larger part of what was to
    /// spare is used than is written of the body. Reads of pinned objects are not known here.
    fn may_pause(&self, written: Written) -> bool {
        let Self { shared, next_sequence, free_log_blocks } = self;
        let in_time = |used: u64, spare: u64| {
            u128::from(used) * u128::from(written.of)
                <= u128::from(spare) * u128::from(written.blocks)
        };
        shared.space(|space| {
            let changes = space.next_sequence() - next_sequence;
            let log_blocks = free_log_blocks.saturating_sub(space.free_log_blocks());
            !space.is_idle()
                && in_time(changes, shared.spare_slots())
                && in_time(log_blocks, shared.spare_log_blocks())
        })
    }
}

impl Others for Beside<'_> {
    fn make_durable(&self) -> Result<(), raw_block_core::Error> {
        self.shared.flush_device()
    }

    fn make_room(&self, took: Duration, written: Written) {
        if self.may_pause(written) {
            self.shared.pace.pause(pause_behind(took));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    use raw_block_core::MemoryBackend;

    use super::*;
    use crate::space::Space;
    use crate::{FormatOptions, OpenOptions, Store};

    #[test]
    fn a_pause_is_many_times_the_write_and_has_an_end() {
        assert_eq!(pause_behind(Duration::from_micros(200)), Duration::from_micros(6200));
        assert_eq!(pause_behind(Duration::from_secs(1)), LONGEST_PAUSE);
        assert_eq!(pause_behind(Duration::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_pause_ends_when_somebody_hurries_and_none_begins_while_somebody_does() {
        const LONG: Duration = Duration::from_secs(100);
        let (pace, began) = (Pace::default(), Instant::now());
        thread::scope(|scope| {
            let pausing = scope.spawn(|| pace.pause(LONG));
            // It is likely to have begun, and ends whether it had or not.
            thread::sleep(Duration::from_millis(50));
            let _hurry = pace.hurry();
            pausing.join().unwrap();
            pace.pause(LONG);
        });
        assert!(began.elapsed() < LONG, "it did not last");
        assert_eq!(*pace.waiting.lock().unwrap(), 0);
    }

    #[test]
    fn a_checkpoint_takes_its_time_while_others_are_there_and_room_is_left() {
        let device = Arc::new(MemoryBackend::new(16 << 20).unwrap());
        // What is to spare is an eighth of the slots, and of the log.
        let (spare, log_spare) = (20, 8);
        let options = FormatOptions {
            slot_count: Some(8 * spare),
            delete_log_blocks: Some(8 * log_spare),
            ..FormatOptions::for_payloads(4096)
        };
        Store::format(device.clone(), &options).unwrap();
        let options = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
        let store = Store::open_with(device, &options).unwrap();
        let shared = &store.shared;
        let begin = || Beside {
            shared,
            next_sequence: shared.space(Space::next_sequence),
            free_log_blocks: shared.space(Space::free_log_blocks),
        };
        let (half, all) = (Written { blocks: 50, of: 100 }, Written { blocks: 100, of: 100 });

        let beside = begin();
        assert!(!beside.may_pause(half), "nobody is there");
        let _get = shared.begin_get();
        (0..spare / 2).for_each(|_| store.put(b"key", b"value").unwrap());
        assert!(beside.may_pause(half));
        store.put(b"key", b"value").unwrap();
        assert!(!beside.may_pause(half) && beside.may_pause(all));

        let beside = begin();
        let delete = || assert!(store.delete_many(&[b"key"]).remove(0).is_ok());
        (0..log_spare / 2).for_each(|_| delete());
        assert!(beside.may_pause(half));
        delete();
        assert!(!beside.may_pause(half) && beside.may_pause(all));
    }
}
