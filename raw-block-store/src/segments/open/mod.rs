//! Making and opening a store: superblocks, and what the store holds.

pub(crate) mod make;
pub(crate) mod recovery;
pub(crate) mod superblocks;

#[cfg(test)]
mod tests;
