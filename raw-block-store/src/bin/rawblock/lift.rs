//! `rawblock lift`

use std::io::Write;

use anyhow::{Context, Result};
use raw_block_store::Store;

use crate::Answer;
use crate::arguments::Lift;
use crate::device::options;
use crate::output::{counted, print};

pub(crate) fn run(arguments: &Lift) -> Result<Answer> {
    let path = arguments.device.path.display();
    let bad = arguments.device.look_into_store(&arguments.opening)?.stats().bad_segments;
    let options = options(arguments.opening.accept_older_states).lift_quarantine(true);
    // The checkpoint that closing writes calls no segment bad.
    Store::open_with(arguments.device.open()?, &options)?.close()?;
    let segments = counted(bad, "segment");
    print(|out| writeln!(out, "{path}: {segments} used again"))
        .with_context(|| format!("the quarantine of {segments} on {path} was lifted"))?;
    Ok(Answer::Yes)
}
