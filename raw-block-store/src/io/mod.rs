//! Writing the structures of the format.

pub(crate) mod fixed;
mod placement;
pub(crate) mod segment_header;
pub(crate) mod slot_header;
pub(crate) mod superblocks;

pub(crate) use placement::Placement;
