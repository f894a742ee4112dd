//! What lies on the device: structures, encode and read, no I/O.

mod entry;

pub(crate) use entry::Entry;
