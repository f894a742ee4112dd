//! A device in memory that loses power, reorders and fails, to test code that stores data on a
//! device.
//!
//! A [`SimulatedDevice`] is a backend as strict as a real device opened with `O_DIRECT`. Beyond
//! that:
//!
//! - **Order.** Ops take effect at seeded times, one by one, and are reaped in a seeded order,
//!   often later than they could be.
//! - **Volatile cache.** A write that took effect is read back, but a power cut may undo it. A
//!   flush makes durable what was reaped before the flush was submitted, and nothing else. Without
//!   [`volatile_write_cache`](crate::Geometry::volatile_write_cache) a write is durable once it was
//!   reaped.
//! - **[`power_cut`](SimulatedDevice::power_cut).** Each write that is not durable, in flight or
//!   not, is by itself lost, kept, torn at a logical block, or kept in an arbitrary part of its
//!   blocks; one that [`atomic_write_unit`](SimulatedOptions::atomic_write_unit) covers is lost or
//!   kept. Ops in flight and all later ones fail, and what is left is found by
//!   [`power_on`](SimulatedDevice::power_on). With [`cut_after`](SimulatedDevice::cut_after) the
//!   cut comes at any given write or flush.
//! - **[`process_kill`](SimulatedDevice::process_kill).** What was in flight happened or did not;
//!   the cache is still there, and still volatile. Or it happens later, below the next process, as
//!   without a lock that keeps the next process out:
//!   [`process_kill_leaving_writes`](SimulatedDevice::process_kill_leaving_writes).
//! - **Discards** are as volatile as writes. Each block of the range then reads as zeroes, as
//!   before or as garbage.
//! - **[`fork`](SimulatedDevice::fork).** A cheap copy of everything, to try many ends of one
//!   history.
//! - **[`DeviceFault`]s**, each at an op that the test chooses.
//!
//! The same seed and the same calls from one thread have the same outcome, so a failure found by
//! random tests is replayed by its seed; unless deadlines pass in between, which depend on the
//! clock. So have the calls of several threads that are [run interleaved](run_interleaved). Another
//! version of this crate may do otherwise with the same seed.
//!
//! Short transfers are not part of it: they are handled below [`IoQueue`](crate::backend::IoQueue),
//! where this device takes the place of a backend.
//!
//! # Examples
//! ```
//! use raw_block_core::simulated::SimulatedDevice;
//! use raw_block_core::{Dispatcher, Geometry, ReadAt, WriteAt};
//!
//! let simulated = SimulatedDevice::new(Geometry::new(1 << 45, 512)?, 7)?;
//! let device = Dispatcher::new(simulated.backend())?;
//! device.write_buffers(&[WriteAt::new(0, &[1; 512])]).all()?;
//! device.flush()?;
//! device.write_buffers(&[WriteAt::new(0, &[2; 512])]).all()?;
//!
//! simulated.power_cut();
//! assert!(device.write_buffers(&[WriteAt::new(0, &[3; 512])]).all().is_err());
//!
//! let device = Dispatcher::new(simulated.power_on().backend())?;
//! let mut found = [0; 512];
//! device.read_buffers(&mut [ReadAt::new(0, &mut found)]).all()?;
//! assert!(found == [1; 512] || found == [2; 512], "what was flushed, or something newer");
//! # Ok::<(), raw_block_core::Error>(())
//! ```

mod change;
mod device;
mod fate;
mod fault;
mod image;
mod late;
mod options;
mod power;
mod queue;
pub(crate) mod scheduler;
mod shared;
mod state;

pub use device::SimulatedDevice;
pub use fate::CutReport;
pub use fault::DeviceFault;
pub use options::SimulatedOptions;
pub use scheduler::run_interleaved;
