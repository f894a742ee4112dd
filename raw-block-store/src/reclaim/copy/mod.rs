//! Copies of objects: read from their segment, verified, and written to their new slots.

mod group;
mod long;
mod source;

use raw_block_core::{AlignedBuf, ErrorClass, WriteAt};
use source::{Fate, Source};

use crate::Error;
use crate::format::Entry;
use crate::io::Placement;
use crate::io::segment_header;
use crate::io::slot_header::{self, Named};
use crate::mutant;
use crate::state::StoreState;
use crate::state::policy::Candidate;
use crate::state::space::{Allocated, Allocation, Slot, Stream};

/// Bytes of slots that are copied at once. A longer object is copied in parts of this length.
fn group_len() -> usize {
    mutant::limit(4 << 20, 8 << 10)
}

/// What became of the copy of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyOutcome {
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

/// What became of the objects of a plan, in the order of their allocation.
#[derive(Debug)]
pub(super) struct CopyResults {
    pub(super) of: Vec<CopyOutcome>,
    /// There was no memory.
    pub(super) error: Option<Error>,
}

/// Copies objects of one segment to the slots of an allocation, until something fails.
pub(super) fn copy(
    state: &StoreState,
    objects: &[Candidate],
    allocation: &Allocation,
) -> CopyResults {
    let mut copies =
        CopyResults { of: vec![CopyOutcome::NotTried; allocation.objects.len()], error: None };
    for slot in &allocation.slots {
        if let Some(opened) = &slot.opened {
            segment_header::write(state, opened);
        }
    }
    let Some(first) = objects.first() else { return copies };
    let copier = Copier {
        state,
        source: Source::new(state, first.object.place.segment),
        objects,
        allocation,
    };
    let mut rest = &allocation.slots[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(copier.group_len(rest));
        let copied = match now {
            // Objects that share a slot are never long.
            [long] if copier.bytes(long) > group_len() && long.objects.len() == 1 => {
                long::copy(&copier, long, &mut copies.of)
            }
            group => group::copy(&copier, group, &mut copies.of),
        };
        if let Err(error) = copied {
            copies.error = Some(error);
            break;
        }
        if copies
            .of
            .iter()
            .any(|copy| matches!(copy, CopyOutcome::WriteFailed | CopyOutcome::Unreadable))
        {
            break;
        }
        rest = later;
    }
    copies
}

/// What it takes to copy.
struct Copier<'a> {
    state: &'a StoreState,
    source: Source<'a>,
    objects: &'a [Candidate],
    allocation: &'a Allocation,
}

/// An object on its way.
#[derive(Clone, Copy)]
struct ObjectCopy<'a> {
    from: &'a Candidate,
    to: &'a Allocated,
}

impl<'a> Copier<'a> {
    fn block_size(&self) -> usize {
        self.state.layout.block_size as usize
    }

    fn bytes(&self, slot: &Slot) -> usize {
        slot.blocks as usize * self.block_size()
    }

    /// Bytes of the blocks that a payload takes.
    fn payload_len(&self, entry: &Entry) -> usize {
        entry.payload_blocks(self.state.layout.block_size) as usize * self.block_size()
    }

    /// How many of these slots are copied at once.
    fn group_len(&self, slots: &[Slot]) -> usize {
        let mut len = 0;
        let fits = |slot: &&Slot| {
            len += self.bytes(slot);
            len <= group_len()
        };
        slots.iter().take_while(fits).count().max(1)
    }

    /// The objects of a slot.
    fn objects(&self, slot: &'a Slot) -> impl Iterator<Item = ObjectCopy<'a>> + use<'a> {
        let objects = self.objects;
        let allocated = self.allocation.objects_of(slot).iter();
        allocated
            .filter_map(move |to| Some(ObjectCopy { from: objects.get(to.index as usize)?, to }))
    }

    /// The entry of a copy whose checksum at its new place is `checksum`.
    fn entry(
        &self,
        copying: ObjectCopy<'_>,
        named: &Named<'_>,
        checksum: u64,
        fate: Fate,
    ) -> Entry {
        // The checksum of what must not pass for intact matches nothing.
        let checksum = if fate == Fate::Move { checksum } else { !checksum };
        slot_header::entry(copying.to, named, checksum)
    }

    /// A write to a block of the slot's segment.
    fn write_at<'b>(&self, slot: &Slot, block: u32, bytes: &'b [u8]) -> WriteAt<'b> {
        let options = Placement::Stream(Stream::Kept).options(self.state.dispatcher.geometry());
        let offset = self.state.layout.block_offset(slot.segment, block);
        WriteAt::new(offset, bytes).with_options(options)
    }

    /// The write of a slot failed.
    fn write_failed(&self, slot: &Slot, error: &raw_block_core::Error, copies: &mut [CopyOutcome]) {
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

/// Memory for this many bytes.
fn memory(len: usize) -> Result<AlignedBuf, Error> {
    use crate::error::Context;
    AlignedBuf::zeroed(len).context("move objects")
}
