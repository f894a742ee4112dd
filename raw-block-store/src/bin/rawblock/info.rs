//! `rawblock info`

use std::time::Duration;

use anyhow::{Result, bail};
use raw_block_core::{Dispatcher, ReadAt};
use raw_block_store::format::{
    CheckpointHeader, SUPERBLOCK_COPIES, Superblock, SuperblockState, max_payload,
};
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::Info;
use crate::dump::{Copies, uuid};
use crate::output::{Text, separated};
use crate::size::Size;

pub(crate) fn run(arguments: &Info) -> Result<Answer> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    let copies = Copies::read(&device)?;
    let Some(store) = copies.newest() else {
        let damages: Vec<_> = (0..SUPERBLOCK_COPIES).filter_map(|i| copies.copy(i).err()).collect();
        bail!(
            "{} holds no store that can be read: its superblock is {}",
            arguments.device.path.display(),
            damages.join("; ")
        );
    };
    let valid_copies = (0..SUPERBLOCK_COPIES).filter(|&copy| copies.copy(copy).is_ok()).count();
    let newest = newest_checkpoint(&device, &store);
    let geometry = device.geometry();
    let clean = matches!(store.state(), SuperblockState::Clean { .. });
    let value = max_payload(store.slot_size.get(), store.block_size.get());
    let report = json!({
        "path": arguments.device.path.display().to_string(),
        "label": store.label(),
        "uuid": uuid(&store),
        "created": date(Duration::from_nanos(store.created_unix_ns.get())),
        "state": if clean { "clean" } else { "open" },
        "format_version": store.preamble.version.get(),
        "slots": store.slot_count.get(),
        "slot_bytes": store.slot_size.get(),
        "value_bytes": value,
        "block_bytes": store.block_size.get(),
        "objects_at_checkpoint": newest.as_ref().map(|newest| newest.live_count.get()),
        "checkpoint": newest.as_ref().map(|newest| newest.number.get()),
        "valid_superblock_copies": valid_copies,
        "device": {
            "engine": device.backend().engine(),
            "capacity_bytes": geometry.capacity,
            "logical_block": geometry.logical_block,
            "transfer_alignment": geometry.transfer_alignment,
            "memory_alignment": geometry.memory_alignment,
            "max_transfer": geometry.max_transfer,
            "volatile_write_cache": geometry.volatile_write_cache,
            "discard": geometry.discard,
        },
    });
    if arguments.json {
        println!("{report}");
        return Ok(Answer::Yes);
    }
    let row = |name: &str, text: &str| println!("{name:<12} {text}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    row(
        "store",
        &format!("{} {:?}", text(&report["uuid"]), Text(store.label().as_bytes()).to_string()),
    );
    row("created", &text(&report["created"]));
    row(
        "state",
        if clean {
            "clean"
        } else {
            "open: in use, or not closed in order; it is recovered when it is opened"
        },
    );
    row(
        "slots",
        &format!("{} of {}", separated(store.slot_count.get()), Size(store.slot_size.get())),
    );
    row("values", &format!("up to {}", Size(value)));
    match &newest {
        Some(newest) => row(
            "objects",
            &format!(
                "{} in checkpoint {}{}",
                separated(newest.live_count.get()),
                newest.number.get(),
                if clean { "" } else { ", and what changed since" }
            ),
        ),
        None => row("objects", "no checkpoint can be read: `rawblock check` says why"),
    }
    row("superblock", &format!("{valid_copies} of {SUPERBLOCK_COPIES} copies are valid"));
    row(
        "device",
        &format!(
            "{}, {} bytes in blocks of {}, transfers aligned to {}, {}",
            device.backend().engine(),
            separated(geometry.capacity),
            geometry.logical_block,
            geometry.transfer_alignment,
            if geometry.volatile_write_cache {
                "volatile write cache"
            } else {
                "no volatile write cache"
            }
        ),
    );
    Ok(Answer::Yes)
}

fn newest_checkpoint(device: &Dispatcher, store: &Superblock) -> Option<CheckpointHeader> {
    let headers = store.checkpoint_offset.iter().filter_map(|offset| {
        let mut block = vec![0; store.block_size.get() as usize];
        device.read_buffers(&mut [ReadAt::new(offset.get(), &mut block)]).all().ok()?;
        CheckpointHeader::read(&block, store).ok().copied()
    });
    headers.max_by_key(|header| header.number.get())
}

/// A moment in UTC, as RFC 3339 writes it, by its distance from the Unix epoch.
pub(crate) fn date(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    // The civil calendar, in years that begin in March, so that a leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
