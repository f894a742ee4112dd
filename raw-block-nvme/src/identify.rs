//! The data structures of the Identify command: what the controller and the namespace report.

use raw_block_core::{Error, ErrorKind};

/// The unit of MDTS and similar limits: the smallest page of the controller (CAP.MPSMIN). It cannot
/// be read through this device, so this is the smallest that the specification allows.
pub(crate) const PAGE: u64 = 4096;

/// A data structure that Identify returns.
pub(crate) type Page = [u8; 4096];

/// Values of CNS, which select the data structure.
pub(crate) mod cns {
    pub(crate) const NAMESPACE: u8 = 0x00;
    pub(crate) const CONTROLLER: u8 = 0x01;
    pub(crate) const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    pub(crate) const COMMAND_SET_CONTROLLER: u8 = 0x06;
}

fn u16_at(page: &Page, offset: usize) -> u16 {
    u16::from_le_bytes([page[offset], page[offset + 1]])
}

fn u32_at(page: &Page, offset: usize) -> u32 {
    u32::from(u16_at(page, offset)) | u32::from(u16_at(page, offset + 2)) << 16
}

fn u64_at(page: &Page, offset: usize) -> u64 {
    u64::from(u32_at(page, offset)) | u64::from(u32_at(page, offset + 4)) << 32
}

fn text_at(page: &Page, range: std::ops::Range<usize>) -> String {
    let text = String::from_utf8_lossy(&page[range]);
    text.trim_matches(['\0', ' ']).to_owned()
}

/// What a controller reports: Identify Controller (Base Specification) and Identify I/O Command Set
/// specific Controller (NVM Command Set Specification). Each field names its bytes in the
/// structure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// Serial number (SN, 23:04).
    pub serial: String,
    /// Model number (MN, 63:24).
    pub model: String,
    /// Firmware revision (FR, 71:64).
    pub firmware: String,
    /// Version of the specification (VER, 83:80): major, minor, tertiary.
    pub version: (u16, u8, u8),
    /// Maximum Data Transfer Size (MDTS, 77): a power of two of the controller's smallest pages; 0
    /// is no limit.
    pub mdts: u8,
    /// Whether it has a volatile write cache (VWC, 525).
    pub volatile_write_cache: bool,
    /// Whether it supports Dataset Management (ONCS, 521:520, bit 2).
    pub deallocate: bool,
    /// Whether it supports Write Zeroes (ONCS, bit 3).
    pub write_zeroes: bool,
    /// Whether it supports flexible data placement (CTRATT, 99:96, bit 19).
    pub data_placement: bool,
    /// The number of blocks that a power cut does not tear (AWUPF, 529:528).
    pub atomic_write_blocks: u64,
    /// Command Retry Delay Times (CRDT1 to CRDT3, 133:128), in units of 100 ms.
    pub retry_delays: [u16; 3],
    /// The most bytes of a Write Zeroes command (WZSL, byte 1 of the second structure), if there is
    /// a limit.
    pub max_write_zeroes: Option<u64>,
    /// The most ranges of a Dataset Management command (DMRL, byte 3 of the second structure), if
    /// there is a limit below the 256 that a command can have.
    pub max_deallocate_ranges: Option<u64>,
    /// The most blocks of one range of Dataset Management (DMRSL, 7:4 of the second structure), if
    /// there is a limit.
    pub max_deallocate_range: Option<u64>,
    /// The most blocks of all ranges of a Dataset Management command (DMSL, 15:8 of the second
    /// structure), if there is a limit.
    pub max_deallocate: Option<u64>,
}

impl Controller {
    /// Parses the structures. `specific` is the second one, which older controllers lack.
    pub(crate) fn parse(page: &Page, specific: Option<&Page>) -> Self {
        let version = u32_at(page, 80);
        let optional = u16_at(page, 520);
        let [_, minor, tertiary] = [version >> 16, version >> 8, version].map(|part| part & 0xFF);
        let limit = |limit: u64| (limit > 0).then_some(limit);
        Self {
            serial: text_at(page, 4..24),
            model: text_at(page, 24..64),
            firmware: text_at(page, 64..72),
            #[expect(clippy::cast_possible_truncation, reason = "masked above, or shifted")]
            version: ((version >> 16) as u16, minor as u8, tertiary as u8),
            mdts: page[77],
            volatile_write_cache: page[525] & 1 != 0,
            deallocate: optional & 1 << 2 != 0,
            write_zeroes: optional & 1 << 3 != 0,
            data_placement: u32_at(page, 96) & 1 << 19 != 0,
            atomic_write_blocks: u64::from(u16_at(page, 528)) + 1,
            retry_delays: [128, 130, 132].map(|offset| u16_at(page, offset)),
            max_write_zeroes: specific.and_then(|page| pages(page[1])),
            max_deallocate_ranges: specific.and_then(|page| limit(page[3].into())),
            max_deallocate_range: specific.and_then(|page| limit(u32_at(page, 4).into())),
            max_deallocate: specific.and_then(|page| limit(u64_at(page, 8))),
        }
    }

