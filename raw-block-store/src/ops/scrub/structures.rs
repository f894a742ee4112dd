//! The structures of the store that are no object's.

use raw_block_core::{ReadAt, sync};

use super::{Finding, SCRUB, Scrub};
use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::format::{Damage, SUPERBLOCK_CELL_LEN, Superblock, superblock_offsets};

impl Scrub<'_> {
    /// Verifies the copies of the superblock.
    pub(super) fn superblocks(&mut self) -> Result<(), Error> {
        let state = &*self.store.state;
        let layout = &state.layout;
        let device_len = layout.last_superblock_offset + SUPERBLOCK_CELL_LEN as u64;
        let [first, second, _] = superblock_offsets(device_len).unwrap_or_default();
        let mut cell = state.scratch.take(SUPERBLOCK_CELL_LEN)?;
        for offset in [first, second, layout.last_superblock_offset] {
            let read = ReadAt::new(offset, &mut cell);
            let read = state.dispatcher.read_buffers(&mut [read]).all();
            let checked = read.context(SCRUB).and_then(|()| {
                let structure = "a copy of the superblock";
                let damaged = |damage| Error::Damaged { structure, offset, damage };
                let copy = Superblock::read(&cell).map_err(damaged)?;
                let is_ours = copy.preamble.uuid == layout.member;
                if is_ours { Ok(()) } else { Err(damaged(Damage::ForeignStore)) }
            });
            if let Err(error) = checked {
                self.note(Finding { key: None, segment: None, offset, error });
            }
        }
        Ok(())
    }

    /// Verifies the committed checkpoint. No other checkpoint is taken concurrently.
    pub(super) fn checkpoint(&mut self) -> Result<(), Error> {
        let state = &*self.store.state;
        let verified = {
            let containers = sync::lock(&state.checkpointing);
            checkpoint::find::verify(&state.dispatcher, &state.layout, &containers)
        };
        match verified {
            Ok(Ok(())) => Ok(()),
            Ok(Err((offset, error))) => {
                self.note(Finding { key: None, segment: None, offset, error });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
