//! A device whose page cache could not be written back: opening finds what the medium holds.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{bytes, without_thread};
use raw_block_core::conformance::Skipped;
use raw_block_core::{Direct, ErrorKind};
use raw_block_store::{Engine, Error, FormatOptions, Store, open_backend};
use tempfile::TempDir;

const OBJECTS: u16 = 300;
const PAYLOAD: usize = 28 << 10;

/// A loop device over a sparse file on a file system in memory. When that is full, writing back
/// fails.
struct Full {
    folder: TempDir,
    device: PathBuf,
}

fn succeeded(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<String, Skipped> {
    let output = Command::new(program).args(arguments).args(paths).output();
    match output.map_err(Skipped::because)? {
        output if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        output => Err(Skipped::because(String::from_utf8_lossy(&output.stderr))),
    }
}

impl Full {
    fn attach() -> Result<Self, Skipped> {
        let folder = tempfile::tempdir().map_err(Skipped::because)?;
        succeeded("mount", &["-t", "tmpfs", "-o", "size=20m", "none"], &[folder.path()])?;
        let mut full = Self { folder, device: PathBuf::new() };
        let image = full.folder.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        full.device = succeeded("losetup", &["--find", "--show"], &[&image])?.into();
        Ok(full)
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Takes all space of the file system but for two MiB.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[7; 4096]).is_ok() {}
        let len = filler.metadata().unwrap().len();
        filler.set_len(len - (2 << 20)).unwrap();
    }

    fn open(&self, engine: Engine) -> Store {
        let device = open_backend(&self.device, engine, Direct::Off).unwrap();
        Store::open_with(device, &without_thread()).unwrap()
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = succeeded("losetup", &["--detach"], &[&self.device]);
        let _ = succeeded("umount", &["--lazy"], &[self.folder.path()]);
    }
}

/// The objects that are intact.
fn intact(store: &Store) -> BTreeSet<u16> {
    let is_intact = |key: &u16| match store.get(&key.to_le_bytes()) {
        Ok(object) => object.is_some_and(|it| it.payload() == bytes((*key).into(), PAYLOAD)),
        Err(Error::Damaged { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    (0..OBJECTS).filter(is_intact).collect()
}

#[test]
fn opening_finds_only_what_was_written_back() {
    for engine in [Engine::Posix, Engine::Uring] {
        if engine == Engine::Uring && raw_block_uring::probe().is_err() {
            continue;
        }
        let full = match Full::attach() {
            Ok(full) => full,
            Err(skipped) => return skipped.report(),
        };
        let device = open_backend(&full.device, engine, Direct::Off).unwrap();
        Store::format(device, &FormatOptions::default()).unwrap();
        // The kernel drops the pages of a block device when it is closed; so it stays open.
        let holder = File::open(&full.device).unwrap();
        let store = full.open(engine);
        full.fill();
        for key in 0..OBJECTS {
            store.put(&key.to_le_bytes(), &bytes(key.into(), PAYLOAD)).unwrap();
        }
        match store.flush() {
            Err(Error::Device { error, .. }) => {
                assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace), "{error}");
            }
            other => panic!("{other:?}"),
        }
        drop(store);
        fs::remove_file(full.filler()).unwrap();

        let store = full.open(engine);
        let found = intact(&store);
        assert!(found.len() < usize::from(OBJECTS), "nothing was lost");
        store.flush().unwrap();
        store.close().unwrap();
        drop(store);
        drop(holder);
        assert_eq!(intact(&full.open(engine)), found);
    }
}
