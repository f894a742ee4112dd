//! `rawblock dump`: the structures on the device, as the format describes them.

mod checkpoints;
mod output;
mod segments;
mod superblocks;
mod tables;

use std::ops::Range;

use anyhow::{Result, bail};
use raw_block_core::Dispatcher;
use raw_block_store::format::{CONTAINERS, Layout, SUPERBLOCK_COPIES};

use crate::Answer;
use crate::arguments::{Dump, Structure};
use crate::read::{Copies, Reader};
use output::Lines;
pub(crate) use superblocks::uuid;

pub(crate) fn run(arguments: &Dump) -> Result<Answer> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    let copies = Copies::read(&device)?;
    let mut lines = Lines::new(arguments.json);
    let number = arguments.number;
    if arguments.structure == Structure::Superblock {
        #[expect(clippy::cast_possible_truncation, reason = "there are three")]
        superblocks::show(&copies, chosen(number, SUPERBLOCK_COPIES as u32)?, &mut lines)?;
        return lines.finish().map(|()| Answer::Yes);
    }
    let Some(superblock) = copies.newest() else {
        bail!(
            "{} has no valid superblock, which would say where its other structures are: \
             `rawblock dump PATH` shows the copies",
            arguments.device.path.display()
        );
    };
    let reader = Reader::new(&device, Layout::of(&superblock));
    let segments = chosen(number, reader.layout.segment_count);
    match arguments.structure {
        Structure::Checkpoint => {
            #[expect(clippy::cast_possible_truncation, reason = "there are three")]
            checkpoints::show(&reader, chosen(number, CONTAINERS as u32)?, &mut lines)?;
        }
        Structure::Table => tables::show(&reader, segments?, number.is_some(), &mut lines)?,
        Structure::Segment | Structure::Superblock => match number {
            Some(segment) => {
                segments?;
                segments::show(&reader, segment, &mut lines)?;
            }
            None => segments::show_headers(&reader, &mut lines)?,
        },
    }
    lines.finish().map(|()| Answer::Yes)
}

/// The numbers to show: all, or one.
fn chosen(number: Option<u32>, count: u32) -> Result<Range<u32>> {
    match number {
        None => Ok(0..count),
        Some(number) if number < count => Ok(number..number + 1),
        Some(number) => bail!("there is no number {number}: the last one is {}", count - 1),
    }
}
