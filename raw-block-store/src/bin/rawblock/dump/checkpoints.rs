//! The checkpoints in their containers.

use std::ops::Range;

use anyhow::Result;
use raw_block_store::format::CheckpointHeader;
use serde_json::{Value, json};

use super::output::Lines;
use super::segments::stream;
use crate::read::{Reader, Record};

pub(super) fn show(reader: &Reader<'_>, chosen: Range<u32>, lines: &mut Lines<'_>) -> Result<()> {
    for container in reader.containers()? {
        if !chosen.contains(&container.number) {
            continue;
        }
        let shown = container.header.clone().map(|header| checkpoint(&header));
        lines.add("checkpoint", container.number, container.offset, shown)?;
        // Without its number, no block of the body can be distinguished from one of an earlier
        // checkpoint.
        let Ok(header) = container.header else { continue };
        let body = reader.body(container.offset, &header)?;
        for (segment, record) in (0..).zip(&body.records) {
            lines.add("record", segment, record.offset, Ok(segment_record(record)))?;
        }
        if let Some((index, offset, flaw)) = body.flaw {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            lines.add("checkpoint-block", index, offset, Err(flaw))?;
        }
    }
    Ok(())
}

fn checkpoint(header: &CheckpointHeader) -> Value {
    json!({
        "checkpoint": header.number.get(),
        "covered_sequence": header.covered_sequence.get(),
        "next_sequence": header.next_sequence.get(),
        "body_bytes": header.body_len.get(),
        "segments": header.segments.get(),
    })
}

fn segment_record(record: &Record) -> Value {
    let live = record.live();
    let record = &record.record;
    json!({
        "generation": record.generation,
        "used": record.used,
        "unverified": record.unverified,
        "bad": record.bad,
        "stream": stream(record.stream),
        "settled": if record.is_settled() { Value::from("all") } else { record.settled.into() },
        "entries": record.entries,
        "live": live,
        "next_block": record.next_block,
        "table": record.table,
    })
}
