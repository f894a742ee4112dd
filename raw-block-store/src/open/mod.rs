//! Making and opening a store: what the device holds.

pub(crate) mod claim;
pub(crate) mod make;
pub(crate) mod memory;
pub(crate) mod recovery;
mod signature;
mod zeroes;

#[cfg(test)]
mod tests;
