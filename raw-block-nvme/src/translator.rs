//! From an op to the commands that carry it out.

use std::time::Duration;

use libc::iovec;
use raw_block_core::WriteOptions;
use raw_block_core::backend::OpKind;

use crate::command::{Command, Range};
use crate::in_flight::{Part, Segments};
use crate::limits::{Limits, Position};

/// Makes the commands for ops on a part of a namespace. It does no I/O.
#[derive(Clone, Debug)]
pub(crate) struct Translator {
    pub(crate) nsid: u32,
    /// Where on the namespace the part begins, in bytes.
    pub(crate) offset: u64,
    pub(crate) limits: Limits,
    pub(crate) volatile_write_cache: bool,
    pub(crate) timeout: Option<Duration>,
    /// By handle, as ops count them.
    pub(crate) placement_ids: Vec<u16>,
}

impl Translator {
    /// The longest command for an op of this kind, in bytes.
    pub(crate) fn longest(&self, kind: OpKind) -> u64 {
        match kind {
            OpKind::Read | OpKind::Write => self.limits.transfer,
            OpKind::WriteZeroes => self.limits.write_zeroes,
            OpKind::Discard => self.limits.deallocate,
            OpKind::Flush => 0,
        }
    }

    /// Cuts off the front of a part what one command carries, whose segments of the op's `memory` go to `segments`.
    /// Returns it, and what is left.
    pub(crate) fn cut(
        &self,
        kind: OpKind,
        memory: &[iovec],
        part: Part,
        segments: &mut Segments,
    ) -> (Part, Part) {
        let offset = self.offset + part.offset;
        let (len, from) = if kind.transfers() {
            let take = |segment| segments.push(segment);
            self.limits.cut(offset, part.len, part.most, memory, part.from, take)
        } else {
            // The boundary is one of reads and writes.
            (part.len.min(part.most), Position::default())
        };
        let rest = Part { offset: part.offset + len, len: part.len - len, from, ..part };
        (Part { len, ..part }, rest)
    }

    /// The same part, to be carried out by commands of half its length, if that was not tried yet.
    pub(crate) fn halved(&self, part: Part) -> Option<Part> {
        let most = (part.len / 2).next_multiple_of(self.limits.block);
        (!part.halved && most < part.len).then_some(Part { most, halved: true, ..part })
    }

    /// The command for a range of the device, as ops count it; none where there is nothing to do.
    pub(crate) fn command(
        &self,
        kind: OpKind,
        options: WriteOptions,
        offset: u64,
        len: u64,
    ) -> Option<Command> {
        let nsid = self.nsid;
        let (start, blocks) = self.blocks(offset, len);
        let command = match kind {
            OpKind::Read => Command::read(nsid, start, blocks),
            OpKind::Write => self.write(options, start, blocks),
            OpKind::WriteZeroes => Command::write_zeroes(nsid, start, blocks),
            OpKind::Discard => Command::deallocate(nsid, len.div_ceil(self.limits.range)),
            OpKind::Flush if !self.volatile_write_cache => return None,
            OpKind::Flush => Command::flush(nsid),
        };
        Some(match self.timeout {
            Some(timeout) => command.timing_out(timeout),
            None => command,
        })
    }

    fn write(&self, options: WriteOptions, start: u64, blocks: u64) -> Command {
        let mut command = Command::write(self.nsid, start, blocks);
        // Without a volatile cache every write is durable.
        if options.durable && self.volatile_write_cache {
            command = command.forced();
        }
        let handle = options.placement.map(usize::from);
        match handle.and_then(|handle| self.placement_ids.get(handle)) {
            Some(&id) => command.placed(id),
            None => command,
        }
    }

    /// The ranges of the Dataset Management command for a range of the device, as ops count it.
    pub(crate) fn ranges(&self, offset: u64, len: u64) -> Vec<Range> {
        let most = self.limits.range;
        let count = len.div_ceil(most);
        let range = |number| {
            let before = number * most;
            let (start, blocks) = self.blocks(offset + before, most.min(len - before));
            // Limited to as much.
            Range::new(start, u32::try_from(blocks).unwrap_or(u32::MAX))
        };
        (0..count).map(range).collect()
    }

    /// The first block on the namespace, and how many.
    fn blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        ((self.offset + offset) / self.limits.block, len / self.limits.block)
    }
}
