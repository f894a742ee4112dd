//! `rawblock format`

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use indicatif::{BinaryBytes, HumanCount};
use raw_block_core::backend::IoBackend;
use raw_block_store::format::Layout;
use raw_block_store::{FormatOptions, Store};
use serde_json::json;

use crate::Answer;
use crate::arguments::Format;
use crate::device::options;
use crate::output::{Size, note, print};
use crate::read::Copies;

/// Of objects that are larger than this part of a segment, a noticeable part of the space is
/// wasted.
const OBJECTS_PER_SEGMENT: u64 = 8;

pub(crate) fn run(arguments: &Format) -> Result<Answer> {
    let backend = arguments.device.open()?;
    let block_size = arguments.block_size.map(u32::try_from).transpose();
    let options = FormatOptions::default()
        .segment_size(arguments.segment_size)
        .largest_object(arguments.largest_object)
        .block_size(block_size.context("the block size is above 64KiB")?)
        .label(arguments.label.clone())
        .force(arguments.force);
    Store::format(Arc::clone(&backend), &options)?;

    let path = arguments.device.path.display();
    let printed = describe(backend, arguments);
    printed
        .with_context(|| format!("the store on {path} was made, but its description is lost"))?;
    Ok(Answer::Yes)
}

/// Prints what was made.
fn describe(backend: Arc<dyn IoBackend>, arguments: &Format) -> Result<()> {
    let store = Store::open_read_only(backend, &options(false))?;
    let superblock = Copies::read(store.dispatcher())?.newest();
    let layout = Layout::of(&superblock.context("its superblock cannot be read")?);
    let path = arguments.device.path.display();
    let (segments, segment) = (layout.segment_count, layout.segment_size());
    let (capacity, largest) = (store.stats().bytes_left, layout.largest_payload());
    let report = if arguments.json {
        let report = json!({
            "path": path.to_string(), "segments": segments, "segment_bytes": segment,
            "block_bytes": layout.block_size, "payload_capacity_bytes": capacity,
            "largest_value_bytes": largest,
        });
        report.to_string()
    } else {
        format!(
            "{path}: an empty store of {} segments of {}, for about {} of values of up to {}",
            HumanCount(segments.into()),
            Size(segment),
            BinaryBytes(capacity),
            Size(largest.into())
        )
    };
    print(|out| writeln!(out, "{report}"))?;
    if let Some(object) = arguments.largest_object
        && object.saturating_mul(OBJECTS_PER_SEGMENT) > segment
    {
        note(format_args!(
            "values of {} are more than an eighth of a segment: the ends of segments that they do not fit into \
             are wasted",
            Size(object)
        ));
    }
    Ok(())
}
