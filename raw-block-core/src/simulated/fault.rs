//! The faults that a test injects.

use std::io;
use std::ops::Range;

use crate::backend::{Op, OpKind};
use crate::{Error, ErrorClass};

/// A fault of a [`SimulatedDevice`](super::SimulatedDevice), and the ops that it hits.
///
/// Without more it hits every op of its kind. [`within`](Self::within) restricts it to a range of
/// the device, [`nth`](Self::nth) to one of the ops that match. What counts is the op as the device
/// gets it, so neighbours that were merged are one, and the parts of a merge that failed are ops
/// again.
///
/// Faults are independent: one can delay an op, and another one fail it.
///
/// # Examples
/// ```
/// use raw_block_core::backend::OpKind;
/// use raw_block_core::simulated::DeviceFault;
///
/// const ENOSPC: i32 = 28;
/// let write_fails = DeviceFault::fail(OpKind::Write, ENOSPC);
/// let third_write_above = write_fails.within(1 << 20..1 << 30).nth(3);
/// # let _ = third_write_above;
/// ```
#[derive(Clone, Debug)]
pub struct DeviceFault {
    kind: OpKind,
    effect: Effect,
    range: Range<u64>,
    nth: Option<u64>,
    matches: u64,
    permanent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Fail(i32),
    FailAfter(i32),
    Bad,
    Delay(u32),
    Hold,
    FlipBit(Option<u32>),
    Zeroed,
    OldVersion,
    OtherBlock(u64),
    Lost,
    Late(u64),
    Misdirected(u64),
}

impl DeviceFault {
    /// The op fails with this error number, and nothing happens.
    #[must_use]
    pub fn fail(kind: OpKind, errno: i32) -> Self {
        Self::new(kind, Effect::Fail(errno))
    }

    /// The op is executed, and yet fails with this error number: only the report of its success is
    /// lost.
    #[must_use]
    pub fn fail_after(kind: OpKind, errno: i32) -> Self {
        Self::new(kind, Effect::FailAfter(errno))
    }

    /// The medium is bad: the op fails with `ENODATA`, which is
    /// [`ErrorKind::Media`](crate::ErrorKind::Media). Of a write, the blocks outside the range of
    /// this fault are stored, and those in the range keep what they hold.
    ///
    /// # Examples
    /// ```
    /// use raw_block_core::backend::OpKind;
    /// use raw_block_core::simulated::DeviceFault;
    ///
    /// let range = 1 << 20..(1 << 20) + 4096;
    /// let bad = [OpKind::Write, OpKind::Read]
    ///     .map(|kind| DeviceFault::bad_medium(kind).within(range.clone()).permanent());
    /// # let _ = bad;
    /// ```
    #[must_use]
    pub fn bad_medium(kind: OpKind) -> Self {
        Self::new(kind, Effect::Bad)
    }

    /// The op completes late: this number of reaps skip it, unless they have nothing else to
    /// return.
    #[must_use]
    pub fn delay(kind: OpKind, reaps: u32) -> Self {
        Self::new(kind, Effect::Delay(reaps))
    }

    /// The op is neither executed nor completed until the faults are cleared, the power is cut,
    /// the process is killed, or its queue is dropped. A caller without a deadline waits as long.
    #[must_use]
    pub fn hold(kind: OpKind) -> Self {
        Self::new(kind, Effect::Hold)
    }

    /// A read finds one bit of each block flipped: this one, counted from the block's first byte
    /// and its lowest bit, or a seeded one. The device itself keeps what it holds.
    #[must_use]
    pub fn flip_bit(bit: Option<u32>) -> Self {
        Self::new(OpKind::Read, Effect::FlipBit(bit))
    }

