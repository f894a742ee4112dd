//! What a device holds that is not a store, known by the magic numbers that everyone else puts on devices.

use raw_block_core::{AlignedBuf, Dispatcher, ReadAt, WriteAt};

use crate::Error;
use crate::error::Doing;

/// Bytes at the beginning and at the end of a device that are looked at. The farthest magic is the last of the
/// uberblocks of ZFS, which end 256 KiB from the beginning.
const LOOKED_AT: u64 = 256 << 10;

/// Where a magic number is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes from the beginning.
    Start(u64),
    /// So many bytes before the end.
    End(u64),
    /// Every so many bytes in a range from the beginning.
    Every(u64, u64, u64),
    /// Within the last 64 KiB that are aligned to as much and followed by as much.
    LastWhole64KiB,
}

use Place::{End, Every, LastWhole64KiB, Start};

/// `blkid(8)` knows these too, and many more of systems that hardly anybody has. Little-endian where both occur.
const KNOWN: &[(&str, Place, &[u8])] = &[
    ("a GUID partition table", Start(512), b"EFI PART"),
    ("a GUID partition table", Start(4096), b"EFI PART"),
    ("the backup of a GUID partition table", End(512), b"EFI PART"),
    ("the backup of a GUID partition table", End(4096), b"EFI PART"),
    ("a partition table or a boot sector", Start(510), &[0x55, 0xAA]),
    ("a file system (ext2, ext3 or ext4)", Start(1080), &[0x53, 0xEF]),
    ("a file system (XFS)", Start(0), b"XFSB"),
    ("a file system (Btrfs)", Start(65600), b"_BHRfS_M"),
    ("a file system (F2FS)", Start(1024), &[0x10, 0x20, 0xF5, 0xF2]),
    ("a file system (bcachefs)", Start(4120), &BCACHEFS),
    ("a file system (NTFS)", Start(3), b"NTFS    "),
    ("a file system (exFAT)", Start(3), b"EXFAT   "),
    ("a file system (FAT)", Start(54), b"FAT1"),
    ("a file system (FAT)", Start(82), b"FAT32   "),
    ("a file system (JFS)", Start(32768), b"JFS1"),
    ("a file system (ReiserFS)", Start(65588), b"ReIsEr"),
    ("a file system (NILFS2)", Start(1030), &[0x34, 0x34]),
    ("a file system (GFS2)", Start(65536), &[0x01, 0x16, 0x19, 0x70]),
    ("a file system (OCFS2)", Start(8192), b"OCFSV2"),
    ("a file system (HFS+)", Start(1024), b"H+"),
    ("a file system (APFS)", Start(32), b"NXSB"),
    ("a file system (ISO 9660)", Start(32769), b"CD001"),
    ("a file system (UDF)", Start(32769), b"BEA01"),
    ("a file system (SquashFS)", Start(0), b"hsqs"),
    ("a file system (EROFS)", Start(1024), &[0xE2, 0xE1, 0xF5, 0xE0]),
    ("a member of a ZFS pool", ZFS_UBERBLOCKS, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]),
    ("a member of a ZFS pool", ZFS_UBERBLOCKS, &[0, 0, 0, 0, 0, 0xBA, 0xB1, 0x0C]),
    ("a swap area", Start(4086), b"SWAPSPACE2"),
    ("a swap area", Start(65526), b"SWAPSPACE2"),
    ("a physical volume of LVM", Every(0, 2048, 512), b"LABELONE"),
    ("an encrypted volume (LUKS)", Start(0), b"LUKS\xBA\xBE"),
    ("an encrypted volume (LUKS)", Start(16384), b"SKUL\xBA\xBE"),
    ("an encrypted volume (BitLocker)", Start(3), b"-FVE-FS-"),
    ("a member of a RAID (md)", Start(0), &MD),
    ("a member of a RAID (md)", Start(4096), &MD),
    ("a member of a RAID (md)", End(8192), &MD),
    ("a member of a RAID (md)", LastWhole64KiB, &MD),
    ("a cache device (bcache)", Start(4120), &BCACHE),
    ("a device of Ceph", Start(0), b"bluestore block device\n"),
    ("a disk image (qcow2)", Start(0), b"QFI\xFB"),
];

/// Label 0: 128 KiB of uberblocks, each of at least 1 KiB.
const ZFS_UBERBLOCKS: Place = Every(128 << 10, 256 << 10, 1024);
/// `MD_SB_MAGIC` of `linux/raid/md_p.h`.
const MD: [u8; 4] = 0xA92B_4EFC_u32.to_le_bytes();
const BCACHE: [u8; 16] = 0xC685_73F6_4E1A_45CA_8265_F57F_48BA_6D81_u128.to_be_bytes();
const BCACHEFS: [u8; 16] = 0xC685_73F6_66CE_90A9_D96A_60CF_803D_F7EF_u128.to_be_bytes();

/// A magic number on a device.
#[derive(Debug)]
pub(crate) struct Signature {
    /// What it is the sign of.
    pub(crate) what: &'static str,
    /// Where it is, in bytes.
    pub(crate) offset: u64,
    len: u64,
}

