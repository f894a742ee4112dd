//! Translates ops into commands.

use std::time::Duration;

use libc::iovec;
use raw_block_core::WriteOptions;
use raw_block_core::backend::OpKind;

use crate::command::{Command, Range};
use crate::in_flight::{Part, Segments};
use crate::limits::{Limits, Position};

/// Makes the commands for ops on a part of a namespace. Does no I/O.
#[derive(Clone, Debug)]
pub(crate) struct Translator {
    pub(crate) nsid: u32,
    /// The first byte of the part on the namespace.
    pub(crate) offset: u64,
    pub(crate) limits: Limits,
    pub(crate) volatile_write_cache: bool,
    pub(crate) timeout: Option<Duration>,
    /// Indexed by placement handle.
    pub(crate) placement_ids: Vec<u16>,
}

impl Translator {
    /// The longest command for an op of this kind, in bytes.
    pub(crate) fn max_command(&self, kind: OpKind) -> u64 {
        match kind {
            OpKind::Read | OpKind::Write => self.limits.transfer,
            OpKind::WriteZeroes => self.limits.write_zeroes,
            OpKind::Discard => self.limits.deallocate,
            OpKind::Flush => 0,
        }
    }

    /// Splits a part into what one command executes, and the rest. The segments of the command,
    /// from the op's `memory`, go to `segments`.
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
            self.limits.cut(offset, part.len, part.max_command, memory, part.from, take)
        } else {
            // The optimal boundary only concerns reads and writes.
            (part.len.min(part.max_command), Position::default())
        };
        let rest = Part { offset: part.offset + len, len: part.len - len, from, ..part };
        (Part { len, ..part }, rest)
    }

    /// The same part, for commands of half its length; `None` if it was halved before.
    pub(crate) fn halved(&self, part: Part) -> Option<Part> {
        let max_command = (part.len / 2).next_multiple_of(self.limits.block);
        (!part.halved && max_command < part.len).then_some(Part {
            max_command,
            halved: true,
            ..part
        })
    }

    /// The command for a range, in bytes as ops count; `None` if there is nothing to do.
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
        // Without a volatile write cache every write is durable.
        if options.durable && self.volatile_write_cache {
            command = command.forced();
        }
        let handle = options.placement.map(usize::from);
        match handle.and_then(|handle| self.placement_ids.get(handle)) {
            Some(&id) => command.placed(id),
            None => command,
        }
    }

    /// The ranges of the Dataset Management command for a range, in bytes as ops count.
    pub(crate) fn ranges(&self, offset: u64, len: u64) -> Vec<Range> {
        let max = self.limits.range;
        let count = len.div_ceil(max);
        let range = |number| {
            let before = number * max;
            let (start, blocks) = self.blocks(offset + before, max.min(len - before));
            // `limits.range` is at most `u32::MAX` blocks.
            Range::new(start, u32::try_from(blocks).unwrap_or(u32::MAX))
        };
        (0..count).map(range).collect()
    }

    /// The first block on the namespace, and the number of blocks.
    fn blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        ((self.offset + offset) / self.limits.block, len / self.limits.block)
    }
}
