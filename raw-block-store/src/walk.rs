//! Going through all objects, in the order of the slots.

use std::fmt;
use std::ops::ControlFlow;

use crate::error::Doing;
use crate::format::{Damage, ObjectEntry, SlotHeader, SlotView};
use crate::index::Located;
use crate::read_ahead::ReadAhead;
use crate::{Error, Progress, Store};

/// What is known of an object without its payload.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The caller's metadata.
    pub metadata: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_len: u64,
    /// The slot that holds it.
    pub slot: u64,
}

/// Bytes of a key that a text shows.
const SHOWN: usize = 32;

/// The beginning of bytes that came from a device, harmless for a terminal and a log.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN { write!(f, "... ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}

impl fmt::Debug for ObjectInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectInfo")
            .field("key", &format_args!("{}", Escaped(self.key)))
            .field("metadata", &format_args!("{}", Escaped(self.metadata)))
            .field("payload_len", &self.payload_len)
            .field("slot", &self.slot)
            .finish()
    }
}

impl Store {
    /// Calls `visit` with what is known of every object, in the order of the slots, until it breaks.
    ///
    /// Reads the header of each object, in large batches. Objects that are put or deleted meanwhile may be
    /// among them or not. What fails its checks is left out and counted.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn list(
        &self,
        mut visit: impl FnMut(ObjectInfo<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let block_size = self.block_size();
        self.walk(
            block_size,
            |_| block_size,
            |located, object| {
                let Ok(view) = object.and_then(|bytes| self.check_header(bytes, located)) else {
                    self.shared.counters.failed_checks.add(self.is_there(located).into());
                    return ControlFlow::Continue(());
                };
                visit(ObjectInfo {
                    key: view.key,
                    metadata: view.metadata,
                    payload_len: located.entry.payload_len.into(),
                    slot: located.slot,
                })
            },
            |_| ControlFlow::Continue(()),
        )
        .map(drop)
    }

    /// Checks that an object that was read begins with the header that the index names.
    pub(crate) fn check_header<'a>(
        &self,
        object: &'a [u8],
        located: &Located,
    ) -> Result<SlotView<'a>, Error> {
        let damaged = |damage| Error::Damaged {
            structure: "the header of an object",
            offset: self.slot_offset(located.slot),
            damage,
        };
        let block = &object[..self.block_size()];
        let view = SlotHeader::read(block, &self.shared.layout, located.slot).map_err(damaged)?;
        if view.header.entry != located.entry || self.hash(view.key) != located.entry.key_hash {
            let rule = "it is another object than the index names";
            return Err(damaged(Damage::Inconsistent(rule)));
        }
        Ok(view)
    }

    /// Reads the first `len` bytes of every object, at most `longest`, in the order of the slots and many at once, and
    /// calls `visit` with each. Returns whether it came to the end: both functions may break.
    ///
    /// An object that leaves its slot meanwhile, and so may be read together with what follows it there, fails its
    /// checks: see [`is_there`](Self::is_there).
    pub(crate) fn walk(
        &self,
        longest: usize,
        len: impl Fn(&ObjectEntry) -> usize,
        mut visit: impl FnMut(&Located, Result<&[u8], Error>) -> ControlFlow<()>,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        self.shared.check_process()?;
        let slots = self.shared.layout.slot_count.get();
        let mut ahead = ReadAhead::new(&self.shared, longest, len)?;
        while let Some(piece) = ahead.next() {
            for (located, len, (buffer, result)) in &piece.objects {
                let object = result.clone().doing("read an object").map(|()| &buffer[..*len]);
                if visit(located, object).is_break() {
                    return Ok(false);
                }
            }
            if progress(Progress { slots_done: piece.slots_done, slots }).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an object is still in the slot where the index named it. One that fails its checks and is not is no
    /// damage: it was replaced or deleted, and its slot may have been written since.
    pub(crate) fn is_there(&self, located: &Located) -> bool {
        self.shared.index.entry(located.slot) == located.entry
    }
}