/// The signatures on a device of something other than a store.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn find(device: &Dispatcher) -> Result<Vec<Signature>, Error> {
    const DOING: &str = "look for what is on the device";
    let capacity = device.geometry().capacity;
    let alignment = u64::from(device.geometry().transfer_alignment);
    let len = LOOKED_AT.next_multiple_of(alignment).min(capacity - capacity % alignment);
    let end = (capacity - len).next_multiple_of(alignment).min(capacity - len);
    let in_memory = usize::try_from(len).unwrap_or(0);
    let mut pieces =
        [(0, AlignedBuf::zeroed(in_memory).doing(DOING)?), (end, AlignedBuf::default())];
    pieces[1].1 = AlignedBuf::zeroed(in_memory).doing(DOING)?;
    for (offset, piece) in &mut pieces {
        device.read_buffers(&mut [ReadAt::new(*offset, piece)]).all().doing(DOING)?;
    }
    let holds = |offset: u64, magic: &[u8]| {
        pieces.iter().any(|(from, piece)| {
            let at = offset.checked_sub(*from).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| piece.get(at..)?.get(..magic.len())) == Some(magic)
        })
    };
    let mut found = Vec::new();
    for &(what, place, magic) in KNOWN {
        let hits = offsets(place, capacity).filter(|&offset| holds(offset, magic));
        let len = magic.len() as u64;
        found.extend(hits.map(|offset| Signature { what, offset, len }));
    }
    Ok(found)
}

fn offsets(place: Place, capacity: u64) -> impl Iterator<Item = u64> {
    let (first, end, step) = match place {
        Start(offset) => (offset, offset + 1, 1),
        End(back) => capacity.checked_sub(back).map_or((0, 0, 1), |at| (at, at + 1, 1)),
        Every(first, end, step) => (first, end, step),
        LastWhole64KiB => {
            let at = (capacity & !0xFFFF).checked_sub(0x1_0000);
            at.map_or((0, 0, 1), |at| (at, at + 1, 1))
        }
    };
    (first..end).step_by(usize::try_from(step).unwrap_or(1))
}

/// Overwrites signatures with zeroes, each with the rest of its block, so that nobody takes the device for what
/// it was.
///
/// # Errors
/// [`Error::Device`].
pub(crate) fn erase(device: &Dispatcher, signatures: &[Signature]) -> Result<(), Error> {
    const DOING: &str = "erase what was on the device";
    let alignment = u64::from(device.geometry().transfer_alignment);
    for &Signature { offset, len, .. } in signatures {
        let from = offset - offset % alignment;
        let to = (offset + len).next_multiple_of(alignment);
        let zeroes = AlignedBuf::zeroed(usize::try_from(to - from).unwrap_or(0)).doing(DOING)?;
        device.write_buffers(&[WriteAt::new(from, &zeroes)]).all().doing(DOING)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raw_block_core::{Geometry, IoBackend, MemoryBackend};

    use super::*;
    use crate::{FormatOptions, Store};

    const LEN: u64 = (1 << 20) + 8192;

    fn put(device: &Dispatcher, offset: u64, bytes: &[u8]) {
        let block = device.geometry().transfer_alignment as usize;
        let from = offset - offset % block as u64;
        let at = usize::try_from(offset - from).unwrap();
        let mut buffer = vec![0; (at + bytes.len()).next_multiple_of(block)];
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        device.write_buffers(&[WriteAt::new(from, &buffer)]).all().unwrap();
    }

    #[test]
    fn whatever_is_known_is_found_spared_and_erased_when_it_is_forced() {
        for logical_block in [512, 4096] {
            for &(what, place, magic) in KNOWN {
                for offset in [offsets(place, LEN).next(), offsets(place, LEN).last()] {
                    let geometry = Geometry::new(LEN, logical_block).unwrap();
                    let backend: Arc<dyn IoBackend> =
                        Arc::new(MemoryBackend::with_geometry(geometry));
                    let device = Dispatcher::new(backend.clone()).unwrap();
                    let offset = offset.unwrap();
                    put(&device, offset, magic);
                    let found = find(&device).unwrap();
                    assert!(
                        found.iter().any(|found| (found.what, found.offset) == (what, offset)),
                        "{what} at {offset}: {found:?}"
                    );

                    let options = FormatOptions::for_payloads(4096);
                    match Store::format(backend.clone(), &options) {
                        Err(Error::Occupied { what: said, .. }) => assert!(!said.is_empty()),
                        other => panic!("{what}: {other:?}"),
                    }
                    let again = find(&device).unwrap();
                    assert_eq!(again.len(), found.len(), "{what}: nothing was written");
                    Store::format(backend.clone(), &FormatOptions { force: true, ..options })
                        .unwrap();
                    assert!(find(&device).unwrap().is_empty(), "{what} is gone");
                    Store::open(backend).unwrap().close().unwrap();
                }
            }
        }
    }

    #[test]
    fn a_store_is_no_signature_and_small_devices_are_looked_at_too() {
        for len in [512, 4096, 40 << 10, 300 << 10, LEN] {
            let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(len).unwrap());
            let device = Dispatcher::new(backend.clone()).unwrap();
            assert!(find(&device).unwrap().is_empty());
            if Store::format(backend, &FormatOptions::for_payloads(512)).is_ok() {
                assert!(find(&device).unwrap().is_empty());
            }
        }
    }
}