    /// The longest transfer that MDTS allows, in bytes, if there is a limit.
    #[must_use]
    pub fn max_transfer(&self) -> Option<u64> {
        pages(self.mdts)
    }
}

/// A limit in bytes, from the exponent of a power of two of pages.
fn pages(exponent: u8) -> Option<u64> {
    (exponent > 0).then(|| PAGE.checked_shl(exponent.into()).filter(|&len| len > 0)).flatten()
}

/// What a namespace reports: Identify Namespace (NVM Command Set Specification). Each field names
/// its bytes in the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// Its identifier (NSID).
    pub id: u32,
    /// The number of logical blocks (NSZE, 7:0).
    pub blocks: u64,
    /// The number of bytes in a logical block, a power of two (LBADS of the format in use).
    pub block: u64,
    /// Globally unique identifier (NGUID, 119:104); zeroes if there is none.
    pub nguid: [u8; 16],
    /// Reads and writes should not cross multiples of this many blocks (NOIOB, 47:46); 0: no such
    /// boundary.
    pub optimal_boundary: u64,
    /// The preferred granularity of writes, in blocks (NPWG, 65:64), if it is reported.
    pub preferred_write: Option<u64>,
    /// The preferred alignment of writes, in blocks (NPWA, 67:66), if it is reported.
    pub preferred_alignment: Option<u64>,
    /// The number of blocks that a power cut does not tear (NAWUPF, 37:36), if it differs from that
    /// of the controller.
    pub atomic_write_blocks: Option<u64>,
    /// Whether there is a boundary that atomic writes must not cross (NABSPF, 45:44).
    pub atomic_boundary: bool,
    /// Whether the namespace is write-protected (NSATTR, 99, bit 0): then it can only be opened
    /// read-only.
    pub write_protected: bool,
}

impl Namespace {
    /// Parses the structure.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an unsupported format, with the reason.
    pub(crate) fn parse(id: u32, page: &Page) -> Result<Self, Error> {
        let refuse = |rule: String| Err(Error::new(ErrorKind::Unsupported, "open", rule));
        let blocks = u64_at(page, 0);
        // FLBAS: bits 3:0 are the lower bits of the format's number, bits 6:5 the upper ones.
        let format = usize::from(page[26] & 0x0F | page[26] >> 1 & 0x30);
        let at = 128 + 4 * format;
        let (metadata, exponent) = (u16_at(page, at), page[at + 2]);
        if blocks == 0 {
            return refuse(format!(
                "namespace {id} has no blocks: it is not attached, or inactive"
            ));
        }
        if metadata > 0 {
            return refuse(format!(
                "its format {format} has {metadata} bytes of metadata per block, which are not supported: format \
                 the namespace without metadata"
            ));
        }
        if !(9..32).contains(&exponent) {
            return refuse(format!(
                "its format {format} reports blocks of 2^{exponent} bytes, which is no valid size of a block: \
                 this namespace does not have the NVM command set"
            ));
        }
        let features = page[24];
        let from_zero = |valid: bool, offset| valid.then(|| u64::from(u16_at(page, offset)) + 1);
        Ok(Self {
            id,
            blocks,
            block: 1 << exponent,
            nguid: std::array::from_fn(|index| page[104 + index]),
            optimal_boundary: u16_at(page, 46).into(),
            preferred_write: from_zero(features & 1 << 4 != 0, 64),
            preferred_alignment: from_zero(features & 1 << 4 != 0, 66),
            atomic_write_blocks: from_zero(features & 1 << 1 != 0, 36),
            atomic_boundary: features & 1 << 1 != 0 && u16_at(page, 44) != 0,
            write_protected: page[99] & 1 != 0,
        })
    }

    /// Fails for a namespace that is write-protected on the device, or whose block device is
    /// read-only on this host.
    pub(crate) fn check_writable(&self, block_device_is_read_only: bool) -> Result<(), Error> {
        let rule = if self.write_protected {
            "the namespace is write-protected: remove the protection (`nvme set-feature -f 0x84`), or open it with \
             `open_read_only`"
        } else if block_device_is_read_only {
            "its block device is read-only: make it writable (`blockdev --setrw`), or open it with `open_read_only`"
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::PermissionDenied, "open", rule))
    }
}

/// The command set in a list of Namespace Identification Descriptors, if there is one.
///
/// A descriptor has a type, a length, two reserved bytes, and a value; a length of 0 ends the list.
pub(crate) fn command_set(descriptors: &Page) -> Option<u8> {
    const COMMAND_SET_IDENTIFIER: u8 = 4;
    let mut rest = &descriptors[..];
    while let [kind, len, _, _, value, ..] = rest
        && *len > 0
    {
        if *kind == COMMAND_SET_IDENTIFIER {
            return Some(*value);
        }
        rest = rest.get(4 + usize::from(*len)..)?;
    }
    None
}
