//! Making a store.

use std::time::SystemTime;

use raw_block_core::Dispatcher;
use raw_block_core::backend::OpKind;

use super::memory;
use super::signature::{self, Signature};
use super::zeroes;
use crate::Error;
use crate::checkpoint;
use crate::error::Context;
use crate::format::{CONTAINERS, EncodeError, Layout, Superblock};
use crate::io::superblocks::{Probe, Superblocks};
use crate::mutant;
use crate::options::{FormatOptions, OpenOptions};
use crate::state::containers::Containers;
use crate::state::index::Index;
use crate::state::space::{CheckpointPurpose, CommittedCheckpoint, Shape, Space};
use crate::state::{StateParts, StoreState};

/// What the store does when making one fails.
const FORMAT: &str = "format";

/// Makes an empty store on a device.
///
/// # Errors
/// Those of [`Store::format`](crate::Store::format).
pub(crate) fn make(dispatcher: Dispatcher, options: &FormatOptions) -> Result<(), Error> {
    let name = dispatcher.backend().name().to_owned();
    dispatcher.check_accepted(OpKind::Write).context(FORMAT)?;
    let superblock = superblock(&dispatcher, options, &name)?;
    let found = Superblocks::find(&dispatcher)?;
    if !options.force {
        refuse_occupied(&name, &found, &signature::find(&dispatcher)?)?;
    }
    let layout = Layout::of(&superblock);
    memory::check(layout.segment_count)?;

    // Everything was checked. From here on, what was there is lost.
    if let Probe::Store(found) = found {
        found.erase(&dispatcher)?;
    }
    if options.force {
        signature::erase(&dispatcher)?;
    }
    let superblocks = Superblocks::new(superblock);
    superblocks.erase(&dispatcher)?;
    if dispatcher.geometry().regular_file {
        // A file system that runs full fails puts of new objects, but no checkpoint: its space is
        // allocated now.
        let start = layout.container_offset[0];
        let len = layout.segments_offset - start;
        zeroes::write(&dispatcher, start, len, "allocate the containers of checkpoints")?;
    }
    let state = empty(dispatcher, layout, superblocks);
    checkpoint::take(&state, CheckpointPurpose::Whole)?;
    state.mark_clean()?;
    tracing::info!(device = name, segments = layout.segment_count, "a store was made");
    Ok(())
}

/// The superblock of a new store.
fn superblock(
    dispatcher: &Dispatcher,
    options: &FormatOptions,
    name: &str,
) -> Result<Superblock, Error> {
    let geometry = dispatcher.geometry();
    let layout = options.lay_out(geometry, name)?.with_identity(&random()?, &random()?);
    let mut superblock = Superblock::new(&layout, &random()?, geometry.capacity);
    superblock.set_label(&options.label).map_err(|error| Error::Label {
        rule: match error {
            EncodeError::TooLarge { needed, available, .. } => {
                format!("has {needed} bytes, at most {available} fit: shorten it")
            }
            EncodeError::Invalid(_) => "contains a NUL character: remove it".to_owned(),
        },
    })?;
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    superblock.created_unix_ns = u64::try_from(age.as_nanos()).unwrap_or(0).into();
    Ok(superblock)
}

/// A store without objects and checkpoints. Its first checkpoint goes to container 0.
fn empty(dispatcher: Dispatcher, layout: Layout, superblocks: Superblocks) -> StoreState {
    let options = OpenOptions::default().background(false);
    let space = Space::new(Shape::of(&layout), options.eviction, CommittedCheckpoint::default(), 1);
    let containers = Containers::new(CONTAINERS - 1, [0; CONTAINERS]);
    let index = Index::new(layout.segment_count);
    StoreState::new(StateParts {
        dispatcher,
        layout,
        options,
        index,
        space,
        superblocks,
        containers,
    })
}

/// Refuses to overwrite the contents of a device.
fn refuse_occupied(device: &str, found: &Probe, occupied: &[Signature]) -> Result<(), Error> {
    let device = device.to_owned();
    let which = match found {
        Probe::Nothing => {
            return occupied.first().map_or(Ok(()), |&Signature { what, offset }| {
                Err(Error::Occupied { device, what, offset })
            });
        }
        Probe::Unusable(reason) => format!("which cannot be opened, because {reason}"),
        Probe::Store(found) => match found.current().label() {
            "" => "without a label".to_owned(),
            label => format!("labelled {label:?}"),
        },
    };
    Err(Error::AlreadyAStore { device, which })
}

fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [7; 16];
    if mutant::simulates() {
        return Ok(bytes);
    }
    getrandom::fill(&mut bytes)
        .map_err(|error| {
            raw_block_core::Error::os("draw random bytes", std::io::Error::other(error))
        })
        .context(FORMAT)?;
    Ok(bytes)
}
