//! The headers of segments, their tables, and the slot headers that the newest checkpoint needs.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use raw_block_store::format::{Damage, SegmentRecord, SlotHeader, TableId};

use super::Damaged;
use crate::read::{Flaw, Reader, Record, Table};

const HEADER: &str = "the header of a segment";
const TABLE: &str = "a block of a table";
const SLOT: &str = "a slot header";

/// What is wrong with the segments that the newest checkpoint uses.
pub(super) fn verify(reader: &Reader<'_>) -> Result<Vec<Damaged>> {
    let records = reader.newest_records()?;
    let used = (0..).zip(&records).filter(|(_, record)| record.record.used);
    let used: BTreeMap<u32, &Record> = used.collect();
    let mut damages = Vec::new();
    headers(reader, &used, &mut damages)?;
    for (&segment, record) in &used {
        let whole = record.record.table != 0 && table(reader, segment, record, &mut damages)?;
        if !whole {
            slots(reader, segment, record, &mut damages)?;
        }
    }
    Ok(damages)
}

fn headers(
    reader: &Reader<'_>,
    used: &BTreeMap<u32, &Record>,
    damages: &mut Vec<Damaged>,
) -> Result<()> {
    reader.segment_headers(used.keys().copied(), |segment, offset, header| {
        let expected = used.get(&segment).map_or(0, |record| record.record.generation);
        let flaw = match header {
            // A segment that is used is not opened again before a newer checkpoint.
            Ok(header) if header.generation == expected => None,
            Ok(header) => {
                Some(Damage::WrongPlace { found: header.generation.get(), expected }.into())
            }
            Err(flaw) => Some(flaw),
        };
        damages.extend(flaw.map(|flaw| Damaged::new(HEADER, offset, &flaw).in_segment(segment)));
        Ok(())
    })
}

/// Verifies the table of a segment, and the slots of tombstones that it names. Returns whether the
/// table is whole.
fn table(
    reader: &Reader<'_>,
    segment: u32,
    record: &Record,
    damages: &mut Vec<Damaged>,
) -> Result<bool> {
    let &SegmentRecord { generation, table: checkpoint, entries, .. } = &record.record;
    let table = Table { segment, id: TableId { generation, checkpoint, entries } };
    let before = damages.len();
    let mut tombstones = Vec::new();
    reader.table_blocks(&table, |_, offset, first, entries| {
        match entries {
            Ok(entries) => {
                let named = (first..).zip(entries).filter(|(number, _)| record.is_live(*number));
                let named = named.filter(|(_, entry)| entry.is_tombstone());
                tombstones.extend(named.map(|(_, entry)| entry.header_block()));
            }
            Err(flaw) => damages.push(Damaged::new(TABLE, offset, &flaw).in_segment(segment)),
        }
        Ok(())
    })?;
    let whole = damages.len() == before;
    let place = |block| (block, reader.layout.block_offset(segment, block));
    reader.each_block(tombstones.into_iter().map(place), |number, offset, block| {
        let read = block.as_ref().map_err(Flaw::from).and_then(|block| {
            let view = SlotHeader::read(block, &reader.layout, segment, number)?;
            Ok(view.of_generation(generation).map(drop)?)
        });
        damages
            .extend(read.err().map(|flaw| Damaged::new(SLOT, offset, &flaw).in_segment(segment)));
        Ok(())
    })?;
    Ok(whole)
}

/// Looks for the slots of a segment without a table. One that is missing and has entries that are
/// named is damaged.
fn slots(
    reader: &Reader<'_>,
    segment: u32,
    record: &Record,
    damages: &mut Vec<Damaged>,
) -> Result<()> {
    let SegmentRecord { generation, entries, .. } = record.record;
    let mut gaps = Vec::new();
    let mut flaws = BTreeMap::new();
    let (mut next_entry, mut next_block) = (0, 1);
    let mut gap = |entries: Range<u32>, block| {
        if entries.clone().any(|number| record.is_live(number)) {
            gaps.push(block);
        }
    };
    reader.slots(segment, Some(generation), |block, slot| {
        match slot {
            Ok(view) if view.header.generation == generation => {
                let first = view.header.first_entry.get();
                gap(next_entry..first, next_block);
                next_entry = first.saturating_add(view.entry_numbers());
                next_block = block.saturating_add(view.header.blocks.get());
            }
            Ok(_) => {}
            Err(flaw) => _ = flaws.insert(block, flaw),
        }
        Ok(())
    })?;
    gap(next_entry..entries, next_block);
    for block in gaps {
        let absent = || Damage::NotThisStructure { expected: "slot header" }.into();
        let flaw = flaws.remove(&block).unwrap_or_else(absent);
        let offset = reader.layout.block_offset(segment, block);
        damages.push(Damaged::new(SLOT, offset, &flaw).in_segment(segment));
    }
    Ok(())
}
