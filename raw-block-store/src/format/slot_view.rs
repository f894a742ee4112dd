//! A verified slot header, with the rest of its block.

use zerocopy::FromBytes;

use super::entry::{Entry, KeyHash, check_sequence};
use super::layout::Layout;
use super::sizes::SLOT_HEADER_LEN;
use super::slot_header::{OBJECTS, SlotHeader, TOMBSTONES};
use crate::format::Damage;
use crate::format::damage::ensure;

/// A verified slot header, with the rest of its block.
#[derive(Clone, Copy, Debug)]
pub struct SlotView<'a> {
    /// The fixed part.
    pub header: &'a SlotHeader,
    contents: Contents<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Contents<'a> {
    /// Entries; keys and metadata; the rest of the block.
    Objects(&'a [Entry], &'a [u8], &'a [u8]),
    /// Key hashes.
    Tombstones(&'a [KeyHash]),
}

/// One object of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectView<'a> {
    /// Number of its entry within the segment.
    pub number: u32,
    /// Its entry.
    pub entry: &'a Entry,
    /// Its key.
    pub key: &'a [u8],
    /// Its metadata.
    pub metadata: &'a [u8],
    /// Its payload, not yet verified, if it uses no block: inline or empty.
    pub payload: Option<&'a [u8]>,
}

impl<'a> SlotView<'a> {
    /// Checks all rules of a slot header except those of its hashes.
    pub(super) fn check<'h: 'a>(
        block: &'a [u8],
        header: &'h SlotHeader,
        layout: &Layout,
    ) -> Result<Self, &'static str> {
        const TOO_LONG: &str = "the block ends before what the slot header holds";
        header.check_bounds(layout)?;
        let (_, rest) = block.split_at_checked(SLOT_HEADER_LEN).ok_or(TOO_LONG)?;
        let count = header.count.get().into();
        let end = header.len.get() as usize;
        let contents = match header.kind.get() {
            OBJECTS => {
                let (entries, rest) =
                    <[Entry]>::ref_from_prefix_with_elems(rest, count).map_err(|_| TOO_LONG)?;
                let names_start = SLOT_HEADER_LEN + size_of_val(entries);
                let names_len = end.checked_sub(names_start).ok_or(TOO_LONG)?;
                let (names, tail) = rest.split_at_checked(names_len).ok_or(TOO_LONG)?;
                check_objects(header, entries, names.len(), layout)?;
                Contents::Objects(entries, names, tail)
            }
            TOMBSTONES => {
                let (hashes, _) =
                    <[KeyHash]>::ref_from_prefix_with_elems(rest, count).map_err(|_| TOO_LONG)?;
                ensure(
                    end == SLOT_HEADER_LEN + size_of_val(hashes),
                    "the key hashes of the slot do not end where it says",
                )?;
                check_sequence(header.sequence.get())?;
                ensure(header.blocks == 1, "a slot of tombstones has more than one block")?;
                Contents::Tombstones(hashes)
            }
            _ => return Err("the kind of the slot is unknown"),
        };
        Ok(Self { header, contents })
    }

    /// This slot, if it was written in this generation of its segment.
    ///
    /// # Errors
    /// [`Damage::WrongPlace`] if it was not.
    pub fn of_generation(self, generation: u64) -> Result<Self, Damage> {
        if self.header.generation == generation {
            Ok(self)
        } else {
            let found = self.header.generation.get();
            Err(Damage::WrongPlace { found, expected: generation })
        }
    }

    /// How many entry numbers the slot has: one for all its tombstones.
    #[must_use]
    pub fn entry_numbers(&self) -> u32 {
        self.header.entry_numbers()
    }

    /// The entries of its objects, in order of number; none in a slot of tombstones.
    #[must_use]
    pub fn entries(&self) -> &'a [Entry] {
        match self.contents {
            Contents::Objects(entries, ..) => entries,
            Contents::Tombstones(_) => &[],
        }
    }

    /// The hashes of the deleted keys, in a slot of tombstones.
    #[must_use]
    pub fn tombstones(&self) -> Option<&'a [KeyHash]> {
        match self.contents {
            Contents::Objects(..) => None,
            Contents::Tombstones(hashes) => Some(hashes),
        }
    }

    /// The entry that represents a slot of tombstones in memory and in tables.
    #[must_use]
    pub fn tombstone_entry(&self) -> Option<Entry> {
        self.tombstones()?;
        Some(Entry::tombstone(self.header.sequence.get(), self.header.block.get()))
    }

    /// Its objects, in order of number; none in a slot of tombstones.
    pub fn objects(&self) -> impl Iterator<Item = ObjectView<'a>> + use<'a> {
        let first = self.header.first_entry.get();
        let (entries, mut names, tail) = match self.contents {
            Contents::Objects(entries, names, tail) => (entries, names, tail),
            Contents::Tombstones(_) => (&[][..], &[][..], &[][..]),
        };
        (first..).zip(entries).map(move |(number, entry)| {
            let key = take(&mut names, entry.key_len.get().into());
            let metadata = take(&mut names, entry.metadata_len.get().into());
            let payload = if entry.is_inline() {
                tail.get(..entry.payload_len.get() as usize)
            } else {
                (entry.payload_len.get() == 0).then_some(&[][..])
            };
            ObjectView { number, entry, key, metadata, payload }
        })
    }

    /// The object with this entry number.
    #[must_use]
    pub fn object(&self, number: u32) -> Option<ObjectView<'a>> {
        let at = number.checked_sub(self.header.first_entry.get())?;
        self.objects().nth(at as usize)
    }
}

/// Removes and returns the first `len` bytes of `names`. Checked lengths do not end past it.
fn take<'a>(names: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = names.split_at_checked(len).unwrap_or((*names, &[]));
    *names = rest;
    taken
}

/// The rules for the sequence of objects in a slot: the first payload follows the header, each
/// other payload follows its predecessor, and the slot ends with the last.
fn check_objects(
    header: &SlotHeader,
    entries: &[Entry],
    names_len: usize,
    layout: &Layout,
) -> Result<(), &'static str> {
    ensure(header.sequence.get() == 0, "a slot of objects has the sequence of tombstones")?;
    let block = header.block.get();
    let mut next = u64::from(block) + 1;
    let mut names = 0;
    for entry in entries {
        entry.check_object(layout)?;
        ensure(entry.header_block() == block, "an entry belongs to another slot")?;
        ensure(
            entries.len() == 1 || !entry.is_inline(),
            "the payload of an object that shares its slot is in the header block",
        )?;
        let blocks = entry.payload_blocks(layout.block_size);
        if blocks > 0 {
            ensure(
                u64::from(entry.block) == next,
                "the payloads of the slot overlap, are out of order, or have gaps",
            )?;
            next += u64::from(blocks);
        }
        names += u64::from(entry.names_len());
    }
    ensure(names == names_len as u64, "keys and metadata do not end where the slot says")?;
    ensure(
        next == u64::from(block) + u64::from(header.blocks),
        "the slot does not end with its last payload",
    )
}
