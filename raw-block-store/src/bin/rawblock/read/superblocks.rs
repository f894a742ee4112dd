//! The copies of the superblock.

use anyhow::{Context, Result};
use raw_block_core::{AlignedBuf, Dispatcher, Error as DeviceError, ReadAt};
use raw_block_store::format::{
    SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock, superblock_offsets,
};

use super::Flaw;

/// The cells of the superblock.
pub(crate) struct Copies {
    pub(crate) offsets: [u64; SUPERBLOCK_COPIES],
    cells: [Result<AlignedBuf, DeviceError>; SUPERBLOCK_COPIES],
}

impl Copies {
    pub(crate) fn read(dispatcher: &Dispatcher) -> Result<Self> {
        let mut copies = Self::read_at(dispatcher, dispatcher.geometry().capacity)?;
        // On a device that became longer the last copy is no longer at its end.
        if let Some(store) = copies.newest() {
            let last = store.last_superblock_offset.get();
            if last < copies.offsets[2] {
                copies = Self::read_at(dispatcher, last + SUPERBLOCK_CELL_LEN as u64)?;
            }
        }
        Ok(copies)
    }

    fn read_at(dispatcher: &Dispatcher, capacity: u64) -> Result<Self> {
        let offsets = superblock_offsets(capacity)
            .with_context(|| format!("{capacity} bytes are too few for a store"))?;
        let read = |offset| {
            let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN)?;
            dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut cell)]).all()?;
            Ok(cell)
        };
        Ok(Self { offsets, cells: offsets.map(read) })
    }

    /// The newest valid copy.
    pub(crate) fn newest(&self) -> Option<Superblock> {
        let cells = self.cells.each_ref().map(|cell| cell.as_deref().unwrap_or_default());
        Superblock::newest(cells).newest.copied()
    }

    /// One copy, or why it cannot be used.
    pub(crate) fn copy(&self, index: usize) -> Result<Superblock, Flaw> {
        let cell = self.cells[index].as_ref().map_err(Flaw::from)?;
        Ok(*Superblock::read(cell)?)
    }

    /// How many copies are valid.
    pub(crate) fn valid(&self) -> usize {
        (0..SUPERBLOCK_COPIES).filter(|&copy| self.copy(copy).is_ok()).count()
    }
}
