//! The copies of the superblock on the device.

use raw_block_core::{AlignedBuf, Dispatcher, MIN_LOGICAL_BLOCK, ReadAt, WriteAt};

use crate::error::Doing;
use crate::format::{
    Damage, SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock, SuperblockState, superblock_offsets,
};
use crate::{Error, fixed};

/// How many copies have to be written for a change of the superblock to count. With one that fails, the
/// others still outvote what is left in it.
const ENOUGH_COPIES: usize = SUPERBLOCK_COPIES - 1;

/// The superblock of an open store, and the order in which its copies are rewritten.
#[derive(Debug)]
pub(crate) struct Superblocks {
    current: Superblock,
    /// Offsets of the copies: damaged ones first, then the oldest.
    write_order: [u64; SUPERBLOCK_COPIES],
    /// Whether all copies could be read and were valid.
    all_valid: bool,
}

/// What to do about blocks that are too large.
const OPEN_BUFFERED: &str = "open it through the page cache (`Direct::Off`), or copy the store to a device with \
                             smaller blocks";

/// What the superblocks of a device say.
#[derive(Debug)]
pub(crate) enum Found {
    /// There are none.
    Nothing,
    /// There are some, and this software, or this device as it is opened, cannot use them: the reason.
    Unusable(String),
    /// There is a store.
    Store(Box<Superblocks>),
}

impl Superblocks {
    /// A superblock that no copy on the device shows yet.
    pub(crate) fn new(superblock: Superblock) -> Self {
        let write_order = offsets_of(superblock.last_superblock_offset.get());
        Self { current: superblock, write_order, all_valid: true }
    }

    /// Looks for the newest valid superblock on the device.
    pub(crate) fn find(device: &Dispatcher) -> Result<Found, Error> {
        let capacity = device.geometry().capacity;
        let alignment = device.geometry().transfer_alignment;
        if alignment as usize > SUPERBLOCK_CELL_LEN {
            return Ok(Found::Unusable(format!(
                "transfers in multiples of {alignment} bytes are too large for its superblock of \
                 {SUPERBLOCK_CELL_LEN}: {OPEN_BUFFERED}"
            )));
        }
        let Some(offsets) = superblock_offsets(capacity) else { return Ok(Found::Nothing) };
        let mut cells = read_cells(device, offsets)?;
        // On a device that became longer the last copy is no longer at its end.
        let first = Superblock::newest(cells.each_ref().map(|cell| &**cell)).newest.copied();
        if let Some(last) = first.map(|superblock| superblock.last_superblock_offset.get())
            && last < offsets[2]
        {
            cells = read_cells(device, offsets_of(last))?;
        }
        let copies = Superblock::newest(cells.each_ref().map(|cell| &**cell));
        let Some(newest) = copies.newest else { return Ok(unusable(&copies.copies)) };

        let last = newest.last_superblock_offset.get();
        let needed = last + SUPERBLOCK_CELL_LEN as u64;
        if needed > capacity {
            return Ok(Found::Unusable(format!(
                "it takes {needed} bytes, and the device has only {capacity}: make the device as long as it was"
            )));
        }
        if !newest.block_size.get().is_multiple_of(alignment) {
            let block_size = newest.block_size;
            return Ok(Found::Unusable(format!(
                "its blocks of {block_size} bytes are smaller than the {alignment} of which transfers are \
                 multiples here: {OPEN_BUFFERED}"
            )));
        }
        let mut order: Vec<_> = offsets_of(last).into_iter().zip(&copies.copies).collect();
        order.sort_by_key(|(_, copy)| copy.as_ref().map_or(0, |copy| copy.generation.get()));
        let write_order = std::array::from_fn(|copy| order[copy].0);
        let all_valid = copies.copies.iter().all(Result::is_ok);
        Ok(Found::Store(Box::new(Self { current: *newest, write_order, all_valid })))
    }

    pub(crate) fn current(&self) -> &Superblock {
        &self.current
    }

    /// The checkpoint that holds everything, if the store was closed in order, and whether all that it names was
    /// verified.
    ///
    /// A clean mark is believed only if all copies are valid: one that is not may have been newer, and
    /// have said that the store is open.
    pub(crate) fn clean_checkpoint(&self) -> Option<(u64, bool)> {
        match self.current.state() {
            SuperblockState::Clean { checkpoint, verified } if self.all_valid => {
                Some((checkpoint, verified))
            }
            _ => None,
        }
    }

