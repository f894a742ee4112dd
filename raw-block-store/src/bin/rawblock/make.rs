//! `rawblock format`

use std::io::Write;

use anyhow::{Context, Result, bail};
use indicatif::HumanCount;
use raw_block_core::{Dispatcher, IoBackend, ReadAt};
use raw_block_store::format::{SUPERBLOCK_CELL_LEN, Superblock, max_payload};
use raw_block_store::{FormatOptions, Store};
use serde_json::json;

use crate::Answer;
use crate::arguments::{Format, SlotSize};
use crate::output::{Size, print};

/// The block size that is taken when none is asked for, unless the device needs a larger one.
const BLOCK_SIZE: u64 = 4096;

pub(crate) fn run(arguments: &Format) -> Result<Answer> {
    let backend = arguments.device.open()?;
    let block_size = match arguments.block_size {
        Some(bytes) => Some(u32::try_from(bytes).context("the block size is above 64KiB")?),
        None => None,
    };
    let block = block_size
        .map_or_else(|| BLOCK_SIZE.max(backend.geometry().transfer_alignment.into()), u64::from);
    let options = FormatOptions {
        block_size,
        slot_count: arguments.slots,
        label: arguments.label.clone(),
        force: arguments.force,
        ..FormatOptions::for_payloads(payload_len(&arguments.size, block)?)
    };
    Store::format(backend.clone(), &options)?;

    let path = arguments.device.path.display();
    let superblock = superblock_of(backend)?;
    let (slots, slot) = (superblock.slot_count.get(), superblock.slot_size.get());
    let value = max_payload(slot, superblock.block_size.get());
    let report = if arguments.json {
        let report = json!({
            "path": path.to_string(), "slots": slots, "slot_bytes": slot, "value_bytes": value,
            "block_bytes": superblock.block_size.get(),
        });
        report.to_string()
    } else {
        format!(
            "{path}: an empty store of {} slots of {}, for values of up to {}",
            HumanCount(slots),
            Size(slot),
            Size(value)
        )
    };
    let printed = print(|out| writeln!(out, "{report}"));
    printed
        .with_context(|| format!("the store on {path} was made, but its description is lost"))?;
    Ok(Answer::Yes)
}

fn payload_len(size: &SlotSize, block: u64) -> Result<u64> {
    match (size.value_size, size.slot_size) {
        (Some(value), _) => Ok(value),
        (None, Some(slot)) if slot.is_multiple_of(block) && slot > block => Ok(slot - block),
        (None, Some(slot)) => {
            bail!("a slot of {} is not two or more whole blocks of {}", Size(slot), Size(block))
        }
        (None, None) => unreachable!("clap wants one of them"),
    }
}

fn superblock_of(backend: std::sync::Arc<dyn IoBackend>) -> Result<Superblock> {
    let mut cell = vec![0; SUPERBLOCK_CELL_LEN];
    let device = Dispatcher::new(backend)?;
    device.read_buffers(&mut [ReadAt::new(0, &mut cell)]).all()?;
    Ok(*Superblock::read(&cell)?)
}
