//! Whether transfers bypass the page cache.

/// Whether transfers bypass the page cache (`O_DIRECT`).
///
/// # Examples
/// ```
/// use raw_block_core::Direct;
/// use raw_block_core::backend::DeviceFile;
///
/// # let file = tempfile::NamedTempFile::new()?;
/// # file.as_file().set_len(1 << 20)?;
/// # let path = file.path();
/// let device = DeviceFile::open(path, Direct::Off)?;
/// assert!(!device.is_direct());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
