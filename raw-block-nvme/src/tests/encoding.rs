//! The fields of each command match the specification.

use std::time::Duration;

use raw_block_core::WriteOptions;
use raw_block_core::backend::OpKind;

use crate::command::{Command, Range};
use crate::limits::Limits;
use crate::translator::Translator;

/// The dwords of an entry that the kernel copies; 10 to 15 are those of the command.
fn dwords(command: Command) -> [u32; 20] {
    let bytes = command.to_entry();
    std::array::from_fn(|index| {
        u32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * index + byte]))
    })
}

#[test]
fn a_read_encodes_its_first_block_and_its_count_from_0() {
    let command = dwords(Command::read(5, 0x0000_0012_89AB_CDEF, 256).over(0x7000_1000, 131_072));
    assert_eq!(command[0], 0x02);
    assert_eq!(command[1], 5);
    assert_eq!((command[6], command[7]), (0x7000_1000, 0), "the address of the data");
    assert_eq!(command[9], 131_072, "their length");
    assert_eq!((command[10], command[11]), (0x89AB_CDEF, 0x12));
    assert_eq!(command[12], 255);
    assert_eq!(dwords(Command::read(5, 0, 1 << 16))[12], 0xFFFF);
}

#[test]
fn a_write_can_be_forced_and_placed() {
    let plain = dwords(Command::write(1, 8, 8));
    assert_eq!((plain[0], plain[12], plain[13]), (0x01, 7, 0), "no directive");
    assert_eq!(dwords(Command::write(1, 8, 8).forced())[12], 1 << 30 | 7);
    let placed = dwords(Command::write(1, 8, 8).placed(0x8003));
    assert_eq!((placed[12], placed[13]), (2 << 20 | 7, 0x8003 << 16));
}

#[test]
fn the_other_commands_have_their_opcodes() {
    let opcode = |command| dwords(command)[0];
    assert_eq!(opcode(Command::flush(1)), 0);
    assert_eq!(opcode(Command::write_zeroes(1, 0, 1)), 8);
    for (ranges, zero_based) in [(1, 0), (256, 255)] {
        let deallocate = dwords(Command::deallocate(1, ranges));
        assert_eq!((deallocate[0], deallocate[10], deallocate[11]), (9, zero_based, 4));
    }
    let identify = dwords(Command::identify(3, 6, 2));
    assert_eq!((identify[0], identify[1], identify[10], identify[11]), (6, 3, 6, 2 << 24));
    let handles = dwords(Command::reclaim_unit_handles(1, 4112));
    assert_eq!((handles[0], handles[10], handles[11]), (0x12, 1, 1027));
}

#[test]
fn without_a_volatile_cache_durable_writes_are_plain() {
    let translator = |volatile_write_cache| Translator {
        nsid: 1,
        offset: 0,
        limits: Limits {
            block: 512,
            transfer: 4096,
            write_zeroes: 4096,
            range: 4096,
            deallocate: 4096,
            pages: 2,
            gap_mask: 4095,
            boundary: 0,
        },
        volatile_write_cache,
        timeout: None,
        placement_ids: Vec::new(),
    };
    let durable = WriteOptions::new().durable(true);
    let command = |cache, kind| translator(cache).command(kind, durable, 0, 512);
    assert_eq!(command(true, OpKind::Flush), Some(Command::flush(1)));
    assert_eq!(command(false, OpKind::Flush), None, "no command");
    assert_eq!(command(true, OpKind::Write), Some(Command::write(1, 0, 1).forced()));
    assert_eq!(command(false, OpKind::Write), Some(Command::write(1, 0, 1)));
}

#[test]
fn a_timeout_is_in_milliseconds_and_never_0_by_accident() {
    let timeout = |after| dwords(Command::flush(1).timing_out(after))[16];
    assert_eq!(timeout(Duration::from_secs(2)), 2000);
    assert_eq!(timeout(Duration::from_micros(1)), 1);
    assert_eq!(dwords(Command::flush(1))[16], 0, "the driver's own");
}

#[test]
fn a_range_counts_its_blocks_from_1() {
    let range = Range::new(0x0102_0304_0506, 9);
    // SAFETY: a range is 16 bytes.
    let bytes: [u8; 16] = unsafe { std::mem::transmute(range) };
    assert_eq!(bytes[..8], [0, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(bytes[8..], [6, 5, 4, 3, 2, 1, 0, 0]);
}
