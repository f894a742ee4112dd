//! Transfers have the finest alignment that the kernel allows, and only touch the memory that they
//! name.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Direct, Dispatcher, ReadAt, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_posix::{PosixBackend, PosixOptions};
use support::{is_root, passed_on, prefixed, run_again, skip};

const PAGE: usize = 4096;

fn open(path: &Path, direct: Direct) -> Dispatcher {
    let options = PosixOptions::new().direct(direct).threads(2);
    Dispatcher::new(Arc::new(PosixBackend::open(path, &options).unwrap())).unwrap()
}

#[test]
fn the_page_cache_takes_any_byte_range() {
    let len = 10_001;
    let file = temp_file(len).unwrap();
    let dispatcher = open(file.path(), Direct::Off);
    assert_eq!(dispatcher.geometry().capacity, len, "to the last byte");
    dispatcher
        .write_buffers(&[WriteAt::new(len - 3, b"end"), WriteAt::new(511, b"x")])
        .all()
        .unwrap();
    dispatcher.write_zeroes(1000, 1).unwrap();
    dispatcher.discard(2001, 999).unwrap();
    let (mut end, mut middle) = ([0; 4], [0; 3]);
    dispatcher.read_buffers(&mut [ReadAt::new(len - 4, &mut end)]).all().unwrap();
    dispatcher.read_buffers(&mut [ReadAt::new(510, &mut middle)]).all().unwrap();
    drop(dispatcher);
    let bytes = fs::read(file.path()).unwrap();
    assert_eq!((bytes.len(), &bytes[9997..]), (10_001, &end[..]));
    assert_eq!((&end[1..], middle[1]), (&b"end"[..], b'x'));
    assert_eq!(bytes[1000], 0);
}

#[test]
fn a_reflinked_file_accepts_the_transfers_of_its_original() {
    let Some(directory) = passed_on() else {
        if !is_root() {
            return skip("only root can mount a file system");
        }
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let test = "a_reflinked_file_accepts_the_transfers_of_its_original";
        let path = directory.path().to_str().unwrap();
        return run_again(test, path, |command| {
            prefixed("unshare", &["--mount", "--propagation", "private", "--"], &command)
        });
    };
    // The second size needs Linux 6.12.
    for block_size in [4096, 16384] {
        if let Err(reason) = mount_xfs(Path::new(&directory), block_size) {
            skip(&format!("XFS with blocks of {block_size}: {reason}"));
            continue;
        }
        let mounted = Path::new(&directory).join("mounted");
        let (original, copy) = (mounted.join("original"), mounted.join("copy"));
        fs::write(&original, vec![9; 1 << 20]).unwrap();
        let alignment = open(&original, Direct::Required).geometry().transfer_alignment;
        let cp = ["--reflink=always", original.to_str().unwrap(), copy.to_str().unwrap()];
        run("cp", &cp).unwrap();
        for (path, byte) in [(&original, 1), (&copy, 2)] {
            let dispatcher = open(path, Direct::Required);
            assert_eq!(dispatcher.geometry().transfer_alignment, alignment, "{}", path.display());
            let block = vec![byte; alignment as usize];
            dispatcher.write_buffers(&[WriteAt::new(alignment.into(), &block)]).all().unwrap();
            dispatcher.flush().unwrap();
            let mut found = vec![0; 3 * alignment as usize];
            dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
            let blocks: Vec<_> = found.chunks(alignment as usize).map(|block| block[0]).collect();
            assert_eq!(blocks, [9, byte, 9], "blocks of {block_size}, {}", path.display());
        }
        run("umount", &[mounted.to_str().unwrap()]).unwrap();
    }
}

/// Mounts a new file system at `directory`/mounted.
fn mount_xfs(directory: &Path, block_size: u32) -> Result<(), String> {
    let (image, mounted) = (directory.join("image"), directory.join("mounted"));
    let _ = fs::remove_file(&image);
    File::create(&image).unwrap().set_len(512 << 20).unwrap();
    fs::create_dir_all(&mounted).unwrap();
    let (image, mounted) = (image.to_str().unwrap(), mounted.to_str().unwrap());
    run("mkfs.xfs", &["-q", "-f", "-m", "reflink=1", "-b", &format!("size={block_size}"), image])?;
    run("mount", &["-o", "loop", image, mounted])
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("the program {program} does not run: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A compressed disk in memory; it is removed when this is dropped.
struct Zram(String);

impl Zram {
    fn add(len: u64) -> io::Result<Self> {
        let number = fs::read_to_string("/sys/class/zram-control/hot_add")?;
        let disk = Self(number.trim().to_owned());
        fs::write(format!("/sys/block/zram{}/disksize", disk.0), len.to_string())?;
        fs::metadata(disk.path())?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.0))
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let _ = fs::write("/sys/class/zram-control/hot_remove", &self.0);
    }
}

#[test]
fn a_driver_of_whole_pages_leaves_other_memory_unchanged() {
    let disk = match Zram::add(1 << 20) {
        Ok(disk) => disk,
        Err(error) => return skip(&format!("no zram device can be added: {error}")),
    };
    let dispatcher = open(&disk.path(), Direct::Required);
    let bytes: Vec<_> = (0..=250_u8).cycle().take(4 * PAGE).collect();
    dispatcher.write_buffers(&[WriteAt::new(0, &bytes)]).all().unwrap();
    // The kernel reports that this device accepts such memory.
    for shift in [0, 512, 1024] {
        let mut memory = AlignedBuf::zeroed(4 * PAGE).unwrap();
        memory.fill(0xA5);
        let part = &mut memory[shift..shift + PAGE];
        dispatcher.read_buffers(&mut [ReadAt::new(PAGE as u64, part)]).all().unwrap();
        assert!(memory[shift..shift + PAGE] == bytes[PAGE..2 * PAGE], "{shift} bytes in a page");
        let around = memory[..shift].iter().chain(&memory[shift + PAGE..]);
        assert!(around.copied().all(|byte| byte == 0xA5), "{shift} bytes in a page");
    }
}
