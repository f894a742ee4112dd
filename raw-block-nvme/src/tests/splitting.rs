//! For any op and limits, the commands cover the op exactly once, in range, and none is too large.

use std::collections::VecDeque;

use libc::iovec;
use proptest::prelude::*;
use raw_block_core::backend::OpKind;
use raw_block_core::{AlignedBuf, WriteOptions};

use super::controller::{FakeController, pattern};
use crate::in_flight::{Part, Segments};
use crate::limits::{Limits, Position};
use crate::translator::Translator;

/// Blocks of the namespace.
const BLOCKS: u64 = 560;

/// An op, the limits at which it is split, and its memory.
#[derive(Clone, Debug)]
struct Case {
    kind: OpKind,
    block: u64,
    /// In blocks like all following lengths, except the exponent of `transfer`.
    offset: u64,
    start: u64,
    transfer: u32,
    write_zeroes: u64,
    range: u64,
    deallocate: u64,
    boundary: u64,
    pages: u64,
    gap_mask: u64,
    /// The length of each segment in blocks, and the offset of its address in a page; `None`: it
    /// follows the previous one.
    segments: Vec<(u64, Option<u64>)>,
    /// Which commands the kernel rejects.
    rejected: Vec<bool>,
}

fn cases() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        4 => Just(OpKind::Read),
        4 => Just(OpKind::Write),
        1 => Just(OpKind::WriteZeroes),
        1 => Just(OpKind::Discard),
    ];
    let place = (kind, prop_oneof![Just(512), Just(4096)], 0..64_u64, 0..300_u64);
    let boundary = prop_oneof![Just(0), 1..40_u64];
    let gap_mask = prop_oneof![2 => Just(4095), 1 => Just(511), 1 => Just(0)];
    let deallocate = (1..400_u64, 1..=256_u64, 1..400_u64)
        .prop_map(|(range, ranges, total)| (range, total.min(range * ranges)));
    let limits = (0..6_u32, 1..200_u64, deallocate, boundary, 2..40_u64, gap_mask);
    let off = prop_oneof![
        3 => Just(Some(0)),
        1 => Just(None),
        2 => (0..1024_u64).prop_map(|off| Some(4 * off)),
        1 => (0..8_u64).prop_map(|off| Some(512 * off)),
    ];
    let segments = prop::collection::vec((1..14_u64, off), 1..14);
    let rejected = prop::collection::vec(prop::bool::weighted(0.2), 0..20);
    (place, limits, segments, rejected).prop_map(|(place, limits, segments, rejected)| {
        let (kind, block, offset, start) = place;
        let (transfer, write_zeroes, (range, deallocate), boundary, pages, gap_mask) = limits;
        Case {
            kind,
            block,
            offset,
            start,
            transfer,
            write_zeroes,
            range,
            deallocate,
            boundary,
            pages,
            gap_mask,
            segments,
            rejected,
        }
    })
}

/// Lays the segments out in `memory`.
fn lay_out(case: &Case, memory: &mut AlignedBuf) -> Vec<iovec> {
    let base = memory.as_mut_ptr();
    let mut at = 0_usize;
    case.segments
        .iter()
        .map(|&(blocks, off)| {
            if let Some(off) = off {
                at = at.next_multiple_of(4096) + off as usize;
            }
            let iov_len = (blocks * case.block) as usize;
            let iov_base = base.wrapping_add(at).cast();
            at += iov_len;
            assert!(at <= memory.len());
            iovec { iov_base, iov_len }
        })
        .collect()
}

/// The concatenated bytes of the segments.
fn gathered(memory: &AlignedBuf, segments: &[iovec]) -> Vec<u8> {
    let base = memory.as_ptr() as usize;
    let parts = segments.iter().map(|segment| {
        let at = segment.iov_base as usize - base;
        &memory[at..at + segment.iov_len]
    });
    parts.flatten().copied().collect()
}

/// A controller with the limits of the case, and the translator for it.
fn set_up(case: &Case) -> (FakeController, Translator) {
    let block = case.block;
    let mut controller = FakeController::new(BLOCKS, block);
    let limits = Limits {
        block,
        transfer: block << case.transfer,
        write_zeroes: case.write_zeroes * block,
        range: case.range * block,
        deallocate: case.deallocate * block,
        pages: case.pages,
        gap_mask: case.gap_mask,
        boundary: case.boundary * block,
    };
    controller.most = limits.transfer;
    controller.most_zeroes = limits.write_zeroes;
    controller.most_of_range = limits.range;
    controller.most_deallocated = limits.deallocate;
    controller.pages = limits.pages;
    controller.gap_mask = limits.gap_mask;
    controller.boundary = limits.boundary;
    let translator = Translator {
        nsid: controller.nsid,
        offset: case.offset * block,
        limits,
        volatile_write_cache: true,
        timeout: None,
        placement_ids: Vec::new(),
    };
    (controller, translator)
}

