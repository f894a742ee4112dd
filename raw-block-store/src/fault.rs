//! Deliberate faults, to see that the crash tests notice them. Only with the feature `faults`, and then only
//! one at a time, when asked for.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A rule of the protocol that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named for what goes wrong")]
#[repr(u8)]
pub enum Fault {
    PayloadUnchecked = 1,
    ChecksumsUnchecked,
    OtherSlotsAccepted,
    RecoveredUnverified,
    UnverifiedForgotten,
    FlushDoesNothing,
    FlushUnderWayCounts,
    BodyNotFlushed,
    CheckpointHeaderNotFlushed,
    CommittedContainerOverwritten,
    FailedHeaderKept,
    CoveredTooHigh,
    SlotFreeBeforeCheckpoint,
    SlotFreeBeforeFlush,
    ReadSlotFree,
    PinnedSlotFree,
    PinnedEvicted,
    LogBlockFreeAtOnce,
    AbsentDeletesUnrecorded,
    LastToCompleteWins,
    GoneForgotten,
    SequencesReset,
    DeletionsIgnored,
    ClaimantsUnverified,
    UnnamedHeadersAccepted,
    OpenNotMarked,
    RecoveryNotCheckpointed,
    UnknownSlotReused,
    UnknownOverwritten,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::PayloadUnchecked,
        Self::ChecksumsUnchecked,
        Self::OtherSlotsAccepted,
        Self::RecoveredUnverified,
        Self::UnverifiedForgotten,
        Self::FlushDoesNothing,
        Self::FlushUnderWayCounts,
        Self::BodyNotFlushed,
        Self::CheckpointHeaderNotFlushed,
        Self::CommittedContainerOverwritten,
        Self::FailedHeaderKept,
        Self::CoveredTooHigh,
        Self::SlotFreeBeforeCheckpoint,
        Self::SlotFreeBeforeFlush,
        Self::ReadSlotFree,
        Self::PinnedSlotFree,
        Self::PinnedEvicted,
        Self::LogBlockFreeAtOnce,
        Self::AbsentDeletesUnrecorded,
        Self::LastToCompleteWins,
        Self::GoneForgotten,
        Self::SequencesReset,
        Self::DeletionsIgnored,
        Self::ClaimantsUnverified,
        Self::UnnamedHeadersAccepted,
        Self::OpenNotMarked,
        Self::RecoveryNotCheckpointed,
        Self::UnknownSlotReused,
        Self::UnknownOverwritten,
    ];

    /// Switches this fault on for the whole process, and any other off.
    pub fn switch_on(self) {
        ACTIVE.store(self as u8, Ordering::SeqCst);
    }

    /// Switches every fault off.
    pub fn switch_off() {
        ACTIVE.store(0, Ordering::SeqCst);
    }

    /// Whether this one is on.
    pub(crate) fn is_on(self) -> bool {
        cfg!(feature = "faults") && ACTIVE.load(Ordering::Relaxed) == self as u8
    }
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Lets checkpoints be written and read in pieces of one block from now on, so that those of small stores have
/// several. This is no fault.
pub fn take_checkpoints_in_single_blocks() {
    SINGLE_BLOCKS.store(true, Ordering::SeqCst);
}

pub(crate) fn checkpoints_in_single_blocks() -> bool {
    cfg!(feature = "faults") && SINGLE_BLOCKS.load(Ordering::Relaxed)
}

static SINGLE_BLOCKS: AtomicBool = AtomicBool::new(false);
