//! The copies of the superblock, and the containers of checkpoints.

use anyhow::Result;
use raw_block_store::format::{
    BodyBlock, CheckpointHeader, Damage, SUPERBLOCK_COPIES, Superblock, SuperblockState,
};

use super::Damaged;
use crate::read::{Copies, Flaw, Reader};

const HEADER: &str = "the header of a checkpoint";
const BLOCK: &str = "a block of a checkpoint";

/// What is wrong with the copies of the superblock.
pub(super) fn superblocks(copies: &Copies) -> Vec<Damaged> {
    let identity = copies.newest().map(|newest| newest.preamble.uuid);
    let flaw = |copy| match copies.copy(copy) {
        Ok(found) if identity.is_some_and(|identity| found.preamble.uuid != identity) => {
            Some(Damage::ForeignStore.into())
        }
        Ok(_) => None,
        Err(flaw) => Some(flaw),
    };
    (0..SUPERBLOCK_COPIES)
        .filter_map(|copy| {
            Some(Damaged::new("a copy of the superblock", copies.offsets[copy], &flaw(copy)?))
        })
        .collect()
}

/// What is wrong with the checkpoints.
///
/// A container without a checkpoint is in order. So is an older checkpoint whose body is half
/// overwritten, unless the store was closed: the next one was being written in its place.
pub(super) fn checkpoints(reader: &Reader<'_>, store: &Superblock) -> Result<Vec<Damaged>> {
    let mut damages = Vec::new();
    let is_clean = matches!(store.state(), SuperblockState::Clean { .. });
    let containers = reader.containers()?;
    let numbers = containers.iter().filter_map(|of| Some(of.header.as_ref().ok()?.number.get()));
    let newest = numbers.max();
    for container in &containers {
        match &container.header {
            Err(flaw) if flaw.is_absence() || is_foreign(flaw) => {}
            Err(flaw) => damages.push(Damaged::new(HEADER, container.offset, flaw)),
            Ok(header) => {
                let overwritten = !is_clean && Some(header.number.get()) != newest;
                body(reader, container.offset, header, overwritten, &mut damages)?;
            }
        }
    }
    Ok(damages)
}

/// Whether a structure of another store was there before.
fn is_foreign(flaw: &Flaw) -> bool {
    matches!(flaw, Flaw::Damaged(Damage::ForeignStore))
}

fn body(
    reader: &Reader<'_>,
    container: u64,
    header: &CheckpointHeader,
    overwritten: bool,
    damages: &mut Vec<Damaged>,
) -> Result<()> {
    let before = damages.len();
    let number = header.number.get();
    reader.each_block(reader.body_places(container, header), |index, offset, block| {
        let flaw = match block {
            Err(error) => Some(error.into()),
            Ok(_) if overwritten => None,
            Ok(block) => {
                BodyBlock::read(block, &reader.layout, number, index).err().map(Flaw::from)
            }
        };
        damages.extend(flaw.map(|flaw| Damaged::new(BLOCK, offset, &flaw)));
        Ok(())
    })?;
    // Every block may be valid, and what they say not.
    if damages.len() == before && !overwritten {
        let flaw = reader.body(container, header)?.flaw;
        damages.extend(flaw.map(|(_, offset, flaw)| Damaged::new(BLOCK, offset, &flaw)));
    }
    Ok(())
}