/// Executes the commands of an op of `len` bytes on these segments.
fn execute(
    case: &Case,
    controller: &mut FakeController,
    translator: &Translator,
    segments: &[iovec],
    len: u64,
) {
    let kind = case.kind;
    let mut waiting = VecDeque::from([Part {
        op: 0,
        offset: case.start * case.block,
        len,
        from: Position::default(),
        max_command: translator.max_command(kind),
        halved: false,
    }]);
    let mut rejected = case.rejected.iter();
    while let Some(part) = waiting.pop_front() {
        let mut list = Segments::default();
        let (front, rest) = translator.cut(kind, segments, part, &mut list);
        assert!(front.len > 0, "no progress");
        if rest.len > 0 {
            waiting.push_front(rest);
        }
        if rejected.next() == Some(&true)
            && let Some(halved) = translator.halved(front)
        {
            waiting.push_front(halved);
            continue;
        }
        let options = WriteOptions::new();
        let command = translator.command(kind, options, front.offset, front.len).unwrap();
        let ranges = translator.ranges(front.offset, front.len);
        let command = match (kind, list.0.as_slice()) {
            (OpKind::Discard, []) => {
                command.over(ranges.as_ptr() as usize, size_of_val(&ranges[..]))
            }
            (_, []) => command,
            (_, [one]) => command.over(one.iov_base as usize, one.iov_len),
            (_, list) => command.over(list.as_ptr() as usize, list.len()),
        };
        // SAFETY: the memory belongs to the op, and nothing else uses it during the call.
        unsafe { controller.execute(&command.to_entry(), list.0.len() > 1) };
    }
}

fn check(case: &Case) {
    let Case { kind, block, .. } = *case;
    let (mut controller, translator) = set_up(case);
    let mut memory = AlignedBuf::zeroed(1 << 20).unwrap();
    let len = memory.len();
    memory.copy_from_slice(&pattern(4111, len));
    let segments = lay_out(case, &mut memory);
    let sent = gathered(&memory, &segments);
    let before = controller.image.clone();
    let first = ((case.offset + case.start) * block) as usize;
    let range = first..first + sent.len();

    execute(case, &mut controller, &translator, &segments, sent.len() as u64);

    for (number, &times) in (0_u64..).zip(&controller.covered) {
        let inside = range.contains(&((number * block) as usize));
        assert_eq!(times, u32::from(inside), "block {number}");
    }
    let mut expected = before;
    match kind {
        OpKind::Write => expected[range].copy_from_slice(&sent),
        OpKind::WriteZeroes => expected[range].fill(0),
        _ => assert!(kind != OpKind::Read || gathered(&memory, &segments) == expected[range]),
    }
    assert!(controller.image == expected, "the contents of the device");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn commands_cover_their_op_exactly_and_none_is_too_large(case in cases()) {
        check(&case);
    }
}

#[test]
fn an_op_that_fits_is_one_command() {
    let limits = Limits {
        block: 512,
        transfer: 128 << 10,
        write_zeroes: 1 << 20,
        range: 1 << 30,
        deallocate: 1 << 30,
        pages: 33,
        gap_mask: 4095,
        boundary: 0,
    };
    let buffer = AlignedBuf::zeroed(256 << 10).unwrap();
    let segment = |at: usize, iov_len| iovec {
        iov_base: buffer.as_ptr().wrapping_add(at).cast_mut().cast(),
        iov_len,
    };
    // A header in one page, a payload in pages that do not follow it, and a short tail.
    for segments in [
        vec![segment(0, 128 << 10)],
        vec![segment(16 << 10, 4096), segment(0, 8192), segment(64 << 10, 512)],
        vec![segment(512, 3584), segment(8192, 124 << 10)],
        vec![segment(512, 512), segment(1024, 512)],
    ] {
        let len = segments.iter().map(|segment| segment.iov_len as u64).sum();
        let mut count = 0;
        let take = |_| count += 1;
        let (taken, end) =
            limits.cut(0, len, limits.transfer, &segments, Position::default(), take);
        assert_eq!((taken, count), (len, segments.len()));
        assert_eq!(end, Position { segment: segments.len(), skip: 0 });
    }
}
