//! The devices on which processes are killed, and how they are opened.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use raw_block_core::Direct;
use raw_block_core::backend::IoBackend;
use raw_block_fixtures::{LoopDevice, TempFile, temp_file};
use raw_block_store::{Engine, open_backend};

use super::journal::Journal;
use super::objects;
use super::target::{StoreKind, put_many};

/// The engine with which a device is opened, and whether it bypasses the page cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenMode {
    pub(super) engine: Engine,
    pub(super) direct: Direct,
}

/// A device on which processes are killed.
pub(super) enum TestDevice {
    File(TempFile),
    Loop(LoopDevice),
}

/// Returns a file and, if this system has one, a loop device.
pub(super) fn test_devices(kind: StoreKind) -> Result<Vec<TestDevice>> {
    let len = kind.device_len();
    let mut devices =
        vec![TestDevice::File(temp_file(len).map_err(|skipped| anyhow!("{skipped}"))?)];
    match LoopDevice::attach(len, 512) {
        Ok(device) => devices.push(TestDevice::Loop(device)),
        Err(skipped) => skipped.report(),
    }
    Ok(devices)
}

/// Formats a store, and puts its initial objects.
pub(super) fn formatted(device: &TestDevice, kind: StoreKind) -> Result<Journal> {
    let mode = OpenMode { engine: Engine::Posix, direct: Direct::Preferred };
    kind.format(open(device.path(), mode)?)?;
    let store = kind.open(open(device.path(), mode)?)?;
    let keys: Vec<_> = (0..kind.filled()).collect();
    for keys in keys.chunks(100) {
        let object =
            |&key: &u64| (objects::name(key), objects::payload(kind.payload_lens(), key + 1));
        let batch: Vec<_> = keys.iter().map(object).collect();
        put_many(&store, &batch).all()?;
    }
    store.close()?;
    Ok(Journal::new(kind))
}

/// Opens a device. This blocks until the I/O of a killed process has completed.
pub(super) fn open(path: &Path, mode: OpenMode) -> Result<Arc<dyn IoBackend>> {
    open_backend(path, mode.engine, mode.direct).context("open the device")
}

impl OpenMode {
    const ALL: [(&'static str, &'static str, Self); 4] = [
        ("posix", "direct", Self { engine: Engine::Posix, direct: Direct::Preferred }),
        ("posix", "cached", Self { engine: Engine::Posix, direct: Direct::Off }),
        // Posix replaces io_uring where that is not permitted.
        ("auto", "direct", Self { engine: Engine::Auto, direct: Direct::Preferred }),
        ("auto", "cached", Self { engine: Engine::Auto, direct: Direct::Off }),
    ];

    pub(super) fn drawn(random: &mut fastrand::Rng) -> Self {
        Self::ALL[random.usize(..Self::ALL.len())].2
    }

    pub(super) fn named(engine: &str, direct: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|mode| (mode.0, mode.1) == (engine, direct)).map(|mode| mode.2)
    }

    pub(super) fn names(self) -> (&'static str, &'static str) {
        let engine = if self.engine == Engine::Posix { "posix" } else { "auto" };
        (engine, if self.direct == Direct::Off { "cached" } else { "direct" })
    }
}

impl TestDevice {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(file) => file.path(),
            Self::Loop(device) => device.path(),
        }
    }
}

/// Copies the image of a violation to a file that stays, and returns its path.
pub(super) fn keep(device: &TestDevice, number: usize) -> Result<String> {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let default = || workspace.unwrap_or_else(|| Path::new(".")).join("target");
    let directory = target.unwrap_or_else(default).join("kill");
    let path = directory.join(format!("violation-{number}.img"));
    let copy = || {
        fs::create_dir_all(&directory)?;
        // `fs::copy` refuses a block device.
        io::copy(&mut File::open(device.path())?, &mut File::create(&path)?)
    };
    copy().with_context(|| format!("cannot keep the image as {}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_known_by_its_names() {
        for (engine, direct, mode) in OpenMode::ALL {
            assert_eq!(mode.names(), (engine, direct));
            assert!(OpenMode::named(engine, direct).is_some());
        }
        assert!(OpenMode::named("other", "direct").is_none());
    }
}
