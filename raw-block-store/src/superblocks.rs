//! The copies of the superblock on the device.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use crate::Error;
use crate::error::Doing;
use crate::format::{
    Damage, SUPERBLOCK_CELL_LEN, SUPERBLOCK_COPIES, Superblock, SuperblockState, superblock_offsets,
};

/// The superblock of an open store, and the order in which its copies are rewritten.
#[derive(Debug)]
pub(crate) struct Superblocks {
    current: Superblock,
    /// Offsets of the copies: damaged ones first, then the oldest.
    write_order: [u64; SUPERBLOCK_COPIES],
}

impl Superblocks {
    /// A superblock that no copy on the device shows yet.
    pub(crate) fn new(superblock: Superblock) -> Self {
        Self { current: superblock, write_order: offsets_of(&superblock) }
    }

    /// The newest valid superblock on the device.
    pub(crate) fn read(device: &Dispatcher) -> Result<Self, Error> {
        let not_a_store = |reason: String| Error::NotAStore {
            device: device.backend().device().to_owned(),
            reason,
        };
        let capacity = device.geometry().capacity;
        let offsets = superblock_offsets(capacity)
            .ok_or_else(|| not_a_store(format!("{capacity} bytes are too few for one")))?;
        let mut cells = read_cells(device, offsets)?;
        // On a device that became longer the last copy is no longer at its end.
        let first = Superblock::newest(cells.each_ref().map(|cell| &**cell)).newest.copied();
        if let Some(last) = first.map(|superblock| superblock.last_superblock_offset.get())
            && last != offsets[2]
            && last < offsets[2]
        {
            cells = read_cells(device, [offsets[0], offsets[1], last])?;
        }
        let copies = Superblock::newest(cells.each_ref().map(|cell| &**cell));
        let Some(newest) = copies.newest else {
            return Err(not_a_store(reason(&copies.copies)));
        };
        if newest.device_len.get() > capacity {
            return Err(not_a_store(format!(
                "it was made on {} bytes, and the device has only {capacity}",
                newest.device_len
            )));
        }
        if !newest.block_size.get().is_multiple_of(device.geometry().transfer_alignment) {
            return Err(not_a_store(format!(
                "its blocks of {} bytes are smaller than the device's {}",
                newest.block_size,
                device.geometry().transfer_alignment
            )));
        }
        if newest.unknown_read_only_features() != 0 {
            return Err(not_a_store(format!(
                "it uses features {:#x}, which this software cannot write",
                newest.unknown_read_only_features()
            )));
        }
        let mut order: Vec<_> = offsets_of(newest).into_iter().zip(&copies.copies).collect();
        order.sort_by_key(|(_, copy)| copy.as_ref().map_or(0, |copy| copy.generation.get()));
        let write_order = std::array::from_fn(|copy| order[copy].0);
        Ok(Self { current: *newest, write_order })
    }

    pub(crate) fn current(&self) -> &Superblock {
        &self.current
    }

    /// Durably marks the store as clean or open: one copy after the other, with a flush between, so that
    /// a valid one is left whatever happens.
    pub(crate) fn mark(
        &mut self,
        device: &Dispatcher,
        state: SuperblockState,
    ) -> Result<(), Error> {
        let mut next = self.current;
        next.set_state(state);
        next.generation += 1;
        let mut cell = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).doing("write the superblock")?;
        next.encode(&mut cell)?;
        for offset in self.write_order {
            write_durably(device, offset, &cell)?;
        }
        self.current = next;
        Ok(())
    }

    /// Durably destroys all copies, so that nothing is taken for a store while a new one is made.
    pub(crate) fn erase(&self, device: &Dispatcher) -> Result<(), Error> {
        let zeroes = AlignedBuf::zeroed(SUPERBLOCK_CELL_LEN).doing("erase the superblock")?;
        self.write_order.iter().try_for_each(|&offset| write_durably(device, offset, &zeroes))
    }
}

fn write_durably(device: &Dispatcher, offset: u64, cell: &[u8]) -> Result<(), Error> {
    let written = device.write_buffers(&[WriteAt::new(offset, cell)]).all();
    written.and_then(|()| device.flush()).doing("write the superblock")
}

fn offsets_of(superblock: &Superblock) -> [u64; SUPERBLOCK_COPIES] {
    [0, SUPERBLOCK_CELL_LEN as u64, superblock.last_superblock_offset.get()]
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
fn reason(copies: &[Result<&Superblock, Damage>; SUPERBLOCK_COPIES]) -> String {
    let absent = |damage: &Damage| matches!(damage, Damage::NotThisStructure { .. });
    // The most telling one: a damaged copy says more than an absent one, and newer software more
    // than damage.
    let telling = copies.iter().filter_map(|copy| copy.as_ref().err()).max_by_key(|damage| {
        let newer = matches!(damage, Damage::Version { .. } | Damage::UnknownFeatures { .. });
        (newer, !absent(damage))
    });
    match telling {
        Some(damage) if !absent(damage) => format!("its superblock cannot be used: {damage}"),
        _ => "there is no superblock; format the device to make a store".to_owned(),
    }
}
