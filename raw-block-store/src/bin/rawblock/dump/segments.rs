//! The headers of segments, and what is in one of them.

use anyhow::Result;
use raw_block_store::format::{ObjectView, SegmentHeader, SlotView, Stream};
use serde_json::{Value, json};

use super::output::Lines;
use super::tables::place_of;
use crate::output::{Hex, Text};
use crate::read::{Reader, Record};

/// The headers of all segments that were ever opened.
pub(super) fn show_headers(reader: &Reader<'_>, lines: &mut Lines<'_>) -> Result<()> {
    reader.segment_headers(0..reader.layout.segment_count, |segment, offset, header| match header {
        Err(flaw) if flaw.is_absence() => Ok(()),
        header => lines.add("segment", segment, offset, header.map(|header| fields(&header))),
    })
}

/// The header of a segment, its slots, and what they hold.
pub(super) fn show(reader: &Reader<'_>, segment: u32, lines: &mut Lines<'_>) -> Result<()> {
    let mut generation = None;
    reader.segment_headers([segment], |segment, offset, header| {
        generation = header.as_ref().ok().map(|header| header.generation.get());
        lines.add("segment", segment, offset, header.map(|header| fields(&header)))
    })?;
    let records = reader.newest_records()?;
    let record = records.get(segment as usize);
    reader.slots(segment, generation, |block, slot| {
        let offset = reader.layout.block_offset(segment, block);
        match slot {
            Ok(view) => slot_of(reader, offset, view, generation, record, lines),
            Err(flaw) => lines.add("slot", block, offset, Err(flaw)),
        }
    })
}

fn fields(header: &SegmentHeader) -> Value {
    json!({
        "generation": header.generation.get(),
        "stream": stream(header.stream()),
        "checkpoint": header.checkpoint.get(),
    })
}

/// The name of a stream.
pub(super) fn stream(stream: Stream) -> &'static str {
    match stream {
        Stream::New => "new",
        Stream::Kept => "kept",
        Stream::Tombstones => "tombstones",
    }
}

fn slot_of(
    reader: &Reader<'_>,
    offset: u64,
    view: &SlotView<'_>,
    generation: Option<u64>,
    record: Option<&Record>,
    lines: &mut Lines<'_>,
) -> Result<()> {
    let header = view.header;
    let (segment, block) = (header.segment.get(), header.block.get());
    let tombstones = view.tombstones();
    let of_generation = generation == Some(header.generation.get());
    let slot = json!({
        "kind": if tombstones.is_some() { "tombstones" } else { "objects" },
        "generation": header.generation.get(),
        // A slot of an earlier generation does not count.
        "counts": of_generation,
        "blocks": header.blocks.get(),
        "first_entry": header.first_entry.get(),
        "count": header.count.get(),
        "sequence": header.sequence.get(),
    });
    lines.add("slot", block, offset, Ok(slot))?;
    let is_live = |number| {
        record.is_some_and(|of| header.generation == of.record.generation && of.is_live(number))
    };
    for object in view.objects() {
        let at = place_of(&reader.layout, segment, object.entry);
        let live = is_live(object.number);
        lines.add("object", object.number, at, Ok(fields_of(&object, live)))?;
    }
    for (number, hash) in (0..).zip(tombstones.unwrap_or_default()) {
        let tombstone = json!({ "key_hash": Hex(hash).to_string() });
        lines.add("tombstone", number, offset, Ok(tombstone))?;
    }
    Ok(())
}

fn fields_of(object: &ObjectView<'_>, live: bool) -> Value {
    let ObjectView { entry, key, .. } = object;
    json!({
        "key": Text(key).to_string(),
        "key_hex": Hex(key).to_string(),
        "key_hash": Hex(&entry.key_hash).to_string(),
        "sequence": entry.sequence.get(),
        "metadata_bytes": entry.metadata_len.get(),
        "value_bytes": entry.payload_len.get(),
        "value_checksum": format!("{:#018x}", entry.checksum.get()),
        "value_in_header": entry.is_inline(),
        "named": live,
    })
}
