//! The ops that the kernel has: a slab whose index travels as the user data of the ring.

use raw_block_core::Op;

/// How often one op is issued again after an error that may pass, before it is given up.
const MAX_TRIES: u32 = 16;

/// A table of ops in flight. Its size is fixed, so nothing allocates once it is made.
#[derive(Debug)]
pub(crate) struct Slots {
    ops: Vec<Option<InFlight>>,
    free: Vec<u32>,
}

/// An op that the kernel has, or is about to get.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) op: Op,
    tries: u32,
    advanced: bool,
    /// Whether write-zeroes is to punch a hole, because the file system has nothing better.
    pub(crate) punches: bool,
}

impl InFlight {
    /// Counts another attempt; `false` when there have been too many without progress.
    pub(crate) fn try_again(&mut self) -> bool {
        self.tries += 1;
        self.tries <= MAX_TRIES
    }

    /// Notes that some bytes were moved.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.op.advance(bytes);
        self.tries = 0;
        self.advanced = true;
    }

    /// Whether a part of the op was carried out before.
    pub(crate) fn has_advanced(&self) -> bool {
        self.advanced
    }
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { ops: (0..capacity).map(|_| None).collect(), free: (0..capacity).rev().collect() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn in_use(&self) -> usize {
        self.ops.len() - self.free.len()
    }

    /// Keeps `op`, under the index that is returned; gives it back when every slot is taken.
    pub(crate) fn insert(&mut self, op: Op) -> Result<(u32, &InFlight), Op> {
        let Some(index) = self.free.pop() else { return Err(op) };
        let slot = &mut self.ops[index as usize];
        Ok((index, slot.insert(InFlight { op, tries: 0, advanced: false, punches: false })))
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut InFlight> {
        self.ops.get_mut(index as usize)?.as_mut()
    }

    /// Takes out an op that is over.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Op> {
        let taken = self.ops.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(taken.op)
    }
}
