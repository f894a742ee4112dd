//! Whether transfers bypass the page cache.

/// Whether transfers bypass the page cache (`O_DIRECT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direct {
    /// Bypass the page cache, or fail to open.
    Required,
    /// Bypass the page cache where the file system can; see
    /// [`DeviceFile::is_direct`](crate::backend::DeviceFile::is_direct).
    #[default]
    Preferred,
    /// Go through the page cache, which accepts any byte range and any memory. Opening the device
    /// empties it.
    Off,
}
