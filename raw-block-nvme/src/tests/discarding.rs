//! Discards become as few commands as any limits of Dataset Management allow.

use proptest::prelude::*;
use raw_block_core::WriteOptions;
use raw_block_core::backend::OpKind;

use super::controller::ranges;
use super::identifying::{namespace, page};
use crate::identify::{Controller, Namespace};
use crate::in_flight::{Part, Segments};
use crate::limits::{Limits, Position};
use crate::translator::Translator;

/// The limits of Dataset Management that a controller reports; 0: no limit.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// The most ranges of a command (DMRL).
    ranges: u8,
    /// The most blocks of a range (DMRSL).
    range: u32,
    /// The most blocks of a command (DMSL).
    total: u64,
    /// Optimal boundary of reads and writes, in blocks (NOIOB).
    boundary: u16,
}

const NOTHING: Reported = Reported { ranges: 0, range: 0, total: 0, boundary: 0 };

/// The ranges of each command for `len` blocks of 512 bytes from block `start` on.
fn commands(reported: Reported, offset: u64, start: u64, len: u64) -> Vec<Vec<(u64, u64)>> {
    const BLOCK: u64 = 512;
    let specific = page(&[
        (3, &[reported.ranges]),
        (4, &reported.range.to_le_bytes()),
        (8, &reported.total.to_le_bytes()),
    ]);
    let controller = Controller::parse(&page(&[]), Some(&specific));
    let page = namespace(9, &[(46, &reported.boundary.to_le_bytes())]);
    let limits =
        Limits::new(&controller, &Namespace::parse(1, &page).unwrap(), None, None).unwrap();
    let translator = Translator {
        nsid: 1,
        offset: offset * BLOCK,
        limits,
        volatile_write_cache: true,
        timeout: None,
        placement_ids: Vec::new(),
    };
    let (kind, from) = (OpKind::Discard, Position::default());
    let most = translator.max_command(kind);
    let (offset, len) = (start * BLOCK, len * BLOCK);
    let mut rest = Part { op: 0, offset, len, from, max_command: most, halved: false };
    let mut commands = Vec::new();
    while rest.len > 0 {
        let (front, behind) = translator.cut(kind, &[], rest, &mut Segments::default());
        let list = translator.ranges(front.offset, front.len);
        let command = translator.command(kind, WriteOptions::new(), front.offset, front.len);
        let entry = command.unwrap().over(list.as_ptr() as usize, size_of_val(&list[..]));
        // SAFETY: the command names the list.
        commands.push(unsafe { ranges(&entry.to_entry()) });
        rest = behind;
    }
    commands
}

fn limit<T: PartialEq + From<u8>>(limit: T, none: T) -> T {
    if limit == 0.into() { none } else { limit }
}

fn reports() -> impl Strategy<Value = Reported> {
    let ranges = prop_oneof![Just(0), Just(1), any::<u8>()];
    let range = prop_oneof![Just(0), 1..100_u32, any::<u32>(), Just(u32::MAX)];
    let total = prop_oneof![Just(0), 1..10_000_u64, 1..1_u64 << 40, Just(u64::MAX)];
    let boundary = prop_oneof![Just(0), any::<u16>()];
    (ranges, range, total, boundary).prop_map(|(ranges, range, total, boundary)| Reported {
        ranges,
        range,
        total,
        boundary,
    })
}

proptest! {
    #[test]
    fn a_discard_is_covered_once_by_the_fewest_commands_allowed(
        reported in reports(),
        offset in 0..1_u64 << 40,
        start in 0..1_u64 << 40,
        // The number of commands, and the length of the last one in thousandths.
        (count, last) in (1..6_u64, 1..=1000_u64),
    ) {
        let range = u64::from(limit(reported.range, u32::MAX));
        let most_ranges = limit(u64::from(reported.ranges), 256);
        let most = limit(reported.total, u64::MAX).min(range * most_ranges);
        let len = (count - 1) * most + (most * last / 1000).max(1);
        let commands = commands(reported, offset, start, len);
        prop_assert_eq!(commands.len() as u64, count);
        let mut at = offset + start;
        for list in &commands {
            let total: u64 = list.iter().map(|(_, blocks)| blocks).sum();
            prop_assert!(total <= most && list.len() as u64 <= most_ranges);
            prop_assert_eq!(list.len() as u64, total.div_ceil(range), "no more ranges than needed");
            for &(start, blocks) in list {
                prop_assert!(start == at && (1..=range).contains(&blocks));
                at += blocks;
            }
        }
        prop_assert_eq!(at, offset + start + len);
    }
}

#[test]
fn a_discard_of_a_tebibyte_ignores_the_optimal_boundary() {
    let blocks = (1 << 40) / 512;
    // The boundary of many drives: 128 KiB.
    let reported = Reported { boundary: 256, ..NOTHING };
    assert_eq!(commands(reported, 0, 100, blocks), [[(100, blocks)]]);
    // Ranges of 1 GiB, 256 per command.
    let reported = Reported { range: (1 << 30) / 512, ..reported };
    let counts: Vec<_> = commands(reported, 0, 0, blocks).iter().map(Vec::len).collect();
    assert_eq!(counts, [256; 4]);
}
