//! A store needs no right but that to its device node.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::{payload, store_on};
use raw_block_core::{Direct, ErrorKind};
use raw_block_fixtures::LoopDevice;
use raw_block_store::{
    Engine, FormatOptions, OpenOptions, Store, open_backend, open_backend_read_only,
};

/// A user without any rights.
const USER: u32 = 65_534;
/// Names the device of that user, for the test when it runs again as the user.
const DEVICE: &str = "RAW_BLOCK_STORE_OF_A_USER";
const TEST: &str = "the_owner_of_a_device_node_needs_no_other_right";

/// A device node of another owner. It belongs to its former owner again when this is dropped.
struct Owned<'a>(&'a Path, fs::Metadata);

impl<'a> Owned<'a> {
    fn by_the_user(node: &'a Path) -> Self {
        let owned = Self(node, fs::metadata(node).unwrap());
        chown(node, Some(USER), Some(USER)).unwrap();
        owned
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        let Self(node, before) = self;
        chown(*node, Some(before.uid()), Some(before.gid())).unwrap();
        fs::set_permissions(node, before.permissions()).unwrap();
    }
}

#[test]
fn the_owner_of_a_device_node_needs_no_other_right() {
    if let Some(device) = env::var_os(DEVICE) {
        return use_it(Path::new(&device));
    }
    // Only root can attach one.
    let device = match LoopDevice::attach(32 << 20, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    // Every user can reach it there.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("test");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();

    let node = Owned::by_the_user(device.path());
    for mode in [0o600, 0o400] {
        fs::set_permissions(node.0, Permissions::from_mode(mode)).unwrap();
        let mut child = Command::new(&program);
        child.args(["--exact", TEST, "--nocapture"]).env(DEVICE, node.0);
        let output = child.uid(USER).gid(USER).current_dir(directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{mode:o}: {said}{errors}");
    }
    drop(node);
    let store = open_backend(device.path(), Engine::Posix, Direct::Required).unwrap();
    assert_eq!(payload(&Store::open(store).unwrap(), b"posix").unwrap(), b"value");
}

/// Uses the device: for everything, or read-only where the node may only be read.
fn use_it(device: &Path) {
    let is_read_only = fs::metadata(device).unwrap().permissions().mode() & 0o200 == 0;
    // Without io_uring for users, another engine takes its place.
    for (engine, key) in [(Engine::Auto, &b"auto"[..]), (Engine::Posix, b"posix")] {
        let opened = open_backend(device, engine, Direct::Required);
        if is_read_only {
            assert_eq!(opened.map(drop).unwrap_err().kind(), ErrorKind::PermissionDenied);
        } else {
            let options = FormatOptions::default().force(true);
            let device = opened.unwrap();
            let store = store_on(&device, &options);
            store.put(key, b"value").unwrap();
            store.close().unwrap();
            assert_eq!(payload(&Store::open(device).unwrap(), key).unwrap(), b"value");
        }
        let device = open_backend_read_only(device, engine, Direct::Required).unwrap();
        let store = Store::open_read_only(device, &OpenOptions::default()).unwrap();
        assert_eq!(payload(&store, b"posix").is_some(), is_read_only || key == b"posix");
    }
}
