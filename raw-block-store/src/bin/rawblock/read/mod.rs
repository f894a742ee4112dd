//! Reading the structures of a store as they lie on the device, damaged or not.

mod checkpoints;
mod segments;
mod superblocks;
mod tables;

use std::fmt;

use anyhow::Result;
use raw_block_core::{AlignedBuf, Dispatcher, Error as DeviceError, ReadAt};
use raw_block_store::format::{Damage, Layout};

pub(crate) use checkpoints::Record;
pub(crate) use superblocks::Copies;
pub(crate) use tables::Table;

/// Blocks that are read at once.
const AT_ONCE: usize = 256;

/// A block of the store, or why it cannot be read.
pub(crate) type Block = Result<Vec<u8>, DeviceError>;

/// Why a structure cannot be used.
#[derive(Clone, Debug)]
pub(crate) enum Flaw {
    /// The device cannot read it.
    Unreadable(DeviceError),
    /// It breaks a rule of the format.
    Damaged(Damage),
}

impl Flaw {
    /// Whether there is no such structure, rather than a damaged one.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Damaged(Damage::NotThisStructure { .. }))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl From<Damage> for Flaw {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl From<&DeviceError> for Flaw {
    fn from(error: &DeviceError) -> Self {
        Self::Unreadable(error.clone())
    }
}

/// Reads the structures of one store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    dispatcher: &'a Dispatcher,
    pub(crate) layout: Layout,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(dispatcher: &'a Dispatcher, layout: Layout) -> Self {
        Self { dispatcher, layout }
    }

    /// Reads the blocks at these offsets, as one batch.
    fn blocks(&self, offsets: &[u64]) -> Result<Vec<Block>> {
        let block_size = self.layout.block_size as usize;
        let mut bytes = AlignedBuf::zeroed(offsets.len() * block_size)?;
        let blocks = offsets.iter().zip(bytes.chunks_exact_mut(block_size));
        let mut reads: Vec<_> = blocks.map(|(&at, block)| ReadAt::new(at, block)).collect();
        let results = self.dispatcher.read_buffers(&mut reads);
        let blocks = bytes.chunks_exact(block_size).zip(results);
        Ok(blocks.map(|(block, result)| result.map(|()| block.to_vec())).collect())
    }

    /// Reads the blocks at these offsets, many at once. Calls `visit` with each, in order.
    pub(crate) fn each_block<N: Copy>(
        &self,
        places: impl IntoIterator<Item = (N, u64)>,
        mut visit: impl FnMut(N, u64, &Block) -> Result<()>,
    ) -> Result<()> {
        let mut places = places.into_iter();
        loop {
            let batch: Vec<_> = places.by_ref().take(AT_ONCE).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let offsets: Vec<_> = batch.iter().map(|(_, offset)| *offset).collect();
            for ((number, offset), block) in batch.iter().zip(self.blocks(&offsets)?) {
                visit(*number, *offset, &block)?;
            }
        }
    }
}
