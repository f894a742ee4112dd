//! The space of a store without a device: an index of keys, and what the other wings do with the
//! space.

mod cases;
mod checkpoints;
mod clears;
mod drains;
mod rough;
mod simulation;
mod tasks;
mod victims;

use super::segment::{Fill, Live, Segment, SegmentState};
use super::*;
use crate::format::Entry;
use crate::mutant::Mutant;
use crate::state::index::{Located, Place};

const BLOCK: u32 = 4096;

/// The lengths of an object of this number of blocks, including its own header: 1 is one with an
/// inline payload. `sharing` of them share a header.
fn demand(blocks: u32, sharing: u32) -> Demand {
    let names = match sharing {
        36 => 63,
        _ => 4016 / sharing - 48,
    };
    Demand { names, payload_len: if blocks == 1 { 100 } else { (blocks - 1) * BLOCK } }
}

fn shape(segments: u32, segment_blocks: u32) -> Shape {
    Shape::new(segments, segment_blocks, BLOCK)
}

fn space(segments: u32, segment_blocks: u32, eviction: EvictionPolicy) -> Space {
    let committed = CommittedCheckpoint { number: 1, covered: 0 };
    Space::new(shape(segments, segment_blocks), eviction, committed, 1)
}

/// The object of a key, as the index shows it.
fn located(segment: u32, object: &AllocatedObject, key: u64) -> Located {
    let mut entry = Entry::EMPTY;
    entry.key_hash[..8].copy_from_slice(&key.to_le_bytes());
    entry.sequence = object.sequence.into();
    entry.payload_len = object.demand.payload_len.into();
    entry.key_len = u16::try_from(object.demand.names).unwrap().into();
    entry.block = object.block.into();
    entry.blocks_back = object.blocks_back.into();
    Located { place: Place { segment, number: object.number }, entry }
}

/// Allocates a batch and reports the headers of opened segments as written.
fn allocate(space: &mut Space, demands: &[Demand]) -> Result<Allocation, Shortage> {
    let (mut batch, mut out) = (Batch::default(), Allocation::default());
    batch.fill(&space.shape, demands.iter().copied());
    let result = space.allocate(&mut batch, &mut out);
    write_headers(space, &out);
    result.map(|()| out)
}

fn write_headers(space: &mut Space, out: &Allocation) {
    for opened in out.slots.iter().filter_map(|slot| slot.opened) {
        space.header_written(&opened, true);
    }
}

/// Publishes everything of an allocation; returns where it is.
fn publish(space: &mut Space, out: &Allocation, dropped: &[Located]) -> Vec<Located> {
    let mut shown = Vec::new();
    for slot in &out.slots {
        let objects = out.objects_of(slot);
        space.published(slot, objects, objects.iter().map(|_| Outcome::Shown), &[]);
        shown.extend(objects.iter().map(|object| located(slot.segment, object, 0)));
    }
    space.drop_objects(dropped);
    shown
}

/// Puts a batch; returns where it is.
fn put(space: &mut Space, demands: &[Demand]) -> Result<Vec<Located>, Shortage> {
    let out = allocate(space, demands)?;
    Ok(publish(space, &out, &[]))
}

/// Takes a checkpoint that succeeds, and frees what drains.
fn checkpoint(space: &mut Space, purpose: CheckpointPurpose) -> CheckpointPlan {
    let chosen = space.plan_checkpoint(purpose).unwrap();
    space.end_copy();
    let number = space.committed().number + 1;
    space.commit_checkpoint(&chosen, number);
    for &released in &chosen.released {
        space.emptied(released);
    }
    free(space);
    chosen
}

fn free(space: &mut Space) -> Vec<u32> {
    let drained = space.take_drained();
    drained.iter().for_each(|&segment| space.freed(segment));
    drained
}

/// What must always hold.
fn check(space: &Space) {
    let shape = &space.shape;
    for stream in Stream::ALL {
        assert!(space.open_in(stream).len() <= shape.open_limit());
        for &open in space.open_in(stream) {
            let segment = &space.segments[open as usize];
            assert_eq!((segment.state, segment.stream), (SegmentState::Open, stream));
        }
    }
    let mut free: Vec<u32> = space.free.iter().copied().collect();
    free.sort_unstable();
    let is_free = |&(_, of): &(u32, &Segment)| of.state == SegmentState::Free;
    assert!(free.iter().copied().eq(space.numbered().filter(is_free).map(|(number, _)| number)));
    let open = space.segments.iter().filter(|of| of.state == SegmentState::Open).count();
    assert_eq!(open, space.open.iter().flatten().chain(&space.ahead).count());
    let draining = space.segments.iter().filter(|of| of.state == SegmentState::Draining).count();
    assert_eq!(draining, space.draining.len() + space.releasing);
    for (number, segment) in space.numbered() {
        let Fill { next_block, entries } = segment.fill;
        assert!(next_block + shape.table_blocks(entries) <= shape.segment_blocks);
        assert!(entries <= shape.segment_blocks);
        assert!(segment.highest < space.next_sequence);
        assert!(segment.old_pins <= segment.pins);
        let of = |(_, place): &&(u64, Place)| place.segment == number;
        assert_eq!(segment.tombstones as usize, space.tombstones.iter().filter(of).count());
    }
    assert!(space.tombstones.iter().is_sorted());
}

/// Compares what a space counts as live with these objects.
fn recount<'a>(space: &Space, objects: impl IntoIterator<Item = (u32, &'a Demand)>) {
    let mut live = vec![Live::default(); space.segments.len()];
    for (segment, &demand) in objects {
        live[segment as usize].add(&Live::of(demand, &space.shape));
    }
    for (number, segment) in space.numbered() {
        assert_eq!(segment.live, live[number as usize], "segment {number}");
    }
}
