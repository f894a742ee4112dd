//! The copies of the superblock.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use raw_block_store::format::{Superblock, SuperblockState};
use serde_json::{Value, json};

use super::output::Lines;
use crate::output::{Hex, Text, date};
use crate::read::Copies;

pub(super) fn show(copies: &Copies, chosen: Range<u32>, lines: &mut Lines<'_>) -> Result<()> {
    chosen.into_iter().try_for_each(|number| {
        let index = number as usize;
        let copy = copies.copy(index).map(|copy| superblock(&copy));
        lines.add("superblock", number, copies.offsets[index], copy)
    })
}

fn superblock(copy: &Superblock) -> Value {
    let state = match copy.state() {
        SuperblockState::Clean { .. } => "clean",
        SuperblockState::Open { .. } => "open",
    };
    json!({
        "generation": copy.generation.get(),
        "state": state,
        "checkpoint": copy.checkpoint.get(),
        "uuid": uuid(&copy.preamble.uuid),
        "set": uuid(&copy.set),
        "label": Text(copy.label().as_bytes()).to_string(),
        "created": date(Duration::from_nanos(copy.created_unix_ns.get())),
        "block_bytes": copy.block_size.get(),
        "segment_blocks": copy.segment_blocks.get(),
        "segments": copy.segment_count.get(),
        "device_bytes": copy.device_len.get(),
        "container_offsets": copy.container_offset.map(u64::from),
        "container_bytes": copy.container_len.get(),
        "segments_offset": copy.segments_offset.get(),
        "last_superblock_offset": copy.last_superblock_offset.get(),
        "members_version": copy.members_version.get(),
        "members": copy.listed().map(|(_, member)| uuid(&member.identity)).collect::<Vec<_>>(),
        "features": [
            copy.features_compatible.get(),
            copy.features_read_only_compatible.get(),
            copy.features_incompatible.get(),
        ],
    })
}

/// An identity in the usual form of a UUID.
pub(crate) fn uuid(identity: &[u8; 16]) -> String {
    let hex = Hex(identity).to_string();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
