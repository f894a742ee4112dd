//! The copies of the superblock on the device.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use crate::Error;
use crate::error::Context;
use crate::format::Damage;
use crate::format::{
    SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock, SuperblockState, superblock_offsets,
};
use crate::io::fixed;
use crate::mutant::Mutant;

/// How many copies have to be written for a change of the superblock to count. The others outvote
/// what a failed write leaves in the last one.
const ENOUGH_COPIES: usize = SUPERBLOCK_COPIES - 1;

/// What to do about blocks that are too large.
const OPEN_BUFFERED: &str = "open it through the page cache (`Direct::Off`), or copy the store to a device with \
                             smaller blocks";

/// The superblock of an open store, and the order in which its copies are rewritten.
#[derive(Debug)]
pub(crate) struct Superblocks {
    current: Superblock,
    /// Offsets of the copies: damaged ones first, then the oldest.
    write_order: [u64; SUPERBLOCK_COPIES],
    /// Whether all copies could be read and were valid.
    all_valid: bool,
}

/// The superblocks of a device.
#[derive(Debug)]
pub(crate) enum Probe {
    /// There are none.
    Nothing,
    /// There are some, and this software, or this device as it is opened, cannot use them: the
    /// reason.
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
    ///
    /// # Errors
    /// [`Error::Device`] when no copy can be read.
    pub(crate) fn find(dispatcher: &Dispatcher) -> Result<Probe, Error> {
        let capacity = dispatcher.geometry().capacity;
        let alignment = dispatcher.geometry().transfer_alignment;
        if alignment as usize > SUPERBLOCK_CELL_LEN {
            return Ok(Probe::Unusable(format!(
                "transfers in multiples of {alignment} bytes are too large for its superblock of \
                 {SUPERBLOCK_CELL_LEN}: {OPEN_BUFFERED}"
            )));
        }
        let Some(offsets) = superblock_offsets(capacity) else { return Ok(Probe::Nothing) };
        let mut cells = read_cells(dispatcher, offsets)?;
        // On a device that became longer the last copy is no longer at its end.
        let first = Superblock::newest(cells.each_ref().map(|cell| &**cell)).newest.copied();
        if let Some(last) = first.map(|superblock| superblock.last_superblock_offset.get())
            && last < offsets[2]
        {
            cells = read_cells(dispatcher, offsets_of(last))?;
        }
        let copies = Superblock::newest(cells.each_ref().map(|cell| &**cell));
        let Some(newest) = copies.newest else { return Ok(unusable(&copies.copies)) };

        let last = newest.last_superblock_offset.get();
        if let Some(reason) = misfit(newest, capacity, alignment) {
            return Ok(Probe::Unusable(reason));
        }
        let mut order: Vec<_> = offsets_of(last).into_iter().zip(&copies.copies).collect();
        order.sort_by_key(|(_, copy)| copy.as_ref().map_or(0, |copy| copy.generation.get()));
        let mut write_order = std::array::from_fn(|copy| order[copy].0);
        if Mutant::SuperblockCopiesInFixedOrder.is_on() {
            write_order = offsets_of(last);
        }
        let all_valid = copies.copies.iter().all(Result::is_ok);
        Ok(Probe::Store(Box::new(Self { current: *newest, write_order, all_valid })))
    }

    /// The newest superblock.
    pub(crate) fn current(&self) -> &Superblock {
        &self.current
    }

    /// The number of the checkpoint from which the store is opened without recovery, if it was
    /// closed.
    ///
    /// A clean mark counts only if all copies are valid: an invalid one may have been newer, and
    /// may have said that the store is open.
    pub(crate) fn clean_checkpoint(&self) -> Option<u64> {
        match self.current.state() {
            SuperblockState::Clean { checkpoint }
                if self.all_valid || Mutant::CleanMarkOfSomeCopies.is_on() =>
            {
                Some(checkpoint)
            }
            _ => None,
        }
    }

    /// The number of the oldest checkpoint that may be used.
    pub(crate) fn oldest_checkpoint(&self) -> u64 {
        match self.current.state() {
            SuperblockState::Clean { checkpoint } => checkpoint,
            SuperblockState::Open { oldest } => oldest,
        }
    }

