//! Device faults that a scenario injects.

use std::ops::Range;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;

use super::focus::Focus;
use super::model::Context;
use super::target::Layout;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Injects faults: a write or a flush that fails with or without effect, a failed write that takes
/// effect later, or, in some incarnations, a read that returns other bytes.
pub(super) fn inject(context: &Context<'_>, client: char, random: &mut fastrand::Rng) {
    let faults = match context.focus {
        Focus::Opened => segment_headers(context.layout, random),
        Focus::Retries if random.u8(..3) == 0 => segment_headers(context.layout, random),
        Focus::Slow if random.bool() => burst(context.layout, random),
        Focus::Retries => burst(context.layout, random),
        Focus::Headers => checkpoint_headers(context.layout, random),
        Focus::Misreads if random.bool() => {
            vec![DeviceFault::flip_bit(None).within(context.layout.segments.clone())]
        }
        Focus::Tables => late_tables(context.layout, random),
        Focus::Reserve if random.bool() => no_space(context.layout, random),
        Focus::Reserve if random.bool() => late_slots(context.layout, random),
        _ => return inject_one(context, client, random),
    };
    context.note(client, || format!("injected from here: {faults:?}"));
    context.trouble();
    faults.into_iter().for_each(|fault| context.device.inject(fault));
}

/// A write that fails, with or without effect.
fn failing(random: &mut fastrand::Rng) -> DeviceFault {
    if random.bool() {
        DeviceFault::fail(OpKind::Write, EIO)
    } else {
        DeviceFault::fail_after(OpKind::Write, EIO)
    }
}

/// Consecutive writes to segments that fail.
fn burst(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let lands = !random.bool();
    let first = random.u64(1..6);
    let errno = if first.is_multiple_of(3) { ENOSPC } else { EIO };
    let fail = if lands { DeviceFault::fail_after } else { DeviceFault::fail };
    let fault = fail(OpKind::Write, errno).within(layout.segments.clone());
    (first..first + random.u64(1..7)).map(|nth| fault.clone().nth(nth)).collect()
}

/// In each segment, the next write of its header fails.
fn segment_headers(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let fault = failing(random).nth(1);
    let of = |segment| fault.clone().within(layout.blocks_of_segment(segment, 0..1));
    (0..layout.shape.segments).map(of).collect()
}

/// The header of a checkpoint fails, perhaps its destruction too, and perhaps the body of another
/// checkpoint.
fn checkpoint_headers(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let container = random.usize(..3);
    let header = layout.blocks_of_container(container, true);
    let fault = match random.u8(..8) {
        0 => DeviceFault::late_write(random.u64(1..60)),
        1 => DeviceFault::fail(OpKind::Write, EIO),
        _ => DeviceFault::fail_after(OpKind::Write, EIO),
    };
    let mut faults = vec![fault.within(header.clone()).nth(1)];
    if random.bool() {
        faults.push(failing(random).within(header).nth(2));
    }
    if random.u8(..4) > 0 {
        let other = (container + random.usize(1..3)) % 3;
        let range = layout.blocks_of_container(other, random.bool());
        faults.push(failing(random).within(range).nth(random.u64(1..3)));
    }
    faults
}

/// Tables whose writes take effect late.
fn late_tables(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let blocks = layout.shape.segment_blocks;
    let fault = DeviceFault::late_write(random.u64(5..60)).nth(1);
    let of = |segment| fault.clone().within(layout.blocks_of_segment(segment, blocks - 1..blocks));
    (0..layout.shape.segments).map(of).collect()
}

/// The file system below the device is full: consecutive writes to segments fail.
fn no_space(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let fault = DeviceFault::fail(OpKind::Write, ENOSPC).within(layout.segments.clone());
    let first = random.u64(1..5);
    (first..first + random.u64(3..9)).map(|nth| fault.clone().nth(nth)).collect()
}

/// Consecutive writes to segments take effect late.
fn late_slots(layout: &Layout, random: &mut fastrand::Rng) -> Vec<DeviceFault> {
    let fault = DeviceFault::late_write(random.u64(1..60)).within(layout.segments.clone());
    let first = random.u64(1..5);
    (first..first + random.u64(1..4)).map(|nth| fault.clone().nth(nth)).collect()
}

/// Injects one fault.
fn inject_one(context: &Context<'_>, client: char, random: &mut fastrand::Rng) {
    let nth = random.u64(1..8);
    let (what, fault) = if context.model().misreads && random.bool() {
        ("read", misread(context.layout, random))
    } else {
        let is_flush = random.u8(..8) == 0;
        let (what, kind) =
            if is_flush { ("flush", OpKind::Flush) } else { ("write", OpKind::Write) };
        let errno = if random.u8(..6) == 0 { ENOSPC } else { EIO };
        let fault = match random.u8(..if is_flush { 2 } else { 4 }) {
            0 | 3 => DeviceFault::fail(kind, errno),
            1 => DeviceFault::fail_after(kind, errno),
            _ => DeviceFault::late_write(random.u64(1..60)),
        };
        (what, fault)
    };
    let in_checkpoints = context.focus == Focus::Checkpoints && what == "write";
    let fault = if in_checkpoints && random.u8(..4) > 0 {
        fault.within(context.layout.containers.clone())
    } else {
        fault
    };
    context.note(client, || format!("{what} number {nth} from here is injected: {fault:?}"));
    context.trouble();
    // Some reads fail permanently.
    let always = what == "read" && random.bool();
    context.device.inject(if always { fault } else { fault.nth(nth) });
}

/// Reads of some blocks that fail or return other bytes.
fn misread(layout: &Layout, random: &mut fastrand::Rng) -> DeviceFault {
    let [place, other] = [(); 2].map(|()| blocks(layout, &layout.segments, 8, random));
    let fault = match random.u8(..6) {
        0 => DeviceFault::fail(OpKind::Read, EIO),
        1 | 2 => DeviceFault::flip_bit(None),
        3 => DeviceFault::zeroed(),
        4 => DeviceFault::old_version(),
        _ => DeviceFault::other_block(other.start),
    };
    fault.within(place)
}

/// Draws byte ranges in which all writes fail.
pub(super) fn bad_ranges(layout: &Layout, random: &mut fastrand::Rng) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for _ in 0..random.usize(1..3) {
        let area = if random.u8(..3) == 0 { &layout.containers } else { &layout.segments };
        ranges.push(blocks(layout, area, 4, random));
    }
    ranges
}

/// Draws a byte range of at most `most` blocks.
fn blocks(layout: &Layout, area: &Range<u64>, most: u64, random: &mut fastrand::Rng) -> Range<u64> {
    let block = u64::from(layout.shape.block_size);
    let first = random.u64(..(area.end - area.start) / block);
    let start = area.start + first * block;
    start..(start + random.u64(1..=most) * block).min(area.end)
}

/// Injects the permanent write faults.
pub(super) fn inject_bad_ranges(context: &Context<'_>) {
    for range in context.bad {
        context.trouble();
        context.device.inject(DeviceFault::bad_medium(OpKind::Write).within(range.clone()));
    }
}
