//! Checkpoints that are corrupted while the power is off.

use std::fmt;

use raw_block_core::simulated::SimulatedDevice;

use super::target::Layout;

/// A corrupted block, with its bytes before.
pub(super) struct BitRot {
    offset: u64,
    bytes: Vec<u8>,
}

impl fmt::Debug for BitRot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint at byte {}", self.offset)
    }
}

impl BitRot {
    /// Corrupts the header of a checkpoint.
    pub(super) fn checkpoint(
        device: &SimulatedDevice,
        layout: &Layout,
        random: &mut fastrand::Rng,
    ) -> Self {
        let offset = layout.container_offset[random.usize(..3)];
        let bytes = device.peek(offset, layout.shape.block_size as usize);
        let mut corrupted = bytes.clone();
        corrupted[random.usize(..64)] ^= 1 << random.u8(..8);
        device.poke(offset, &corrupted);
        Self { offset, bytes }
    }

    /// Restores the bytes of the block.
    pub(super) fn restore(self, device: &SimulatedDevice) {
        device.poke(self.offset, &self.bytes);
    }
}
