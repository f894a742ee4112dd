//! The header of every slot.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt};

use super::{PIECE, is_readable};
use crate::error::Doing;
use crate::format::{ObjectEntry, SlotHeader, Superblock};
use crate::index::Located;
use crate::layout::{buffer_len, slot_offset};
use crate::{Error, OpenOptions, Progress};

/// Reads the header of every slot, in batches, beside the entries of a checkpoint.
pub(super) struct Headers<'a> {
    device: &'a Dispatcher,
    store: &'a Superblock,
    blocks: AlignedBuf,
    /// Entries whose slots are read next, and the first of these slots.
    entries: Vec<ObjectEntry>,
    first: u64,
    options: &'a OpenOptions,
    /// Whether there was a header that cannot be read.
    pub(super) unreadable: bool,
    /// Objects that the checkpoint names, and in whose slots neither they are nor anything newer.
    pub(super) lost: Vec<ObjectEntry>,
    /// Counts what is left out.
    damages: &'a mut usize,
}

impl<'a> Headers<'a> {
    pub(super) fn new(
        device: &'a Dispatcher,
        store: &'a Superblock,
        options: &'a OpenOptions,
        damages: &'a mut usize,
    ) -> Result<Self, Error> {
        let blocks = AlignedBuf::zeroed(buffer_len(store, store.slot_count.get(), PIECE))
            .doing("read slot headers")?;
        let (entries, lost) = (Vec::new(), Vec::new());
        let (first, unreadable) = (0, false);
        let headers =
            Self { device, store, blocks, entries, first, options, unreadable, lost, damages };
        headers.tell();
        Ok(headers)
    }

    /// Tells the caller how far this is.
    fn tell(&self) {
        if let Some(tell) = &self.options.recovery_progress {
            tell(Progress { slots_done: self.first, slots: self.store.slot_count.get() });
        }
    }

    /// Adds the entries of the slots that follow; calls `visit` for valid headers.
    pub(super) fn add(
        &mut self,
        entries: &[ObjectEntry],
        visit: &mut impl FnMut(Located, &ObjectEntry, u64),
    ) -> Result<(), Error> {
        let at_once = self.blocks.len() / self.store.block_size.get() as usize;
        for entry in entries {
            self.entries.push(*entry);
            if self.entries.len() == at_once {
                self.finish(visit)?;
            }
        }
        Ok(())
    }

    /// Reads what was added last.
    pub(super) fn finish(
        &mut self,
        visit: &mut impl FnMut(Located, &ObjectEntry, u64),
    ) -> Result<(), Error> {
        let Self { device, store, blocks, entries, first, options, unreadable, lost, damages } =
            self;
        if entries.is_empty() {
            return Ok(());
        }
        let block_size = store.block_size.get() as usize;
        let mut reads: Vec<_> = (*first..)
            .zip(blocks.chunks_exact_mut(block_size))
            .take(entries.len())
            .map(|(slot, block)| ReadAt::new(slot_offset(store, slot), block))
            .collect();
        let results = device.read_buffers(&mut reads);
        let slots = (*first..).zip(blocks.chunks_exact(block_size)).zip(entries.iter());
        for (((slot, block), named), result) in slots.zip(results) {
            let at = slot_offset(store, slot);
            let accept_older = options.accept_older_states;
            let readable = is_readable(result, "the header of a slot", at, accept_older, damages)?;
            *unreadable |= !readable;
            let header = readable.then(|| SlotHeader::read(block, store, slot).ok()).flatten();
            let found = header.map(|view| (view.header.entry, view.header.checkpoint.get()));
            // What is written to a slot later has a higher sequence.
            if named.is_live()
                && found
                    .is_none_or(|(entry, _)| entry != *named && entry.sequence <= named.sequence)
            {
                lost.push(*named);
            }
            if let Some((entry, checkpoint)) = found {
                visit(Located { slot, entry }, named, checkpoint);
            }
        }
        *first += entries.len() as u64;
        entries.clear();
        self.tell();
        Ok(())
    }
}
