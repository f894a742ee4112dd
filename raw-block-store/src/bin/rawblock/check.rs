//! `rawblock check`

use std::cmp::Reverse;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result};
use raw_block_core::{Dispatcher, ReadAt};
use raw_block_store::format::{CheckpointBlock, CheckpointHeader, Damage, Superblock, body_blocks};
use raw_block_store::{Error as StoreError, ScrubReport, Store};
use serde_json::json;
use zerocopy::little_endian::U64;

use crate::Answer;
use crate::arguments::{Check, Opening};
use crate::dump::{Copies, each_block};
use crate::output::{BAD, GOOD, Hex, Text, answered, counted, on_stdout, print, shown};

pub(crate) fn run(arguments: &Check) -> Result<Answer> {
    let begin = Instant::now();
    let (store, lost) = open(arguments)?;
    let report = store.as_ref().map_or_else(|| Ok(ScrubReport::default()), scrub)?;
    let seconds = begin.elapsed().as_secs_f64();
    let found = report.findings.iter().map(|finding| (&finding.error, finding.key.as_deref()));
    let damages: Vec<_> = lost.iter().map(|error| (error, None)).chain(found).collect();
    let printed = print(|out| {
        for (error, key) in &damages {
            if arguments.json {
                let line = json!({
                    "damage": error.to_string(),
                    "offset": offset(error),
                    "key": key.and_then(|key| str::from_utf8(key).ok()),
                    "key_hex": key.map(|key| Hex(key).to_string()),
                });
                writeln!(out, "{line}")?;
            } else {
                let key = key.map(|key| format!(" (key {})", Text(key))).unwrap_or_default();
                writeln!(out, "{error}{key}")?;
            }
        }
        writeln!(out, "{}", conclusion(arguments, damages.len(), &report, seconds))
    });
    if damages.is_empty() {
        return answered(Answer::Yes, printed);
    }
    let verdict = || {
        let places = counted(damages.len() as u64, "place");
        format!("{} is damaged in {places}, which are not listed", arguments.device.path.display())
    };
    answered(Answer::No, printed.with_context(verdict))
}

/// Opens the store for reading. If something is lost that may have been the newest, without it if that serves;
/// then tells what is lost.
fn open(arguments: &Check) -> Result<(Option<Store>, Vec<StoreError>)> {
    let open =
        |accept_older_states| arguments.device.look_into_store(&Opening { accept_older_states });
    let lost = match open(false) {
        Ok(store) => return Ok((Some(store), Vec::new())),
        Err(error) => error.downcast::<StoreError>()?,
    };
    let mut damages = match &lost {
        StoreError::CheckpointLost { number, .. } => lost_checkpoint(arguments, *number)?,
        StoreError::Damaged { .. } | StoreError::NewestLost { .. } => Vec::new(),
        _ => return Err(lost.into()),
    };
    damages.insert(0, lost);
    Ok((open(true).ok(), damages))
}

/// What is damaged of the checkpoint with this number: its header, which should be in the place that does not
/// have the newest one, or blocks of its body.
fn lost_checkpoint(arguments: &Check, number: u64) -> Result<Vec<StoreError>> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    let Some(store) = Copies::read(&device)?.newest() else { return Ok(Vec::new()) };
    let headers = store.checkpoint_offset.map(|offset| {
        let mut block = vec![0; store.block_size.get() as usize];
        let read = device.read_buffers(&mut [ReadAt::new(offset.get(), &mut block)]).all();
        read.map_err(|error| StoreError::Device { doing: "read a checkpoint", error })?;
        let header = CheckpointHeader::read(&block, &store);
        header.map(|header| header.number.get()).map_err(|damage| damaged_header(offset, damage))
    });
    let headers = headers.into_iter().zip(store.checkpoint_offset);
    let (valid, invalid): (Vec<_>, Vec<_>) = headers.partition(|(header, _)| header.is_ok());
    let valid = valid.into_iter().filter_map(|(header, offset)| Some((header.ok()?, offset)));
    let mut valid: Vec<_> = valid.collect();
    valid.sort_by_key(|(number, _)| Reverse(*number));
    match valid.first() {
        Some(&(found, offset)) if found == number => damaged_body(&device, &store, number, offset),
        _ => {
            let invalid = invalid.into_iter().filter_map(|(header, _)| header.err());
            let earlier = valid.into_iter().skip(1).map(|(found, offset)| {
                damaged_header(offset, Damage::WrongPlace { found, expected: number })
            });
            Ok(invalid.chain(earlier).collect())
        }
    }
}

fn damaged_header(offset: U64, damage: Damage) -> StoreError {
    StoreError::Damaged { structure: "the header of a checkpoint", offset: offset.get(), damage }
}

fn damaged_body(
    device: &Dispatcher,
    store: &Superblock,
    number: u64,
    header: U64,
) -> Result<Vec<StoreError>> {
    let block_size = store.block_size.get();
    let blocks = body_blocks(store.slot_count.get(), block_size).unwrap_or(0);
    let mut damages = Vec::new();
    let body = header.get() + u64::from(block_size);
    each_block(device, store, body, 0..blocks, |index, offset, block| {
        let structure = "a block of a checkpoint";
        let damaged = |damage| StoreError::Damaged { structure, offset, damage };
        let verified = block
            .map_err(|error| StoreError::Device { doing: "read a checkpoint", error })
            .and_then(|block| {
                CheckpointBlock::read(&block, store, number, index).map(drop).map_err(damaged)
            });
        damages.extend(verified.err());
        Ok(())
    })?;
    Ok(damages)
}

fn scrub(store: &Store) -> Result<ScrubReport> {
    let show = shown("verifying");
    Ok(store.scrub(|progress| {
        show(progress);
        ControlFlow::Continue(())
    })?)
}

fn offset(error: &StoreError) -> Option<u64> {
    match error {
        StoreError::Damaged { offset, .. } => Some(*offset),
        StoreError::Device { error, .. } => error.place().map(|(offset, _)| offset),
        _ => None,
    }
}

/// The last line: how much was verified, and whether it is well.
fn conclusion(arguments: &Check, damages: usize, report: &ScrubReport, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure has fewer digits than a double")]
    let bytes = report.bytes as f64;
    if arguments.json {
        let healthy = damages == 0;
        let line = json!({
            "healthy": healthy, "damages": damages, "objects": report.objects, "bytes": report.bytes,
            "seconds": seconds,
        });
        return line.to_string();
    }
    let verified = format!(
        "{}, {:.1} MB verified in {seconds:.1} s ({:.0} MB/s)",
        counted(report.objects, "object"),
        bytes / 1e6,
        bytes / 1e6 / seconds
    );
    let path = arguments.device.path.display();
    if damages == 0 {
        let good = on_stdout(GOOD);
        format!("{good}healthy{good:#} {path}: {verified}")
    } else {
        let (bad, places) = (on_stdout(BAD), counted(damages as u64, "place"));
        format!("{bad}damaged{bad:#} {path}: {places}; {verified}")
    }
}
