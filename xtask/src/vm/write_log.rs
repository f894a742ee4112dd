//! What QEMU's driver `blklogwrites` notes of a drive, and what is left of it after a power cut. The layout is that
//! of the kernel's `Documentation/admin-guide/device-mapper/log-writes.rst`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR_LEN: usize = 512;
const SECTOR: u64 = SECTOR_LEN as u64;
const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;

/// What became of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Writes that a flush had made durable.
    pub(crate) durable: u64,
    /// Sectors written since, which were in the drive's cache: those that were kept and those that were not.
    pub(crate) kept: u64,
    pub(crate) lost: u64,
}

struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data begins in the log, in bytes.
    data: u64,
}

/// Writes to `image`, which is empty, what a drive holds when its power goes at the end of the log: every write up
/// to the last flush, and of each later one any of its sectors, drawn by `seed`.
pub(crate) fn replay(log: &Path, image: &Path, seed: u64) -> Result<Replayed> {
    let file = File::open(log).with_context(|| format!("cannot open {}", log.display()))?;
    let output = File::options().write(true).open(image);
    let output = output.with_context(|| format!("cannot open {}", image.display()))?;
    let entries = entries(&file).with_context(|| format!("cannot read {}", log.display()))?;
    let last_flush = entries.iter().rposition(|entry| entry.flags & FLUSH != 0).unwrap_or(0);
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut replayed = Replayed::default();
    for (number, entry) in entries.iter().enumerate() {
        let is_durable = number < last_flush || entry.flags & FUA != 0;
        replayed.durable += u64::from(is_durable && entry.sectors > 0);
        for sector in 0..entry.sectors {
            if !is_durable {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if random & (1 << 40) == 0 {
                    replayed.lost += 1;
                    continue;
                }
                replayed.kept += 1;
            }
            let from = (entry.flags & DISCARD == 0).then_some(entry.data + sector * SECTOR);
            copy(&file, from, &output, (entry.sector + sector) * SECTOR)
                .with_context(|| format!("cannot replay {}", log.display()))?;
        }
    }
    Ok(replayed)
}

/// Copies a sector between places in bytes; from nowhere come zeroes.
fn copy(log: &File, from: Option<u64>, image: &File, to: u64) -> io::Result<()> {
    let mut bytes = [0; SECTOR_LEN];
    if let Some(from) = from {
        log.read_exact_at(&mut bytes, from)?;
    }
    image.write_all_at(&bytes, to)
}

/// The entries, without the last ones that were being written when QEMU was killed.
fn entries(log: &File) -> Result<Vec<Entry>> {
    let field = |offset| -> io::Result<u64> {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, offset).map(|()| u64::from_le_bytes(bytes))
    };
    let (magic, version) = (field(0)?, field(8)?);
    if (magic, version) != (MAGIC, 1) {
        bail!("it is no log of writes (magic {magic:#x}, version {version})");
    }
    let len = log.metadata()?.len();
    let mut entries = Vec::new();
    let mut at = SECTOR;
    while at + SECTOR <= len {
        let (sector, sectors, flags) = (field(at)?, field(at + 8)?, field(at + 16)?);
        // Nothing was written here: no entry has neither a length nor a flag.
        if (sectors, flags) == (0, 0) {
            break;
        }
        let data = at + SECTOR;
        at = if flags & DISCARD == 0 { data + sectors * SECTOR } else { data };
        entries.push(Entry { sector, sectors, flags, data });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A log of entries: sector, flags, and one byte for each sector.
    fn log(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut log = vec![0; 512];
        log[..8].copy_from_slice(&MAGIC.to_le_bytes());
        log[8] = 1;
        for (sector, flags, bytes) in entries {
            let fields = [*sector, bytes.len() as u64, *flags, 0];
            let mut entry: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
            entry.resize(512, 0);
            log.extend(entry);
            log.extend(bytes.iter().flat_map(|&byte| [byte; 512]));
        }
        // As long as QEMU's file, which is longer than what was written.
        log.extend([0; 4096]);
        log
    }

    fn image_after(entries: &[(u64, u64, &[u8])], seed: u64) -> (Replayed, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let [log_path, image] = ["log", "image"].map(|name| directory.path().join(name));
        fs::write(&log_path, log(entries)).unwrap();
        fs::write(&image, [0; 16 * 512]).unwrap();
        let replayed = replay(&log_path, &image, seed).unwrap();
        (replayed, fs::read(image).unwrap().chunks(512).map(|sector| sector[9]).collect())
    }

    #[test]
    fn what_was_flushed_is_kept_in_order() {
        let (replayed, image) =
            image_after(&[(0, 0, &[1, 1, 1]), (1, 0, &[2]), (0, FLUSH, &[])], 1);
        assert_eq!(replayed, Replayed { durable: 2, kept: 0, lost: 0 });
        assert_eq!(image[..4], [1, 2, 1, 0]);
    }

    #[test]
    fn of_what_came_after_the_flush_any_part_is_lost() {
        let later = [7; 16];
        let mut kept = Vec::new();
        for seed in 0..8 {
            let (replayed, image) =
                image_after(&[(0, 0, &[1; 16]), (0, FLUSH, &[]), (0, 0, &later)], seed);
            assert_eq!(replayed.kept + replayed.lost, 16);
            assert_eq!(image.iter().filter(|&&byte| byte == 7).count() as u64, replayed.kept);
            assert!(image.iter().all(|byte| [1, 7].contains(byte)));
            kept.push(image);
        }
        kept.dedup();
        assert!(kept.len() > 4, "every seed loses the same");
    }

    #[test]
    fn a_write_with_fua_needs_no_flush() {
        let (replayed, image) = image_after(&[(2, FUA, &[5])], 1);
        assert_eq!((replayed.durable, image[2]), (1, 5));
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, [0; 4096]).unwrap();
        let error = format!("{:#}", replay(&path, &path, 1).unwrap_err());
        assert!(error.contains("no log of writes"), "{error}");
    }
}
