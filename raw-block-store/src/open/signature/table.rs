//! The magic numbers by which other software finds what it put on a device.
//!
//! All kinds that `blkid(8)` finds are here, and some that it does not. Where `blkid(8)` also wants
//! a checksum or a plausible field to be right, only the magic number counts: formatting refuses
//! too much rather than too little.

/// Offsets at which a magic number may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct MagicLocation {
    /// 0 to count from the start of the device. Otherwise the size of the device is rounded down to
    /// a multiple of this, and `first` is the distance back from there.
    align: u64,
    /// The first offset or distance, in bytes.
    first: u64,
    /// From each offset to the next, in bytes.
    step: u64,
    /// How many offsets there are.
    count: u64,
}

impl MagicLocation {
    /// Every `step` bytes, `count` times, from the offset of this place on.
    const fn every(self, step: u64, count: u64) -> Self {
        Self { step, count, ..self }
    }

    /// The offsets on a device of `capacity` bytes, in bytes; none where the device is too small.
    pub(super) fn offsets(self, capacity: u64) -> impl Iterator<Item = u64> {
        let Self { align, first, step, count } = self;
        let from =
            if align == 0 { Some(first) } else { (capacity - capacity % align).checked_sub(first) };
        from.into_iter().flat_map(move |from| (0..count).map(move |nth| from + nth * step))
    }
}

/// `first` bytes from the start of the device.
const fn at(first: u64) -> MagicLocation {
    MagicLocation { align: 0, first, step: 0, count: 1 }
}

/// `first` bytes before the end of the device's last sector of 512 bytes.
const fn back(first: u64) -> MagicLocation {
    back_of(512, first)
}

/// `first` bytes before the last multiple of `align` on the device.
const fn back_of(align: u64, first: u64) -> MagicLocation {
    MagicLocation { align, first, step: 0, count: 1 }
}

/// What it is, where its magic numbers may be, and what they may be.
pub(super) type Kind = (&'static str, &'static [MagicLocation], &'static [&'static [u8]]);

