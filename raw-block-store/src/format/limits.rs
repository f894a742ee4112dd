//! The limits of the format.

use super::damage::ensure;

/// The smallest block, in bytes.
pub const MIN_BLOCK_SIZE: u32 = 512;

/// The largest block, in bytes.
pub const MAX_BLOCK_SIZE: u32 = 65536;

/// The highest sequence, checkpoint number and generation. Far above what a store can use up, and
/// far enough below the end of the numbers that the next one can always be computed.
pub const MAX_SEQUENCE: u64 = 1 << 62;

/// Whether this is a block size: a power of two from [`MIN_BLOCK_SIZE`] to
/// [`MAX_BLOCK_SIZE`], in bytes.
pub fn is_block_size(block_size: u32) -> bool {
    block_size.is_power_of_two() && (MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&block_size)
}

/// The rule for numbers of checkpoints, which begin with 1.
pub(crate) fn check_checkpoint(number: u64) -> Result<(), &'static str> {
    ensure(number != 0, "the checkpoint number is 0")?;
    ensure(number <= MAX_SEQUENCE, "the checkpoint number is too high")
}
