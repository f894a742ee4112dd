//! Options of a single write.

/// Per-write options.
///
/// # Examples
/// ```
/// use raw_block_core::WriteOptions;
///
/// let options = WriteOptions::new().durable(true).placement(1);
/// assert!(options.durable);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The write is durable when it has completed, without a flush (Force Unit Access). Earlier
    /// writes are not. See [`Geometry::durable_writes`](crate::Geometry::durable_writes).
    pub durable: bool,
    /// The placement handle of the device, counted from 0: the device stores the bytes of one
    /// handle together, apart from those of others. `None` leaves the choice to the device. Affects
    /// only where the bytes are on the medium. See
    /// [`Geometry::placement_handles`](crate::Geometry::placement_handles).
    pub placement: Option<u16>,
}

impl WriteOptions {
    /// No options: not durable by itself, and no placement handle.
    #[must_use]
    pub const fn new() -> Self {
        Self { durable: false, placement: None }
    }

    /// The same options with [`durable`](Self#structfield.durable) set to this.
    #[must_use]
    pub const fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// The same options with this [placement handle](Self#structfield.placement).
    #[must_use]
    pub fn placement(mut self, handle: impl Into<Option<u16>>) -> Self {
        self.placement = handle.into();
        self
    }
}
