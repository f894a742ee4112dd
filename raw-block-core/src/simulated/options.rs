//! How a simulated device behaves.

/// How a [`SimulatedDevice`](super::SimulatedDevice) behaves.
///
/// # Examples
/// ```
/// use raw_block_core::simulated::SimulatedOptions;
///
/// let options = SimulatedOptions::new().seed(7).torn_blocks(true);
/// assert!(options.shuffle, "the default");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimulatedOptions {
    /// The seed of all random choices.
    pub seed: u64,
    /// The most ops that one queue holds in flight, however many are asked for. At least 1.
    pub max_queue_depth: usize,
    /// A power cut never tears a write of up to this many bytes at a multiple of its length. A
    /// single logical block is never torn either, unless [`torn_blocks`](Self::torn_blocks) says
    /// so.
    pub atomic_write_unit: u64,
    /// Whether ops take effect and complete in a seeded order and late. Otherwise they do in the
    /// order in which they were submitted, and as soon as they are reaped.
    pub shuffle: bool,
    /// Whether a power cut may tear a logical block: then it holds neither old nor new bytes. A
    /// write that [`atomic_write_unit`](Self::atomic_write_unit) covers is not torn.
    pub torn_blocks: bool,
}

impl SimulatedOptions {
    /// Seed 0, queues of up to 128 ops, only single blocks atomic, shuffled.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            seed: 0,
            max_queue_depth: 128,
            atomic_write_unit: 0,
            shuffle: true,
            torn_blocks: false,
        }
    }

    /// The same options with this [seed](Self#structfield.seed).
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same options with this [depth](Self#structfield.max_queue_depth).
    #[must_use]
    pub const fn max_queue_depth(mut self, ops: usize) -> Self {
        self.max_queue_depth = ops;
        self
    }

    /// The same options with this [unit](Self#structfield.atomic_write_unit), in bytes.
    #[must_use]
    pub const fn atomic_write_unit(mut self, bytes: u64) -> Self {
        self.atomic_write_unit = bytes;
        self
    }

    /// The same options with [shuffling](Self#structfield.shuffle) on or off.
    #[must_use]
    pub const fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// The same options with [torn blocks](Self#structfield.torn_blocks) on or off.
    #[must_use]
    pub const fn torn_blocks(mut self, torn: bool) -> Self {
        self.torn_blocks = torn;
        self
    }
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self::new()
    }
}
