//! A device in memory whose ops can be made to fail, before or after they took effect.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use raw_block_core::Geometry;
use raw_block_core::backend::{Completion, IoBackend, Op, OpKind};

use super::fake;

/// What happens to an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// It fails and has no effect.
    Failed,
    /// It took effect and fails all the same: only its completion was lost.
    FailedButDone,
}

type Rule = Box<dyn FnMut(&Op) -> Fate + Send>;

#[derive(Clone)]
pub(crate) struct Faulty(Arc<Device>);

struct Device {
    geometry: Geometry,
    bytes: Mutex<Vec<u8>>,
    rule: Mutex<Rule>,
    /// Called during each flush, without a lock.
    in_flush: Mutex<Arc<dyn Fn() + Send + Sync>>,
}

impl Faulty {
    pub(crate) fn new(len: usize) -> Self {
        Self::holding(vec![0; len])
    }

    /// A device with these contents, without faults.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Device {
            geometry: Geometry::new(bytes.len() as u64, 512).unwrap(),
            bytes: Mutex::new(bytes),
            rule: Mutex::new(Box::new(|_| Fate::Done)),
            in_flush: Mutex::new(Arc::new(|| ())),
        }))
    }

    /// The contents of the device.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.bytes.lock().unwrap().clone()
    }

    /// From now on `rule` decides about each op.
    pub(crate) fn rule(&self, rule: impl FnMut(&Op) -> Fate + Send + 'static) {
        *self.0.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// From now on ops of this kind that touch the byte at `offset` fail.
    pub(crate) fn fail_at(&self, kind: OpKind, offset: u64) {
        self.fail_within(kind, std::slice::from_ref(&(offset..offset + 1)));
    }

    /// From now on ops of this kind that touch one of these ranges fail.
    pub(crate) fn fail_within(&self, kind: OpKind, ranges: &[Range<u64>]) {
        let ranges = ranges.to_vec();
        self.rule(move |op| {
            let (start, end) = (op.offset(), op.offset() + op.len());
            let touches = ranges.iter().any(|range| start < range.end && range.start < end);
            if op.kind() == kind && touches { Fate::Failed } else { Fate::Done }
        });
    }

    /// From now on each flush calls `hold` before it completes.
    pub(crate) fn during_flush(&self, hold: impl Fn() + Send + Sync + 'static) {
        *self.0.in_flush.lock().unwrap() = Arc::new(hold);
    }

    pub(crate) fn backend(&self) -> Arc<dyn IoBackend> {
        fake::backend(Arc::clone(&self.0))
    }
}

impl fake::Device for Device {
    const NAME: &'static str = "a faulty device";

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn execute(&self, mut op: Op) -> Completion {
        let fate = (self.rule.lock().unwrap_or_else(PoisonError::into_inner))(&op);
        if op.kind() == OpKind::Flush {
            let hold = Arc::clone(&self.in_flush.lock().unwrap());
            hold();
        }
        if fate != Fate::Failed {
            carry_out(&mut self.bytes.lock().unwrap(), &mut op);
        }
        let error = io::Error::from_raw_os_error(libc::EIO);
        if fate == Fate::Done { op.complete() } else { op.fail(error) }
    }
}

/// Moves the bytes of a transfer.
pub(crate) fn carry_out(bytes: &mut [u8], op: &mut Op) {
    let mut at = usize::try_from(op.offset()).unwrap();
    for slice in op.source() {
        bytes[at..at + slice.len()].copy_from_slice(slice);
        at += slice.len();
    }
    for slice in op.destination() {
        slice.copy_from_slice(&bytes[at..at + slice.len()]);
        at += slice.len();
    }
}