    /// Durably marks the store as clean or open: one copy after the other, with a flush between, so that
    /// a valid one is left whatever happens.
    ///
    /// # Errors
    /// When a flush fails, or more than one copy cannot be written.
    pub(crate) fn mark(
        &mut self,
        device: &Dispatcher,
        state: SuperblockState,
    ) -> Result<(), Error> {
        let mut next = self.current;
        next.set_state(state);
        // A close that was interrupted leaves a generation one higher in a copy that may not have been
        // readable when the store was opened again. Two higher is above that.
        next.generation += if state == SuperblockState::Open { 2 } else { 1 };
        let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).doing("write the superblock")?;
        next.encode(&mut cell)?;
        self.write_copies(device, &cell, ENOUGH_COPIES)?;
        self.current = next;
        Ok(())
    }

    /// Durably destroys all copies, so that nothing is taken for a store while a new one is made.
    pub(crate) fn erase(&self, device: &Dispatcher) -> Result<(), Error> {
        let zeroes = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).doing("erase the superblock")?;
        self.write_copies(device, &zeroes, SUPERBLOCK_COPIES)
    }

    fn write_copies(&self, device: &Dispatcher, cell: &[u8], enough: usize) -> Result<(), Error> {
        const DOING: &str = "write the superblock";
        let mut written = 0;
        let mut failed = Ok(());
        for offset in self.write_order {
            match fixed::write(device, &[WriteAt::new(offset, cell)]).all() {
                Ok(()) => written += 1,
                Err(error) => {
                    tracing::warn!(%error, "a copy of the superblock cannot be written");
                    failed = Err(error);
                }
            }
            device.flush().doing(DOING)?;
        }
        if written < enough { failed.doing(DOING) } else { Ok(()) }
    }
}

/// Whether the device begins with a store whose blocks are too small for it.
///
/// What cannot be read is left to the opening of the store to report.
pub(crate) fn needs_smaller_transfers(device: &Dispatcher) -> bool {
    let alignment = device.geometry().transfer_alignment;
    let read = || {
        let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).ok()?;
        let len = SUPERBLOCK_CELL_LEN.next_multiple_of(alignment as usize) as u64;
        device.read_buffers(&mut [ReadAt::new(0, &mut cell).padded_to(len)]).all().ok()?;
        Some(Superblock::read(&cell).ok()?.block_size.get())
    };
    let fits = |block_size: u32| {
        block_size.is_multiple_of(alignment) && alignment as usize <= SUPERBLOCK_CELL_LEN
    };
    alignment > MIN_LOGICAL_BLOCK && read().is_some_and(|block_size| !fits(block_size))
}

fn offsets_of(last: u64) -> [u64; SUPERBLOCK_COPIES] {
    [0, SUPERBLOCK_CELL_LEN as u64, last]
}

/// Reads the cells at these offsets; one that cannot be read is empty, unless none can.
fn read_cells(
    device: &Dispatcher,
    offsets: [u64; SUPERBLOCK_COPIES],
) -> Result<[AlignedBuf; SUPERBLOCK_COPIES], Error> {
    let mut cells: [AlignedBuf; SUPERBLOCK_COPIES] = Default::default();
    for cell in &mut cells {
        *cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).doing("read the superblock")?;
    }
    let mut reads =
        offsets.into_iter().zip(&mut cells).map(|(offset, cell)| ReadAt::new(offset, cell));
    let mut reads: [_; SUPERBLOCK_COPIES] = std::array::from_fn(|_| {
        reads.next().unwrap_or_else(|| unreachable!("there is a cell for every copy"))
    });
    let results = device.read_buffers(&mut reads);
    if results.iter().all(Result::is_err) {
        results.all().doing("read the superblock")?;
        return Ok(cells);
    }
    for (cell, result) in cells.iter_mut().zip(results) {
        if let Err(error) = result {
            tracing::warn!(%error, "a copy of the superblock cannot be read");
            *cell = AlignedBuf::default();
        }
    }
    Ok(cells)
}

/// Why none of the copies can be used.
fn unusable(copies: &[Result<&Superblock, Damage>; SUPERBLOCK_COPIES]) -> Found {
    let newer = |damage: &&Damage| {
        matches!(damage, Damage::Version { .. } | Damage::UnknownFeatures { .. })
    };
    let present = |damage: &&Damage| !matches!(damage, Damage::NotThisStructure { .. });
    let damages = || copies.iter().filter_map(|copy| copy.as_ref().err());
    // Newer software says more than damage, and damage more than absence.
    match damages().find(newer).or_else(|| damages().find(present)) {
        Some(damage) => Found::Unusable(format!("its superblock cannot be used: {damage}")),
        None => Found::Nothing,
    }
}
