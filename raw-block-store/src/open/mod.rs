//! Making and opening a store: superblocks, and what the store holds.

pub(crate) mod claim;
pub(crate) mod make;
pub(crate) mod memory;
pub(crate) mod recovery;
mod signature;
pub(crate) mod superblocks;
mod zeroes;

#[cfg(test)]
mod tests;
