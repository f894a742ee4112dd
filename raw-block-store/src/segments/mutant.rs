//! Mutations of the protocol, to see that the crash tests notice them. Only with the feature `faults`, and
//! then only one at a time, when asked for.

use std::sync::atomic::{AtomicU8, Ordering};

/// Declares the mutants and the list of all of them.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A rule of the protocol that can be switched off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            /// None. Not one of [`ALL`](Self::ALL).
            None,
            $($(#[$doc])* $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

mutants! {
    /// A get believes a payload whose checksum differs.
    PayloadUnchecked,
    /// A flush does nothing.
    FlushDoesNothing,
    /// A put is acknowledged before the header of its segment is written.
    PutBeforeSegmentHeader,
    /// A put is acknowledged although the header of its segment failed.
    PutAlthoughSegmentHeaderFailed,
    /// Slots are allocated further past an incomplete one than recovery searches.
    AllocatedPastWindow,
    /// A segment is filled further past a slot that failed.
    FilledPastFailedSlot,
    /// A table is used although another checkpoint wrote it, or another generation has it.
    TableOfOtherCheckpointUsed,
    /// A table counts although its segment was filled further.
    TableKeptWhenFilled,
    /// A checkpoint covers the last sequence that was given out, whatever is in flight.
    CoveredIsCurrent,
    /// The settled prefix of a segment ends where the next slot begins.
    SettledUpToCursor,
    /// Objects are moved while a checkpoint copies the index.
    MovedWhileCopying,
    /// Any commit forgets all tombstones.
    TombstonesForgottenByAnyCommit,
    /// A segment is released with sequences above the covered one.
    ReleasedAboveCovered,
    /// Of a slot, only the first sequence counts when its segment is released.
    ReleasedByFirstSequence,
    /// A store that does not evict releases victims whose objects were not moved.
    ReleasedWithLiveObjects,
    /// A segment is opened again while a get reads it.
    ReopenedWhileRead,
    /// A segment is opened again while something in it is pinned.
    ReopenedWhilePinned,
    /// A segment is discarded that a valid checkpoint does not call free.
    DiscardedBeforeAllCheckpoints,
    /// Several reclaims run at once.
    SeveralReclaims,
    /// Moved objects share no slots.
    MovesShareNoSlots,
    /// Moves leave the last free segment alone.
    LastSegmentNotForMoves,
    /// The tombstone segment stays open when a checkpoint is taken for space.
    TombstoneSegmentStaysOpen,
    /// A target of moves with nothing live in it stays open when a checkpoint is taken for space.
    EmptyTargetStaysOpen,
    /// A victim holds what the committed checkpoint does not cover.
    VictimNotCovered,
    /// A victim holds an old version that is pinned.
    VictimWithPinnedVersion,
    /// Deletes that wait for space are not served before the next reclaim begins.
    WaitingDeletesNotServedFirst,
    /// Of two puts of a key the one that completes last wins.
    LastToCompleteWins,
    /// The index forgets at once that a key was deleted.
    GoneForgotten,
    /// A delete that completes late removes a newer put.
    DeleteRemovesNewerPut,
    /// A copy replaces whatever the index shows of its key.
    CopyReplacesAnything,
}

impl Mutant {
    /// Switches this mutant on for the whole process, and any other off.
    pub fn switch_on(self) {
        ACTIVE.store(self as u8, Ordering::SeqCst);
    }

    /// Switches every mutant off.
    pub fn switch_off() {
        ACTIVE.store(Self::None as u8, Ordering::SeqCst);
    }

    /// Whether this one is on.
    pub(crate) fn is_on(self) -> bool {
        cfg!(feature = "faults") && ACTIVE.load(Ordering::Relaxed) == self as u8
    }
}

static ACTIVE: AtomicU8 = AtomicU8::new(Mutant::None as u8);
