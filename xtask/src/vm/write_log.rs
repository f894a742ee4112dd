//! Applies the write log of QEMU's driver `blklogwrites` to an image, as after a power cut.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use raw_block_fixtures::WriteLog;

/// The unit in bytes of which a drive keeps or loses its cached writes.
const SECTOR: usize = 512;

/// Counts of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Writes that a flush had made durable.
    pub(crate) durable: u64,
    /// Sectors written since, in the cache of the drive: kept and lost ones.
    pub(crate) kept: u64,
    pub(crate) lost: u64,
}

/// Writes to `image`, which is empty, the state of a drive whose power is cut at the end of the
/// log: every write up to the last flush, and a random subset of the sectors of later ones, drawn
/// with `seed`.
pub(crate) fn replay(log: &Path, image: &Path, seed: u64) -> Result<Replayed> {
    let doing = || format!("cannot replay {}", log.display());
    let output = File::options().write(true).open(image);
    let output = output.with_context(|| format!("cannot open {}", image.display()))?;
    let log = WriteLog::open(log).with_context(doing)?;
    let entries = log.entries();
    let last_flush = entries.iter().rposition(|entry| entry.is_flush).unwrap_or(0);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut replayed = Replayed::default();
    for (number, entry) in entries.iter().enumerate() {
        let is_durable = number < last_flush || entry.is_durable;
        replayed.durable += u64::from(is_durable && entry.len > 0);
        let bytes = log.bytes(entry).with_context(doing)?;
        for (offset, sector) in (entry.offset..).step_by(SECTOR).zip(bytes.chunks(SECTOR)) {
            if !is_durable {
                if random.bool() {
                    replayed.lost += 1;
                    continue;
                }
                replayed.kept += 1;
            }
            output.write_all_at(sector, offset).with_context(doing)?;
        }
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FLUSH: u64 = 1;
    const FUA: u64 = 2;

    /// A log of entries: sector, flags, and one byte for each sector.
    fn log(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut log = vec![0; 512];
        log[..8].copy_from_slice(b"rhswfsj\0");
        (log[8], log[25]) = (1, 2);
        for (sector, flags, bytes) in entries {
            let fields = [*sector, bytes.len() as u64, *flags, 0];
            let mut entry: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
            entry.resize(512, 0);
            log.extend(entry);
            log.extend(bytes.iter().flat_map(|&byte| [byte; 512]));
        }
        // QEMU's file is longer than the log in it.
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
}
