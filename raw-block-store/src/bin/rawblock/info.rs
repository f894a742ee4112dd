//! `rawblock info`

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::HumanCount;
use raw_block_core::{Dispatcher, ReadAt};
use raw_block_store::format::{
    CheckpointHeader, SUPERBLOCK_COPIES, Superblock, SuperblockState, max_payload,
};
use serde_json::{Value, json};

use crate::Answer;
use crate::arguments::Info;
use crate::dump::{Copies, uuid};
use crate::output::{Size, Text, date, print};

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
        return print(|out| writeln!(out, "{report}")).map(|()| Answer::Yes);
    }
    let mut rows = String::new();
    let mut row = |name: &str, text: &str| rows += &format!("{name:<12} {text}\n");
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
        &format!("{} of {}", HumanCount(store.slot_count.get()), Size(store.slot_size.get())),
    );
    row("values", &format!("up to {}", Size(value)));
    match &newest {
        Some(newest) => row(
            "objects",
            &format!(
                "{} in checkpoint {}{}",
                HumanCount(newest.live_count.get()),
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
            HumanCount(geometry.capacity),
            geometry.logical_block,
            geometry.transfer_alignment,
            if geometry.volatile_write_cache {
                "volatile write cache"
            } else {
                "no volatile write cache"
            }
        ),
    );
    print(|out| out.write_all(rows.as_bytes())).map(|()| Answer::Yes)
}

fn newest_checkpoint(device: &Dispatcher, store: &Superblock) -> Option<CheckpointHeader> {
    let headers = store.checkpoint_offset.iter().filter_map(|offset| {
        let mut block = vec![0; store.block_size.get() as usize];
        device.read_buffers(&mut [ReadAt::new(offset.get(), &mut block)]).all().ok()?;
        CheckpointHeader::read(&block, store).ok().copied()
    });
    headers.max_by_key(|header| header.number.get())
}
