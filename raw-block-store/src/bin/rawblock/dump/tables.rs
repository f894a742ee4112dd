//! The tables of segments.

use std::ops::Range;

use anyhow::Result;
use raw_block_store::format::{Entry, Layout};
use serde_json::{Value, json};

use super::output::Lines;
use crate::output::Hex;
use crate::read::{Reader, Record, Table};

/// The tables of these segments, and their entries; `each` if a segment without a table is shown
/// too.
pub(super) fn show(
    reader: &Reader<'_>,
    segments: Range<u32>,
    each: bool,
    lines: &mut Lines<'_>,
) -> Result<()> {
    let records = reader.newest_records()?;
    reader.tables(segments, |segment, last, table| {
        let record = records.get(segment as usize);
        match table {
            Ok(table) => entries(reader, &table, record, lines),
            // The last block of most segments of a young store.
            Err(flaw) if flaw.is_absence() && !each => Ok(()),
            Err(flaw) => lines.add("table", segment, last, Err(flaw)),
        }
    })
}

fn entries(
    reader: &Reader<'_>,
    table: &Table,
    record: Option<&Record>,
    lines: &mut Lines<'_>,
) -> Result<()> {
    let Table { segment, id } = table;
    // A table that an earlier or a failed checkpoint wrote does not count.
    let record = record.filter(|Record { record, .. }| {
        (record.generation, record.table, record.entries)
            == (id.generation, id.checkpoint, id.entries)
    });
    let fields = json!({
        "generation": id.generation,
        "checkpoint": id.checkpoint,
        "entries": id.entries,
        "named": record.is_some(),
    });
    let first = reader.layout.block_offset(*segment, reader.layout.table_block(id.entries));
    lines.add("table", *segment, first, Ok(fields))?;
    reader.table_blocks(table, |index, offset, first, entries| match entries {
        Err(flaw) => lines.add("table-block", index, offset, Err(flaw)),
        Ok(entries) => (first..).zip(entries).try_for_each(|(number, entry)| {
            let live = record.is_some_and(|record| record.is_live(number));
            let at = place_of(&reader.layout, *segment, entry);
            lines.add("entry", number, at, Ok(fields_of(entry, live)))
        }),
    })
}

/// Where the payload of an entry lies, or the header block of its slot.
pub(super) fn place_of(layout: &Layout, segment: u32, entry: &Entry) -> u64 {
    layout.block_offset(segment, entry.block.get())
}

fn fields_of(entry: &Entry, live: bool) -> Value {
    let kind = match () {
        () if entry.is_empty() => "empty",
        () if entry.is_tombstone() => "tombstones",
        () => "object",
    };
    json!({
        "kind": kind,
        "key_hash": Hex(&entry.key_hash).to_string(),
        "sequence": entry.sequence.get(),
        "key_bytes": entry.key_len.get(),
        "metadata_bytes": entry.metadata_len.get(),
        "value_bytes": entry.payload_len.get(),
        "blocks_back": entry.blocks_back.get(),
        "named": live,
    })
}