/// Kinds that give more away come first: the first that is found is reported.
pub(super) const KNOWN: &[Kind] = &[
    // Volumes and members of them.
    ("a member of a RAID (md)", &[at(0), at(4096), back_of(4096, 8192)], &[&MD_LITTLE]),
    ("a member of a RAID (md)", &[back_of(64 << 10, 64 << 10)], &[&MD_LITTLE, &MD_BIG]),
    ("a member of a RAID (DDF)", &[back(512), back(257 * 512)], &[&[0xDE, 0x11, 0xDE, 0x11]]),
    (
        "a member of a RAID (Intel Matrix Storage)",
        &[back(1024), back(8192)],
        &[b"Intel Raid ISM Cfg Sig. "],
    ),
    ("a member of a RAID (LSI MegaRAID)", &[back(512)], &[b"$XIDE$"]),
    (
        "a member of a RAID (VIA)",
        &[back(512)],
        &[&[0x55, 0xAA, 0], &[0x55, 0xAA, 1], &[0x55, 0xAA, 2]],
    ),
    ("a member of a RAID (Silicon Medley)", &[back(512 - 0x60)], &[&[0, 0, 0, 0x2F]]),
    ("a member of a RAID (NVIDIA)", &[back(1024)], &[b"NVIDIA  "]),
    ("a member of a RAID (Promise FastTrak)", PROMISE, &[b"Promise Technology, Inc."]),
    (
        "a member of a RAID (HighPoint)",
        &[back(11 * 512), at(9 * 512 + 32)],
        &[&[0xF0, 0x16, 0x78, 0x5A], &[0xF3, 0x16, 0x78, 0x5A], &[0xFD, 0x16, 0x78, 0x5A]],
    ),
    ("a member of a RAID (Adaptec)", &[back(512)], &[&[0x37, 0xFC, 0x4D, 0x1E]]),
    ("a member of a RAID (JMicron)", &[back(512)], &[b"JM"]),
    (
        "a device of DRBD",
        &[back_of(4096, 4096 - 60)],
        &[&[0x83, 0x74, 0x02, 0x6B], &[0x83, 0x74, 0x02, 0x6C], &[0x83, 0x74, 0x02, 0x6D]],
    ),
    ("a control volume of DRBD", &[at(0)], &[b"$DRBDmgr=q"]),
    ("a data log of DRBD Proxy", &[at(0)], &[b"DRBDdlh*"]),
    ("a physical volume of LVM", &[at(0).every(512, 4)], &[b"LABELONE"]),
    ("a physical volume of LVM", &[at(24).every(512, 4)], &[b"LVM2 001"]),
    ("a physical volume of LVM", &[at(0)], &[b"HM\x01\0", b"HM\x02\0"]),
    ("a snapshot of device-mapper", &[at(0)], &[b"SnAp"]),
    ("a hash device of dm-verity", &[at(0)], &[b"verity\0\0"]),
    ("a device of dm-integrity", &[at(0)], &[b"integrt\0"]),
    ("a device of VDO", &[at(0)], &[b"dmvdo001"]),
    ("a device of Stratis", &[at(516), at(9 * 512 + 4)], &[b"!Stra0tis\x86\xFF\x02^\x41rh"]),
    ("an encrypted volume (LUKS)", &[at(0)], &[b"LUKS\xBA\xBE"]),
    ("an encrypted volume (LUKS)", LUKS_SECOND_HEADER, &[b"SKUL\xBA\xBE"]),
    ("an encrypted volume (BitLocker)", &[at(3)], &[b"-FVE-FS-"]),
    ("an encrypted volume (BitLocker)", &[at(424)], &[&BITLOCKER_TO_GO]),
    ("an encrypted volume (FileVault)", &[at(88)], &[b"CS\x01\0\0\0"]),
    ("a member of a VMFS volume", &[at(1 << 20)], &[&[0x0D, 0xD0, 0x01, 0xC0]]),
    ("a volume of UBI", &[at(0)], &[b"UBI#"]),
    ("a cache device (bcache)", &[at(4096 + 24)], &[&BCACHE]),
    ("a device of Ceph", &[at(0)], &[b"bluestore block device"]),
    ("a disk of Oracle ASM", &[at(32)], &[b"ORCLDISK"]),
    ("a device of mpool", &[at(0)], &[b"mpoolDev"]),
    (
        "a member of a ZFS pool",
        ZFS_UBERBLOCKS,
        &[&[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0xBA, 0xB1, 0x0C]],
    ),
    ("a member of a ZFS pool", ZFS_FIRST_PAIRS, &[b"\0\0\0\x07version"]),
    // Swap areas.
    (
        "an image of a suspended system",
        SWAP_MAGICS,
        &[b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"],
    ),
    ("an image of a suspended system", &[at(0)], &[&[0xED, 0xC3, 2, 0xE9, 0x98, 0x56, 0xE5, 0x0C]]),
    ("a swap area", SWAP_MAGICS, &[b"SWAP-SPACE", b"SWAPSPACE2"]),
    // File systems.
    ("a file system (ext2, ext3 or ext4)", &[at(1080)], &[&[0x53, 0xEF]]),
    ("a file system (XFS)", &[at(0)], &[b"XFSB"]),
    ("a log of an XFS file system", &[at(0).every(512, 512)], &[&[0xFE, 0xED, 0xBA, 0xBE]]),
    ("a file system (EXFS)", &[at(0)], &[b"EXFS"]),
    ("a file system (Btrfs)", &[at((64 << 10) + 64)], &[b"_BHRfS_M"]),
    ("a file system (F2FS)", &[at(1024), at(5120)], &[&[0x10, 0x20, 0xF5, 0xF2]]),
    (
        "a file system (bcachefs)",
        &[at(4096 + 24), at((2 << 20) + 24), back((1 << 20) - 24)],
        &[&BCACHEFS],
    ),
    ("a file system (NTFS)", &[at(3)], &[b"NTFS    "]),
    ("a file system (ReFS)", &[at(0)], &[b"\0\0\0ReFS\0"]),
    ("a file system (exFAT)", &[at(3)], &[b"EXFAT   "]),
    ("a file system (FAT)", &[at(0x36)], &[b"MSDOS", b"FAT12   ", b"FAT16   ", b"FAT     "]),
    ("a file system (FAT)", &[at(0x52)], &[b"MSWIN", b"FAT32   "]),
    ("a file system (HPFS)", &[at(8192)], &[&[0x49, 0xE8, 0x95, 0xF9]]),
    ("a file system (JFS)", &[at(32 << 10)], &[b"JFS1"]),
    (
        "a file system (ReiserFS)",
        &[at((64 << 10) + 52), at(8192 + 52), at(8192 + 20)],
        &[b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs"],
    ),
    ("a file system (Reiser4)", &[at(64 << 10)], &[b"ReIsEr4"]),
    ("a file system (NILFS2)", &[at(1030), back(4096 - 6)], &[&[0x34, 0x34]]),
    ("a file system (GFS or GFS2)", &[at(64 << 10)], &[&[0x01, 0x16, 0x19, 0x70]]),
    ("a file system (OCFS)", &[at(8192)], &[b"OracleCFS"]),
    ("a file system (OCFS2)", &[at(1024), at(2048), at(4096), at(8192)], &[b"OCFSV2"]),
    ("a file system (ScoutFS)", &[at((64 << 10) + 4)], &[&[0x8B, 0x42, 0x3C, 0x10]]),
    ("a file system (VMFS)", &[at(2 << 20)], &[&[0x5E, 0xF1, 0xAB, 0x2F]]),
    ("a file system (zonefs)", &[at(0)], &[b"SFOZ"]),
    ("a file system (APFS)", &[at(32)], &[b"NXSB"]),
    ("a file system (HFS or HFS+)", &[at(1024)], &[b"BD", b"H+", b"HX"]),
    ("a file system (ISO 9660)", &[at((32 << 10) + 1)], &[b"CD001"]),
    ("a file system (High Sierra)", &[at((32 << 10) + 9)], &[b"CDROM"]),
    (
        "a file system (UDF)",
        &[at((32 << 10) + 1)],
        &[b"BEA01", b"BOOT2", b"CDW02", b"NSR02", b"NSR03", b"TEA01"],
    ),
    ("a file system (SquashFS)", &[at(0)], &[b"hsqs", b"sqsh"]),
    ("a file system (EROFS)", &[at(1024)], &[&[0xE2, 0xE1, 0xF5, 0xE0]]),
    ("a file system (cramfs)", &[at(0)], &[&[0x45, 0x3D, 0xCD, 0x28], &[0x28, 0xCD, 0x3D, 0x45]]),
    ("a file system (romfs)", &[at(0)], &[b"-rom1fs-"]),
    ("a file system (UBIFS)", &[at(0)], &[&[0x31, 0x18, 0x10, 0x06]]),
    ("a file system (BFS)", &[at(0)], &[&[0xCE, 0xFA, 0xAD, 0x1B]]),
    ("a file system (BeFS)", &[at(32), at(512 + 32)], &[b"BFS1", b"1SFB"]),
    ("a file system (NSS)", &[at(4096)], &[b"SPB5"]),
    ("a file system (VxFS)", &[at(1024)], &[&[0xF5, 0xFC, 0x01, 0xA5]]),
    ("a file system (VxFS)", &[at(8192)], &[&[0xA5, 0x01, 0xFC, 0xF5]]),
    (
        "a file system (UFS)",
        UFS_MAGICS,
        &[
            &0x0001_1954_u32.to_le_bytes(),
            &0x0001_1954_u32.to_be_bytes(),
            &0x1954_0119_u32.to_le_bytes(),
            &0x1954_0119_u32.to_be_bytes(),
            &0x0019_5612_u32.to_le_bytes(),
            &0x0019_5612_u32.to_be_bytes(),
            &0x0009_5014_u32.to_le_bytes(),
            &0x0009_5014_u32.to_be_bytes(),
            &0x0061_2195_u32.to_le_bytes(),
            &0x0061_2195_u32.to_be_bytes(),
            &0x0523_1994_u32.to_le_bytes(),
            &0x0523_1994_u32.to_be_bytes(),
        ],
    ),
    (
        "a file system (System V)",
        &[at(1016), at(9 * 1024 + 1016), at(15 * 1024 + 1016), at(18 * 1024 + 1016)],
        &[&[0x20, 0x7E, 0x18, 0xFD], &[0xFD, 0x18, 0x7E, 0x20]],
    ),
    ("a file system (Xenix)", &[at(2040), at(2048)], &[&[0x44, 0x55, 0x2B], &[0x2B, 0x55, 0x44]]),
    (
        "a file system (Minix)",
        &[at(1024 + 16)],
        &[
            &[0x7F, 0x13],
            &[0x13, 0x7F],
            &[0x8F, 0x13],
            &[0x13, 0x8F],
            &[0x68, 0x24],
            &[0x24, 0x68],
            &[0x78, 0x24],
            &[0x24, 0x78],
        ],
    ),
    ("a file system (Minix)", &[at(1024 + 24)], &[&[0x5A, 0x4D], &[0x4D, 0x5A]]),
    ("a disk image (qcow2)", &[at(0)], &[b"QFI\xFB"]),
    // Partition tables.
    ("a GUID partition table", &[at(512), at(4096)], &[b"EFI PART"]),
    ("the backup of a GUID partition table", &[back(512), back(4096)], &[b"EFI PART"]),
    ("a partition table (AIX)", &[at(0)], &[&[0xC9, 0xC2, 0xD4, 0xC1]]),
    ("a partition table (Amiga)", &[at(0).every(512, 16)], &[b"RDSK"]),
    (
        "a partition table (Atari)",
        &[at(0x1C6).every(12, 4)],
        &[
            b"\x01GEM", b"\x01BGM", b"\x01LNX", b"\x01SWP", b"\x01RAW", b"\x01XGM", b"\x81GEM",
            b"\x81BGM", b"\x81LNX", b"\x81SWP", b"\x81RAW", b"\x81XGM",
        ],
    ),
    ("a partition table (BSD)", &[at(64), at(128), at(512)], &[&[0x57, 0x45, 0x56, 0x82]]),
    (
        "a partition table (DASD)",
        DASD_BLOCKS,
        &[&[0xD3, 0xD5, 0xE7, 0xF1], &[0xC3, 0xD4, 0xE2, 0xF1]],
    ),
    ("a partition table (DASD)", DASD_LABELS, &[&[0xE5, 0xD6, 0xD3, 0xF1]]),
    ("a partition table (Mac)", &[at(0)], &[b"ER\x02\0", b"ER\x04\0", b"ER\x08\0", b"ER\x10\0"]),
    ("a partition table (SGI)", &[at(0)], &[&[0x0B, 0xE5, 0xA9, 0x41]]),
    ("a partition table (Solaris)", &[at(512 + 12)], &[&[0xEE, 0xDE, 0x0D, 0x60]]),
    ("a partition table (Sun)", &[at(508)], &[&[0xDA, 0xBE]]),
    ("a partition table (Ultrix)", &[at(16384 - 72)], &[b"\x57\x29\x03\0\x01\0\0\0"]),
    ("a partition table (UnixWare)", &[at(29 * 512 + 4)], &[&[0x0D, 0x60, 0xE5, 0xCA]]),
    ("a partition table or a boot sector", &[at(510)], &[&[0x55, 0xAA]]),
];

/// `MD_SB_MAGIC` of `linux/raid/md_p.h`; version 0.90 has it in the byte order of the machine.
const MD_LITTLE: [u8; 4] = 0xA92B_4EFC_u32.to_le_bytes();
const MD_BIG: [u8; 4] = 0xA92B_4EFC_u32.to_be_bytes();
const BCACHE: [u8; 16] = 0xC685_73F6_4E1A_45CA_8265_F57F_48BA_6D81_u128.to_be_bytes();
const BCACHEFS: [u8; 16] = 0xC685_73F6_66CE_90A9_D96A_60CF_803D_F7EF_u128.to_be_bytes();
/// The GUID of a volume of BitLocker To Go, which otherwise looks like FAT.
const BITLOCKER_TO_GO: [u8; 16] = 0x3BD6_6749_292E_D84A_8399_F6A3_39E3_D001_u128.to_be_bytes();

/// By the geometry that the controller makes up for the disk.
const PROMISE: &[MagicLocation] = &[
    back(63 * 512),
    back(255 * 512),
    back(256 * 512),
    back(16 * 512),
    back(399 * 512),
    back(591 * 512),
    back(675 * 512),
    back(735 * 512),
    back(911 * 512),
    back(974 * 512),
    back(991 * 512),
    back(951 * 512),
    back(3087 * 512),
];

/// By the size of the first header with its metadata: 16 KiB to 4 MiB.
const LUKS_SECOND_HEADER: &[MagicLocation] = &[
    at(16 << 10),
    at(32 << 10),
    at(64 << 10),
    at(128 << 10),
    at(256 << 10),
    at(512 << 10),
    at(1 << 20),
    at(2 << 20),
    at(4 << 20),
];

/// In the last ten bytes of the first page, whose size is that of the machine that made it: 4 to 64
/// KiB.
const SWAP_MAGICS: &[MagicLocation] = &[
    at((4 << 10) - 10),
    at((8 << 10) - 10),
    at((16 << 10) - 10),
    at((32 << 10) - 10),
    at((64 << 10) - 10),
];

/// Two labels of 256 KiB at the start and two at the end. The second half of each is uberblocks of
/// at least 1 KiB.
const ZFS_LABEL: u64 = 256 << 10;
const ZFS_UBERBLOCKS: &[MagicLocation] = &[
    at(ZFS_LABEL / 2).every(1024, 128),
    at(ZFS_LABEL + ZFS_LABEL / 2).every(1024, 128),
    back_of(ZFS_LABEL, 2 * ZFS_LABEL - ZFS_LABEL / 2).every(1024, 128),
    back_of(ZFS_LABEL, ZFS_LABEL - ZFS_LABEL / 2).every(1024, 128),
];
/// Length and name of the first pair in the configuration, which is 16 KiB into each label.
const ZFS_PAIR: u64 = (16 << 10) + 20;
const ZFS_FIRST_PAIRS: &[MagicLocation] = &[
    at(ZFS_PAIR),
    at(ZFS_LABEL + ZFS_PAIR),
    back_of(ZFS_LABEL, 2 * ZFS_LABEL - ZFS_PAIR),
    back_of(ZFS_LABEL, ZFS_LABEL - ZFS_PAIR),
];

/// Superblocks at 0, 8, 64 and 256 KiB, each with its magic number in the last four bytes of 1376.
const UFS_MAGICS: &[MagicLocation] =
    &[at(1372), at((8 << 10) + 1372), at((64 << 10) + 1372), at((256 << 10) + 1372)];

/// Its third block, of 512 to 4096 bytes.
const DASD_BLOCKS: &[MagicLocation] = &[at(1024), at(2048), at(4096), at(8192)];
/// After four bytes of a key.
const DASD_LABELS: &[MagicLocation] = &[at(1028), at(2052), at(4100), at(8196)];
