//! What all copies of a reclaim need.

use raw_block_core::{ErrorClass, WriteAt};

use super::source::{Fate, Source};
use crate::format::Entry;
use crate::io::Placement;
use crate::io::slot_header::{self, ObjectName};
use crate::mutant;
use crate::state::StoreState;
use crate::state::policy::Candidate;
use crate::state::space::{AllocatedObject, Allocation, Slot, Stream};

/// Bytes of slots that are copied at once. A longer object is copied in parts of this length.
pub(super) fn group_len() -> usize {
    mutant::limit(4 << 20, 8 << 10)
}

/// What became of the copy of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reclaim) enum CopyOutcome {
    /// It is written, with this entry.
    Written {
        entry: Entry,
        /// Its payload was damaged before, and does not match its checksum at the new place either.
        damaged: bool,
    },
    /// It is not to be moved: it is gone, or is evicted because it cannot be read.
    Dropped,
    /// It cannot be read, and may not be evicted.
    Unreadable,
    /// Its slot was not written, because something else failed before.
    NotTried,
    /// The write of its slot failed.
    WriteFailed,
}

/// What it takes to copy.
pub(super) struct Copier<'a> {
    pub(super) state: &'a StoreState,
    pub(super) source: Source<'a>,
    pub(super) objects: &'a [Candidate],
    pub(super) allocation: &'a Allocation,
}

/// An object on its way.
#[derive(Clone, Copy)]
pub(super) struct ObjectCopy<'a> {
    pub(super) from: &'a Candidate,
    pub(super) to: &'a AllocatedObject,
}

impl<'a> Copier<'a> {
    pub(super) fn block_size(&self) -> usize {
        self.state.layout.block_size as usize
    }

    pub(super) fn bytes(&self, slot: &Slot) -> usize {
        slot.blocks as usize * self.block_size()
    }

    /// Bytes of the blocks that a payload takes.
    pub(super) fn payload_len(&self, entry: &Entry) -> usize {
        entry.payload_blocks(self.state.layout.block_size) as usize * self.block_size()
    }

    /// How many of these slots are copied at once.
    pub(super) fn group_len(&self, slots: &[Slot]) -> usize {
        let mut len = 0;
        let fits = |slot: &&Slot| {
            len += self.bytes(slot);
            len <= group_len()
        };
        slots.iter().take_while(fits).count().max(1)
    }

    /// The objects of a slot.
    pub(super) fn objects(&self, slot: &'a Slot) -> impl Iterator<Item = ObjectCopy<'a>> + use<'a> {
        let objects = self.objects;
        let allocated = self.allocation.objects_of(slot).iter();
        allocated
            .filter_map(move |to| Some(ObjectCopy { from: objects.get(to.index as usize)?, to }))
    }

    /// The entry of a copy whose checksum at its new place is `checksum`.
    pub(super) fn entry(
        &self,
        copying: ObjectCopy<'_>,
        named: &ObjectName<'_>,
        checksum: u64,
        fate: Fate,
    ) -> Entry {
        // The checksum of what must not pass for intact matches nothing.
        let checksum = if fate == Fate::Move { checksum } else { !checksum };
        slot_header::entry(copying.to, named, checksum)
    }

    /// A write to a block of the slot's segment.
    pub(super) fn write_at<'b>(&self, slot: &Slot, block: u32, bytes: &'b [u8]) -> WriteAt<'b> {
        let options = Placement::Stream(Stream::Kept).options(self.state.dispatcher.geometry());
        let offset = self.state.layout.block_offset(slot.segment, block);
        WriteAt::new(offset, bytes).with_options(options)
    }

    /// The write of a slot failed.
    pub(super) fn write_failed(
        &self,
        slot: &Slot,
        error: &raw_block_core::Error,
        copies: &mut [CopyOutcome],
    ) {
        let device = self.state.device_name();
        let (segment, block) = (slot.segment, slot.block);
        tracing::warn!(device, segment, block, %error, "the copy of an object was not written");
        self.state.write_failed(slot.segment, slot.generation, error);
        if error.class() == ErrorClass::Unknown {
            // The device may still carry it out, over what would be written there next.
            self.state.quarantine(slot.segment, slot.generation, error);
        }
        copies[slot.objects.clone()].fill(CopyOutcome::WriteFailed);
    }
}
