//! What a recovery cannot read: what is logged, what is left out, and what refuses the opening.

use raw_block_core::Dispatcher;

use crate::Error;
use crate::error::Context;
use crate::format::Layout;
use crate::stats::limited_log::{log_count, log_first};

/// A block that the device cannot read.
#[derive(Clone, Debug)]
pub(super) struct UnreadableBlock {
    pub(super) segment: u32,
    pub(super) block: u32,
    pub(super) error: raw_block_core::Error,
}

/// Counts and logs what a recovery cannot read or use.
pub(super) struct Damages<'a> {
    dispatcher: &'a Dispatcher,
    layout: &'a Layout,
    /// Whether the opening leaves out blocks that can hide the newest state of an object.
    accept_older: bool,
    logged: usize,
    /// Objects that the checkpoint names and that were not found.
    pub(super) objects: u64,
}

impl<'a> Damages<'a> {
    pub(super) fn new(dispatcher: &'a Dispatcher, layout: &'a Layout, accept_older: bool) -> Self {
        Self { dispatcher, layout, accept_older, logged: 0, objects: 0 }
    }

    pub(super) fn accept_older(&self) -> bool {
        self.accept_older
    }

    /// Logs a block that cannot be read, and that hides nothing newer than the checkpoint.
    pub(super) fn note_unreadable(&mut self, what: &'static str, at: &UnreadableBlock) {
        let UnreadableBlock { segment, block, error } = at;
        self.note(|device| {
            tracing::warn!(device, segment, block, %error, "{what} cannot be read");
        });
    }

    /// Logs a structure that cannot be used.
    pub(super) fn note_damage(
        &mut self,
        what: &'static str,
        segment: u32,
        block: u32,
        damage: &dyn std::fmt::Display,
    ) {
        self.note(|device| {
            tracing::warn!(device, segment, block, %damage, "{what} cannot be used");
        });
    }

    /// Counts objects of a segment that the checkpoint names, and that were not found.
    pub(super) fn note_lost(&mut self, segment: u32, objects: u32) {
        if objects > 0 {
            self.objects += u64::from(objects);
            self.note(|device| {
                tracing::error!(
                    device,
                    segment,
                    objects,
                    "objects that the checkpoint names are lost, unless they were replaced or deleted since"
                );
            });
        }
    }

    /// Leaves out a block that cannot be read and may hide something newer than the checkpoint.
    ///
    /// # Errors
    /// [`Error::NewestLost`] unless older states are accepted.
    pub(super) fn leave_out(
        &mut self,
        what: &'static str,
        at: &UnreadableBlock,
    ) -> Result<(), Error> {
        let UnreadableBlock { segment, block, error } = at;
        if !self.accept_older {
            let offset = self.layout.block_offset(*segment, *block);
            return Err(Error::NewestLost { what, offset, error: error.clone() });
        }
        self.note(|device| {
            tracing::error!(device, segment, block, %error, "{what} is left out: an older object may be back");
        });
        Ok(())
    }

    /// Logs how many damages there are, if not each was logged.
    pub(super) fn finish(&self) {
        log_count(self.logged, self.dispatcher.backend().name(), "the recovery");
    }

    fn note(&mut self, log: impl FnOnce(&str)) {
        log_first(self.logged, || log(self.dispatcher.backend().name()));
        self.logged += 1;
    }
}

/// Distinguishes a block that the device cannot read from a device that cannot be used.
///
/// # Errors
/// [`Error::Device`] unless the error is one of the block.
pub(super) fn is_readable(
    result: Result<(), raw_block_core::Error>,
) -> Result<Result<(), raw_block_core::Error>, Error> {
    match result {
        Err(error) if !error.kind().is_io() => Err(error).context("recover the store"),
        readable => Ok(readable),
    }
}
