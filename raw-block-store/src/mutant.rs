//! Mutations of the protocol, to see that the crash tests notice them. Only with the feature
//! `faults`, and then only one at a time, when asked for.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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
    /// Structures with a wrong checksum are believed.
    ChecksumsUnchecked,
    /// A place is written again although an older write to it may still land.
    UnknownOverwritten,
    /// A get believes a payload whose checksum differs.
    PayloadUnchecked,
    /// The delete of a key that is not there writes no tombstone.
    AbsentDeletesUnrecorded,
    /// A delete without a tombstone is acknowledged without a checkpoint.
    DeletedWithoutCheckpoint,
    /// The objects of a delete without a tombstone leave the index before older changes have ended.
    DeletedBeforeOlderChanges,
    /// They leave the index while a checkpoint is in progress.
    DeletedDuringCheckpoint,
    /// Deletes without tombstones take more sequences than a recovery expects.
    DeletesWithoutLimit,
    /// A flush does nothing.
    FlushDoesNothing,
    /// Opening begins without a flush.
    OpenedWithoutFlush,
    /// A clean mark counts although a copy of the superblock is invalid.
    CleanMarkOfSomeCopies,
    /// The store is not marked open before it is changed.
    NotMarkedOpen,
    /// The copies of the superblock are written together.
    SuperblockCopiesTogether,
    /// The copies of the superblock are written in a fixed order.
    SuperblockCopiesInFixedOrder,
    /// Copies of the superblock are not flushed.
    SuperblockNotFlushed,
    /// A recovery allows changes before it has written a checkpoint.
    NoCheckpointAfterRecovery,
    /// After a recovery sequences go on from the highest one that was found.
    SequencesGoOnFromHighest,
    /// After a recovery sequences jump by one for every two blocks.
    SequencesJumpTooShort,
    /// A recovery does not scan segments that were opened after the checkpoint.
    NewerSegmentsNotScanned,
    /// A recovery finds nothing past the settled prefix of a segment.
    OpenSegmentsNotScanned,
    /// Entries that a scan finds count also at or below the covered sequence.
    ScannedBelowCovered,
    /// A recovery does not verify objects of keys that several entries claim.
    ClaimsUnverified,
    /// Of such objects only those are verified whose payloads are the first of their slots.
    OnlyFirstPayloadVerified,
    /// A table counts, with all its entries, although no checkpoint names it.
    TableWithoutCheckpoint,
    /// A recovery ignores tombstones.
    TombstonesIgnored,
    /// Objects that a scan finds count as verified.
    ScannedTakenForVerified,
    /// Slots of an older generation count.
    SlotGenerationUnchecked,
    /// A scan ends where a slot header is missing.
    NoSearchForHeaders,
    /// A scan finds only the first object of a slot.
    OnlyFirstObjectOfSlotFound,
    /// A recovery does not notice that the newest checkpoint is lost.
    LostCheckpointUnnoticed,
    /// After a clear or a delete without tombstone, a recovery may use an older checkpoint.
    OlderCheckpointsUsable,
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
    /// A store that does not evict releases victims whose objects were not moved.
    ReleasedWithLiveObjects,
    /// A segment is opened again while a get reads it.
    ReopenedWhileRead,
    /// A segment is opened again while something in it is pinned.
    ReopenedWhilePinned,
    /// A segment is discarded that a valid checkpoint does not call free.
    DiscardedBeforeAllCheckpoints,
    /// What the device has written counts as published for what a checkpoint covers.
    CompletedCountsAsPublished,
    /// Deletes in flight do not hold down what a checkpoint covers.
    DeletesNotCountedInFlight,
    /// What a checkpoint covers is chosen after the index was copied.
    CoveredChosenAfterCopy,
    /// The settled prefix of a segment is chosen after its bits were copied.
    PrefixChosenAfterCopy,
    /// A checkpoint names only what is in the settled prefix of a segment.
    OnlyPrefixNamed,
    /// A checkpoint does not name what is above the covered sequence.
    AboveCoveredNotNamed,
    /// A checkpoint does not name the tombstones above the covered sequence.
    TombstonesNotNamed,
    /// The body of a checkpoint is not flushed before its header is written.
    BodyNotFlushed,
    /// A checkpoint counts before its header is flushed.
    CheckpointHeaderNotFlushed,
    /// A checkpoint is written over the committed one.
    CommittedContainerOverwritten,
    /// Checkpoints are written to two containers in turn, whichever is committed.
    ContainersAlternate,
    /// The number of a checkpoint decides which container it is written to.
    ContainersRotate,
    /// A checkpoint is written over the oldest valid one, which may be the committed one.
    OldestContainerOverwritten,
    /// A container whose failed header could not be destroyed is written again.
    UndestroyedContainerUsed,
    /// The header of a failed checkpoint is not destroyed before the next one is written.
    FailedHeaderKept,
    /// As before, and the blocks of a body do not say to which checkpoint they belong.
    FailedHeaderKeptBodyUnbound,
    /// As before, and the number of the failed checkpoint is used again.
    FailedHeaderKeptNumberReused,
    /// The number of a failed checkpoint is used again.
    FailedNumberReused,
    /// Objects leave the index before the checkpoint is committed that evicts them.
    EvictedBeforeCommit,
    /// Segments are released when the header of the checkpoint is about to be written.
    ReleasedBeforeHeaderWritten,
    /// Segments are released after the first flush of the checkpoint.
    ReleasedAfterFlushOfBody,
    /// A copy gets a new sequence.
    CopyGetsNewSequence,
    /// Objects that a recovery found are moved without a look at their payloads.
    TornObjectsMoved,
    /// What a recovery found and no get has verified is taken for verified after the next opening.
    UnverifiedForgotten,
    /// Several reclaims run at once.
    SeveralReclaims,
    /// The copies of a victim are published although the write of one failed.
    CopiesPublishedOneByOne,
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
    /// A clear does not wait for what is in flight.
    ClearDoesNotWait,
    /// A clear leaves what is pinned in the index.
    ClearLeavesPinned,
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
        cfg!(feature = "faults") && active() == self as u8
    }

    /// The mutant that the environment names, if there is one: for tests, which cannot switch a
    /// mutant on while others run.
    fn of_environment() -> Self {
        let named = std::env::var("RAW_BLOCK_MUTANT").ok();
        let is_named = |mutant: &&Self| Some(format!("{mutant:?}")) == named;
        Self::ALL.iter().find(is_named).copied().unwrap_or(Self::None)
    }
}

/// The number of the mutant that is on.
fn active() -> u8 {
    match ACTIVE.load(Ordering::Relaxed) {
        UNKNOWN => {
            let mutant = Mutant::of_environment() as u8;
            let _ = ACTIVE.compare_exchange(UNKNOWN, mutant, Ordering::SeqCst, Ordering::SeqCst);
            mutant
        }
        active => active,
    }
}

/// No mutant has this number: the environment was not looked at.
const UNKNOWN: u8 = u8::MAX;

static ACTIVE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Prepares this process for simulations: stores have small limits from now on, so that small ones
/// reach them, and new ones have the same secret every time. This is no mutant.
pub fn simulate() {
    SIMULATES.store(true, Ordering::SeqCst);
}

/// A limit, which is smaller in simulations.
pub(crate) fn limit(usual: usize, simulated: usize) -> usize {
    if simulates() { simulated } else { usual }
}

pub(crate) fn simulates() -> bool {
    cfg!(feature = "faults") && SIMULATES.load(Ordering::Relaxed)
}

static SIMULATES: AtomicBool = AtomicBool::new(false);
