//! The handle to a simulated device, which is a backend.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};

use super::change::PlannedEnd;
use super::fate::CutReport;
use super::fault::DeviceFault;
use super::options::SimulatedOptions;
use super::queue::Queue;
use super::shared::Device;
use super::state::State;
use crate::backend::{FlushState, IoBackend, IoQueue, Stats};
use crate::{Error, ErrorKind, Geometry};

/// A handle to a simulated device, and a backend. The [module](super) says what it does.
///
/// Clones are handles to the same device; for a copy of the device there is [`fork`](Self::fork).
///
/// Sparse: what was never written reads as zeroes and uses no memory. What was written uses twice
/// its size, because the version before is kept too, see [`DeviceFault::old_version`].
///
/// # Examples
/// ```
/// use raw_block_core::Geometry;
/// use raw_block_core::simulated::SimulatedDevice;
///
/// let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512)?, 7)?;
/// simulated.poke(100, b"damage");
/// assert_eq!(simulated.power_on().peek(100, 6), b"damage");
/// # Ok::<(), raw_block_core::Error>(())
/// ```
#[derive(Clone)]
pub struct SimulatedDevice(Arc<Device>);

impl SimulatedDevice {
    /// A device with this geometry that holds zeroes, with this seed and otherwise default options.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn new(geometry: Geometry, seed: u64) -> Result<Self, Error> {
        Self::with_options(geometry, SimulatedOptions::new().seed(seed))
    }

    /// A device with this geometry that holds zeroes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when transfers or the capacity are not made of whole logical
    /// blocks, or a queue is to hold nothing.
    pub fn with_options(geometry: Geometry, options: SimulatedOptions) -> Result<Self, Error> {
        let refuse = |rule| Err(Error::new(ErrorKind::InvalidInput, "simulate a device", rule));
        let Geometry { capacity, logical_block, transfer_alignment, .. } = geometry;
        // Checks the block itself.
        Geometry::new(capacity, logical_block)?;
        if transfer_alignment == 0
            || !transfer_alignment.is_multiple_of(logical_block)
            || !capacity.is_multiple_of(u64::from(logical_block))
        {
            return refuse("transfers and the capacity must be multiples of the logical block");
        }
        if options.max_queue_depth == 0 {
            return refuse("a queue must hold at least one op");
        }
        Ok(Self::holding(geometry, options, State::new(geometry, options)))
    }

    fn holding(geometry: Geometry, options: SimulatedOptions, state: State) -> Self {
        Self(Arc::new(Device {
            geometry,
            options,
            stats: Stats::new(),
            flush_state: FlushState::new(),
            state: Mutex::new(state),
            released: Condvar::new(),
        }))
    }

    /// The device as a backend.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn IoBackend> {
        Arc::new(self.clone())
    }

    /// How many ops have taken effect that change the device: writes, flushes, discards,
    /// write-zeroes. An op that a fault keeps from happening does not count.
    #[must_use]
    pub fn ops_so_far(&self) -> u64 {
        self.0.state().effects
    }

    /// Cuts the power just after the `n`th op took effect, counted as in
    /// [`ops_so_far`](Self::ops_so_far); at once if that many have. That op is in flight at the
    /// time: its success was not reported. A flush in this place has made durable what it covers.
    pub fn cut_after(&self, n: u64) {
        self.end_after(n, PlannedEnd::PowerCut);
    }

    /// Kills the process just after the `n`th op took effect, as [`cut_after`](Self::cut_after)
    /// cuts the power.
    pub fn kill_after(&self, n: u64) {
        self.end_after(n, PlannedEnd::Kill);
    }

    /// The same, but as [`process_kill_leaving_writes`](Self::process_kill_leaving_writes).
    pub fn kill_after_leaving_writes(&self, n: u64) {
        self.end_after(n, PlannedEnd::KillLeavingWrites);
    }

    fn end_after(&self, n: u64, planned: PlannedEnd) {
        let mut state = self.0.state();
        state.cut_after = Some(n);
        state.planned = planned;
        state.cut_when_due();
        drop(state);
        self.0.released.notify_all();
    }

    /// Cuts the power. All ops in flight fail with `EIO`, as does every later one.
    ///
    /// Returns the fates of the writes that were not durable; after the first cut, the same again.
    pub fn power_cut(&self) -> CutReport {
        let report = self.0.state().power_cut();
        self.0.released.notify_all();
        report
    }

    /// Whether the power was cut or the process killed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.state().over.is_some()
    }

    /// The device after the power came back, with what the cut left: a new one each time this is
    /// called, with counters at zero and no faults but [permanent](DeviceFault::permanent) ones.
    /// Cuts the power first if it is still on.
    ///
    /// After [`process_kill`](Self::process_kill) it is the device that the next process finds.
    #[must_use]
    pub fn power_on(&self) -> Self {
        self.power_cut();
        Self::holding(self.0.geometry, self.0.options, self.0.state().successor())
    }

    /// Kills the process that uses this device: each op in flight happened or did not, in part only
    /// if it can be torn, and the device acknowledged what happened. All ops of this handle's
    /// queues fail from now on with `EIO`.
    ///
    /// Returns the device as the next process finds it. What was in the volatile cache is still
    /// there, and still volatile. Counters are at zero, and there are no faults but permanent ones.
    #[must_use]
    pub fn process_kill(&self) -> Self {
        self.0.state().process_kill();
        self.0.released.notify_all();
        Self::holding(self.0.geometry, self.0.options, self.0.state().successor())
    }

    /// Kills the process that uses this device, and lets another one use it before the last request
    /// of the killed one has completed: as [`process_kill`](Self::process_kill), but the ops in
    /// flight take effect on the device that is returned, at seeded times while it is used, over
    /// what was written in the meantime. The parts of a write may take effect at different times,
    /// or never.
    ///
    /// A lock that the system releases only after the last request of a process keeps this from
    /// happening: see [`lock_device`](crate::backend::lock_device). With `process_kill` the next
    /// process waits for such a lock.
    #[must_use]
    pub fn process_kill_leaving_writes(&self) -> Self {
        self.0.state().process_kill_leaving_writes();
        self.0.released.notify_all();
        Self::holding(self.0.geometry, self.0.options, self.0.state().successor())
    }

    /// A copy of the device in every respect, but with another seed from here on. Neither sees what
    /// happens to the other. Blocks are shared until one of the two writes them.
    ///
    /// Ops in flight are in flight on the copy too, where no queue reaps them.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let mut state = self.0.state().clone();
        state.rng = fastrand::Rng::with_seed(seed);
        Self::holding(self.0.geometry, self.0.options.seed(seed), state)
    }

    /// Adds a fault, for ops that are submitted later.
    pub fn inject(&self, fault: DeviceFault) {
        self.0.state().faults.push(fault);
    }

    /// Removes all faults but [permanent](DeviceFault::permanent) ones, for ops that are submitted
    /// later. Ops that were held proceed.
    pub fn clear_faults(&self) {
        let mut state = self.0.state();
        state.faults.retain(DeviceFault::is_permanent);
        state.held.clear();
        drop(state);
        self.0.released.notify_all();
    }

    /// What the device holds, as a read without faults would find it now: `len` bytes from byte
    /// `offset` on, at any alignment. Past the end of the device there are zeroes.
    #[must_use]
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let block = u64::from(self.0.geometry.logical_block);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of 32 bits fits")]
        let skipped = (offset % block) as usize;
        let whole = (skipped + len) as u64;
        let mut bytes = self.0.state().read(offset - offset % block, whole, &[]);
        bytes.drain(..skipped);
        bytes.truncate(len);
        bytes
    }

    /// Changes what the device holds without an op, at any alignment. It is durable at once. For
    /// damage that persists, where a [`DeviceFault`] would end with the power.
    ///
    /// # Panics
    /// When the range is not inside the device.
    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        let geometry = &self.0.geometry;
        let end = offset.checked_add(bytes.len() as u64);
        assert!(
            end.is_some_and(|end| end <= geometry.capacity),
            "poked past the end of the device"
        );
        let block_len = geometry.logical_block as usize;
        let block = offset / block_len as u64;
        let first = block * block_len as u64;
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of 32 bits fits")]
        let skipped = (offset - first) as usize;
        let mut state = self.0.state();
        let mut whole = state.read(first, (skipped + bytes.len()) as u64, &[]);
        whole[skipped..skipped + bytes.len()].copy_from_slice(bytes);
        for (block, bytes) in (block..).zip(whole.chunks(block_len)) {
            state.poke(block, bytes.into());
        }
    }
}

impl IoBackend for SimulatedDevice {
    fn engine(&self) -> &'static str {
        "simulated"
    }

    fn name(&self) -> &'static str {
        "a simulated device"
    }

    fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    fn stats(&self) -> &Stats {
        &self.0.stats
    }

    fn flush_state(&self) -> &FlushState {
        &self.0.flush_state
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        let depth = depth.clamp(1, self.0.options.max_queue_depth);
        Ok(Box::new(Queue::new(Arc::clone(&self.0), depth)))
    }
}

impl fmt::Debug for SimulatedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDevice")
            .field("geometry", &self.0.geometry)
            .field("options", &self.0.options)
            .field("ops_so_far", &self.ops_so_far())
            .field("is_off", &self.is_off())
            .finish_non_exhaustive()
    }
}
