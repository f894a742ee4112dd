//! The 32 bytes at the beginning of every structure, and their checks.

use core::mem::offset_of;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::crc32c;
use super::damage::Damage;
use crate::mutant::Mutant;

/// The version of the format that this software writes and reads.
pub const VERSION: u32 = 1;

/// The beginning of every structure on the device.
///
/// Its layout is the same in all versions of the format, and so are the bytes that the checksum of
/// a structure covers. So the version can be verified before it is used.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Preamble {
    /// Names the structure.
    pub magic: [u8; 8],
    /// CRC-32C of what follows this field, to the end of the structure.
    pub checksum: U32,
    /// Version of the format.
    pub version: U32,
    /// Identity of the store, drawn at random when it is formatted.
    pub uuid: [u8; 16],
}

const _: () = assert!(size_of::<Preamble>() == 32);
const _: () = assert!(offset_of!(Preamble, magic) == 0);
const _: () = assert!(offset_of!(Preamble, checksum) == 8);
const _: () = assert!(offset_of!(Preamble, version) == 12);
const _: () = assert!(offset_of!(Preamble, uuid) == 16);

impl Preamble {
    /// A preamble that is complete except for its checksum.
    pub(crate) fn new(kind: &Kind, uuid: &[u8; 16]) -> Self {
        Self { magic: kind.magic, checksum: U32::ZERO, version: U32::new(VERSION), uuid: *uuid }
    }

    /// Checks that the structure belongs to the store with this UUID.
    pub(crate) fn check_store(&self, uuid: &[u8; 16]) -> Result<(), Damage> {
        if self.uuid == *uuid { Ok(()) } else { Err(Damage::ForeignStore) }
    }
}

/// A kind of structure.
pub(crate) struct Kind {
    /// The magic with which it begins.
    pub(crate) magic: [u8; 8],
    /// Its name in errors.
    pub(crate) name: &'static str,
}

impl Kind {
    /// Checks the magic, the checksum and the version, in this order, of a
    /// structure: all the bytes that its checksum covers, preamble included.
    pub(crate) fn check<'a>(&self, structure: &'a [u8]) -> Result<&'a Preamble, Damage> {
        let (preamble, _) = Preamble::ref_from_prefix(structure)
            .map_err(|_| Damage::Inconsistent("the block is shorter than the structure"))?;
        if preamble.magic != self.magic {
            return Err(Damage::NotThisStructure { expected: self.name });
        }
        check_crc32c(preamble.checksum, covered(structure))?;
        if preamble.version != VERSION {
            return Err(Damage::Version { found: preamble.version.get(), supported: VERSION });
        }
        Ok(preamble)
    }
}

/// Puts the checksum into a structure that is otherwise complete. A slice that is too short for a
/// preamble stays unchanged.
pub(crate) fn seal(structure: &mut [u8]) {
    let checksum = U32::new(crc32c([covered(structure)]));
    if let Ok((preamble, _)) = Preamble::mut_from_prefix(structure) {
        preamble.checksum = checksum;
    }
}

/// Checks bytes against the CRC-32C stored for them.
pub(crate) fn check_crc32c(stored: U32, bytes: &[u8]) -> Result<(), Damage> {
    let computed = crc32c([bytes]);
    if stored == computed || Mutant::ChecksumsUnchecked.is_on() {
        Ok(())
    } else {
        Err(Damage::Checksum { stored: stored.into(), computed: computed.into() })
    }
}

/// The bytes of a structure that its checksum covers: all that follow it.
fn covered(structure: &[u8]) -> &[u8] {
    structure.get(offset_of!(Preamble, version)..).unwrap_or_default()
}