    /// Durably marks the store as clean or open: one copy after the other, with a flush between, so
    /// that a valid copy is left after a power cut at any moment.
    ///
    /// # Errors
    /// When a flush fails, or more than one copy cannot be written.
    pub(crate) fn mark(
        &mut self,
        dispatcher: &Dispatcher,
        state: SuperblockState,
    ) -> Result<(), Error> {
        let mut next = self.current;
        next.set_state(state);
        // A close that was interrupted leaves a generation one higher in a copy that may not have
        // been readable when the store was opened again. Two higher is above that.
        next.generation += if matches!(state, SuperblockState::Open { .. }) { 2 } else { 1 };
        // If not all copies can be written, the generation is used up all the same.
        self.current.generation = next.generation;
        let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).context(WRITE)?;
        next.encode(&mut cell)?;
        self.write_copies(dispatcher, &cell, ENOUGH_COPIES)?;
        self.current = next;
        Ok(())
    }

    /// Durably destroys all copies, so that nothing is taken for a store while a new one is made.
    ///
    /// # Errors
    /// When a flush fails, or a copy cannot be written.
    pub(crate) fn erase(&self, dispatcher: &Dispatcher) -> Result<(), Error> {
        let zeroes = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).context("erase the superblock")?;
        self.write_copies(dispatcher, &zeroes, SUPERBLOCK_COPIES)
    }

    fn write_copies(
        &self,
        dispatcher: &Dispatcher,
        cell: &[u8],
        enough: usize,
    ) -> Result<(), Error> {
        if Mutant::SuperblockCopiesTogether.is_on() {
            let writes = self.write_order.map(|offset| WriteAt::new(offset, cell));
            fixed::write(dispatcher, &writes).all().context(WRITE)?;
            return dispatcher.flush().context(WRITE);
        }
        let mut written = 0;
        let mut failed = Ok(());
        for offset in self.write_order {
            match fixed::write(dispatcher, &[WriteAt::new(offset, cell)]).all() {
                Ok(()) => written += 1,
                Err(error) => {
                    tracing::warn!(%error, "a copy of the superblock cannot be written");
                    failed = Err(error);
                }
            }
            if !Mutant::SuperblockNotFlushed.is_on() {
                dispatcher.flush().context(WRITE)?;
            }
        }
        if written < enough { failed.context(WRITE) } else { Ok(()) }
    }
}

/// What the store does when writing a copy fails.
const WRITE: &str = "write the superblock";

fn offsets_of(last: u64) -> [u64; SUPERBLOCK_COPIES] {
    [0, SUPERBLOCK_CELL_LEN as u64, last]
}

/// Why a store does not fit the device as it is now, if it does not.
fn misfit(superblock: &Superblock, capacity: u64, alignment: u32) -> Option<String> {
    let needed = superblock.last_superblock_offset.get() + SUPERBLOCK_CELL_LEN as u64;
    let block_size = superblock.block_size.get();
    if needed > capacity {
        return Some(format!(
            "it takes {needed} bytes, and the device has only {capacity}: make the device as long as it was"
        ));
    }
    (!block_size.is_multiple_of(alignment)).then(|| {
        format!(
            "its blocks of {block_size} bytes are smaller than the {alignment} of which transfers are \
             multiples here: {OPEN_BUFFERED}"
        )
    })
}

/// Reads the cells at these offsets; one that cannot be read is empty, unless none can.
fn read_cells(
    dispatcher: &Dispatcher,
    offsets: [u64; SUPERBLOCK_COPIES],
) -> Result<[AlignedBuf; SUPERBLOCK_COPIES], Error> {
    const READ: &str = "read the superblock";
    let mut cells: [AlignedBuf; SUPERBLOCK_COPIES] = Default::default();
    for cell in &mut cells {
        *cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).context(READ)?;
    }
    let reads = offsets.into_iter().zip(&mut cells);
    let mut reads: Vec<_> = reads.map(|(offset, cell)| ReadAt::new(offset, cell)).collect();
    let results = dispatcher.read_buffers(&mut reads);
    if results.iter().all(Result::is_err) {
        results.all().context(READ)?;
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
fn unusable(copies: &[Result<&Superblock, Damage>; SUPERBLOCK_COPIES]) -> Probe {
    let newer = |damage: &&Damage| {
        matches!(damage, Damage::Version { .. } | Damage::UnknownFeatures { .. })
    };
    let present = |damage: &&Damage| !matches!(damage, Damage::NotThisStructure { .. });
    let damages = || copies.iter().filter_map(|copy| copy.as_ref().err());
    // Newer software says more than damage, and damage more than absence.
    match damages().find(newer).or_else(|| damages().find(present)) {
        Some(damage) => Probe::Unusable(format!("its superblock cannot be used: {damage}")),
        None => Probe::Nothing,
    }
}