    /// A read finds zeroes.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new(OpKind::Read, Effect::Zeroed)
    }

    /// A read finds of each block what it held before it was last written.
    #[must_use]
    pub fn old_version() -> Self {
        Self::new(OpKind::Read, Effect::OldVersion)
    }

    /// A read returns blocks of another place: the block at byte `from` for the first block of the
    /// range of this fault, and so on. Beyond the end of the device there are zeroes.
    #[must_use]
    pub fn other_block(from: u64) -> Self {
        Self::new(OpKind::Read, Effect::OtherBlock(from))
    }

    /// A write is acknowledged and never stored.
    #[must_use]
    pub fn lost_write() -> Self {
        Self::new(OpKind::Write, Effect::Lost)
    }

    /// A write fails with `EINTR` and the class [`Unknown`](crate::ErrorClass::Unknown), and takes
    /// effect all the same: after `ops` more ops have changed the device since it was reaped, over
    /// whatever they wrote. A flush does not make it durable. If the power is cut or the process
    /// killed before, it may take effect then.
    #[must_use]
    pub fn late_write(ops: u64) -> Self {
        Self::new(OpKind::Write, Effect::Late(ops))
    }

    /// A write is acknowledged and stored elsewhere: the first block of the range of this fault at
    /// byte `to`, and so on. Beyond the end of the device it is lost.
    #[must_use]
    pub fn misdirected_write(to: u64) -> Self {
        Self::new(OpKind::Write, Effect::Misdirected(to))
    }

    /// A flush is acknowledged and makes nothing durable.
    #[must_use]
    pub fn lost_flush() -> Self {
        Self::new(OpKind::Flush, Effect::Lost)
    }

    fn new(kind: OpKind, effect: Effect) -> Self {
        Self { kind, effect, range: 0..u64::MAX, nth: None, matches: 0, permanent: false }
    }

    /// The same fault for ops that touch these bytes of the device. Where it concerns what is read
    /// or stored, it concerns no other blocks of the op than those that lie in the range, whole or
    /// in part. A flush touches everything.
    #[must_use]
    pub fn within(mut self, range: Range<u64>) -> Self {
        self.range = range;
        self
    }

    /// The same fault for the `n`th op alone that matches, counted from 1 on.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.nth = Some(n);
        self
    }

    /// The same fault for the life of the device: it stays after
    /// [`power_on`](super::SimulatedDevice::power_on), after a kill, and after
    /// [`clear_faults`](super::SimulatedDevice::clear_faults).
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.permanent = true;
        self
    }

    pub(super) fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Counts the op if it matches. What becomes of it, if it is its turn.
    pub(super) fn hit(&mut self, op: &Op) -> Option<Hit> {
        let touches =
            op.offset() < self.range.end && op.offset().saturating_add(op.len()) > self.range.start;
        if op.kind() != self.kind || !touches && self.kind != OpKind::Flush {
            return None;
        }
        self.matches += 1;
        let turn = self.nth.is_none_or(|nth| nth == self.matches);
        turn.then(|| Hit { effect: self.effect, range: self.range.clone() })
    }
}

/// What becomes of an op, in a range of the device.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) effect: Effect,
    range: Range<u64>,
}

impl Hit {
    /// Whether it concerns a block.
    pub(super) fn concerns(&self, block: u64, block_len: u64) -> bool {
        let start = block * block_len;
        start < self.range.end && start + block_len > self.range.start
    }

    /// The block that takes the place of `block` when the range begins at byte `place` instead.
    pub(super) fn moved(&self, block: u64, place: u64, block_len: u64) -> Option<u64> {
        (place / block_len).checked_add(block - self.range.start / block_len)
    }
}

/// The error that the op fails with.
pub(super) fn error(hits: &[Hit], op: &Op) -> Option<Error> {
    let error = |errno| {
        let source = io::Error::from_raw_os_error(errno);
        Error::os(op.kind().name(), source).at(op.offset(), op.len())
    };
    // Whatever else fails it, an op that may take effect later says so.
    if late(hits).is_some() {
        return Some(error(libc::EINTR).with_class(ErrorClass::Unknown));
    }
    hits.iter().find_map(|hit| match hit.effect {
        Effect::Fail(errno) | Effect::FailAfter(errno) => Some(error(errno)),
        Effect::Bad => Some(error(libc::ENODATA)),
        _ => None,
    })
}

/// How many ops have to change the device before the op takes effect, if it does so after it
/// failed.
pub(super) fn late(hits: &[Hit]) -> Option<u64> {
    hits.iter().find_map(|hit| match hit.effect {
        Effect::Late(ops) => Some(ops),
        _ => None,
    })
}

/// Whether the op is not executed.
pub(super) fn prevented(hits: &[Hit], kind: OpKind) -> bool {
    hits.iter().any(|hit| match hit.effect {
        Effect::Fail(_) => true,
        Effect::Bad => kind != OpKind::Write,
        Effect::Lost => kind == OpKind::Flush,
        _ => false,
    })
}

/// How many reaps pass the op over.
pub(super) fn delay(hits: &[Hit]) -> u32 {
    let delays = hits.iter().map(|hit| match hit.effect {
        Effect::Delay(reaps) => reaps,
        _ => 0,
    });
    delays.max().unwrap_or(0)
}
