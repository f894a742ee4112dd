//! Devices to tell stories of, and the names of stories.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use raw_block_core::Geometry;
use raw_block_core::simulated::SimulatedDevice;
use raw_block_store::format::{SUPERBLOCK_CELL_LEN, Superblock};
use raw_block_store::{FormatOptions, Store};

/// Slots of the stores. With the largest number and small blocks a checkpoint has three blocks.
const SLOTS: [u64; 4] = [4, 6, 9, 30];
/// Block sizes of the stores, and logical blocks of their devices.
const BLOCK_SIZES: [(u32, u32); 3] = [(512, 512), (4096, 512), (4096, 4096)];

/// Freshly formatted devices, one of each kind.
pub(super) struct Shelf(Vec<(SimulatedDevice, Superblock)>);

impl Shelf {
    pub(super) fn new() -> Result<Self> {
        let mut devices = Vec::new();
        for slots in SLOTS {
            for (block_size, logical_block) in BLOCK_SIZES {
                // Its last superblock need not end where it ends.
                let len = (1 << 20) + slots % 4 * u64::from(logical_block);
                let device = SimulatedDevice::new(Geometry::new(len, logical_block)?, 0)?;
                let options = FormatOptions {
                    slot_count: Some(slots),
                    block_size: Some(block_size),
                    delete_log_blocks: Some(2 + slots % 3),
                    ..FormatOptions::for_payloads(1400)
                };
                Store::format(device.backend(), &options)?;
                let superblock = without_chance(&device)?;
                devices.push((device, superblock));
            }
        }
        Ok(Self(devices))
    }

    /// A device, and the superblock of the store on it.
    pub(super) fn take(&self, random: &mut fastrand::Rng) -> (SimulatedDevice, Superblock) {
        let (device, superblock) = &self.0[random.usize(..self.0.len())];
        (device.fork(random.u64(..)), *superblock)
    }
}

/// Replaces the hash key, which is random and decides which keys the memory of an eviction policy confuses.
fn without_chance(device: &SimulatedDevice) -> Result<Superblock> {
    let mut cell = device.peek(0, SUPERBLOCK_CELL_LEN);
    let mut superblock = *Superblock::read(&cell)?;
    superblock.hash_key = [7; 16];
    superblock.encode(&mut cell)?;
    let last = superblock.last_superblock_offset.get();
    for offset in [0, SUPERBLOCK_CELL_LEN as u64, last] {
        device.poke(offset, &cell);
    }
    Ok(superblock)
}

/// Which story: its seed, after how many writes and flushes the power is cut for the first time, and after
/// how many of the next life it is cut again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Title {
    pub(super) seed: u64,
    pub(super) cut: Option<u64>,
    pub(super) again: Option<u64>,
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        [self.cut, self.again].iter().flatten().try_for_each(|cut| write!(f, ":{cut}"))
    }
}

impl FromStr for Title {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("{text:?} is not a story: it is SEED, SEED:CUT or SEED:CUT:CUT");
        let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
        match numbers.with_context(wrong)?[..] {
            [seed] => Ok(Self { seed, cut: None, again: None }),
            [seed, cut] => Ok(Self { seed, cut: Some(cut), again: None }),
            [seed, cut, again] => Ok(Self { seed, cut: Some(cut), again: Some(again) }),
            _ => Err(anyhow::anyhow!(wrong())),
        }
    }
}
