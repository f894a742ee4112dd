//! Devices that cannot be opened are refused with a kind to match on and a message that says what
//! to do.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raw_block_core::backend::IoBackend;
use raw_block_core::{Direct, Dispatcher, Error, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::{LoopDevice, temp_file};
use raw_block_posix::{PosixBackend, PosixOptions};
use support::{is_root, passed_on, prefixed, run_again, skip};

/// A user without rights.
const NOBODY: u32 = 65534;

fn open(path: impl AsRef<Path>, direct: Direct) -> Result<PosixBackend, Error> {
    PosixBackend::open(path, &PosixOptions::new().direct(direct))
}

/// Opens a path that is refused. The error names the path and contains `text`.
fn refused(path: impl AsRef<Path>, text: &str) -> ErrorKind {
    let error = open(&path, Direct::Preferred).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(path.as_ref().to_str().unwrap()), "no path in: {message}");
    assert!(message.contains(text), "no {text:?} in: {message}");
    error.kind()
}

#[test]
fn a_missing_path_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert_eq!(refused(&missing, "No such file"), ErrorKind::NotFound);
    assert_eq!(refused("", "No such file"), ErrorKind::NotFound);
    assert!(!missing.exists(), "opening creates nothing");
}

#[test]
fn a_directory_is_no_device() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(refused(directory.path(), "it is a directory"), ErrorKind::Unsupported);
}

#[test]
fn a_character_device_is_no_block_device() {
    assert_eq!(refused("/dev/null", "it is a character device"), ErrorKind::Unsupported);
}

#[test]
fn a_file_smaller_than_a_block_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for len in [0, 1, 511] {
        file.as_file().set_len(len).unwrap();
        assert_eq!(refused(file.path(), "smaller than one"), ErrorKind::InvalidInput);
    }
}

#[test]
fn no_threads_and_too_many_threads_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    for threads in [0, 1025, usize::MAX] {
        let options = PosixOptions::new().threads(threads);
        let error = PosixBackend::open(file.path(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("1 to 1024"), "{error}");
    }
    for threads in [1, 1024] {
        let options = PosixOptions::new().threads(threads);
        assert_eq!(PosixBackend::open(file.path(), &options).unwrap().threads(), threads);
    }
}

#[test]
fn a_file_that_is_open_already_is_busy_until_it_is_closed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let first = open(file.path(), Direct::Preferred).unwrap();
    let asked = Instant::now();
    assert_eq!(refused(file.path(), "it is open already"), ErrorKind::Busy);
    assert!(asked.elapsed() < Duration::from_secs(20), "the wait is bounded");
    drop(first);
    open(file.path(), Direct::Preferred).unwrap();
}

#[test]
fn a_file_that_this_user_may_only_read_is_refused() {
    let Some(path) = passed_on() else {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("read-only");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        let test = "a_file_that_this_user_may_only_read_is_refused";
        // Modes do not restrict root.
        let as_nobody = |mut command: Command| {
            if is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        return run_again(test, path.to_str().unwrap(), as_nobody);
    };
    assert!(File::open(&path).is_ok(), "it can be read");
    assert_eq!(refused(&path, "check its mode"), ErrorKind::PermissionDenied);
}

#[test]
fn without_o_direct_a_file_is_refused_or_uses_the_page_cache() {
    let Some(path) = passed_on() else {
        if !is_root() {
            return skip("only root mounts a file system without O_DIRECT");
        }
        let directory = tempfile::tempdir().unwrap();
        let test = "without_o_direct_a_file_is_refused_or_uses_the_page_cache";
        let path = directory.path().to_str().unwrap();
        return run_again(test, path, |command| {
            prefixed("unshare", &["--mount", "--propagation", "private", "--"], &command)
        });
    };
    // The mount ends with this process.
    let mount = Command::new("mount").args(["-t", "ramfs", "none"]).arg(&path).output();
    match mount {
        Ok(output) if output.status.success() => {}
        refused => return skip(&format!("no ramfs can be mounted: {refused:?}")),
    }
    let path = Path::new(&path).join("file");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();

    let error = open(&path, Direct::Required).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no O_DIRECT"), "{error}");

    let backend = open(&path, Direct::Preferred).unwrap();
    assert!(!backend.is_direct());
    assert_eq!(backend.geometry().memory_alignment, 1);
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    dispatcher.write_buffers(&[WriteAt::new(512, &[7; 512])]).all().unwrap();
    let mut found = [0; 1024];
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    assert_eq!(found[511..513], [0, 7]);
    // It has no fallocate either.
    for result in [dispatcher.discard(0, 512), dispatcher.write_zeroes(0, 512)] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_write_protected_device_can_only_be_read() {
    let device = match LoopDevice::attach_write_protected(1 << 20) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    assert_eq!(refused(device.path(), "write-protected"), ErrorKind::PermissionDenied);
    let options = PosixOptions::new();
    let reader =
        Dispatcher::new(Arc::new(PosixBackend::open_read_only(device.path(), &options).unwrap()));
    let mut found = [0; 512];
    reader.unwrap().read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
}

#[test]
fn a_file_of_hugetlbfs_is_refused_with_the_reason() {
    let Some(path) = passed_on() else {
        if !is_root() {
            return skip("only root mounts hugetlbfs");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        return run_again("a_file_of_hugetlbfs_is_refused_with_the_reason", path, |command| {
            prefixed("unshare", &["--mount", "--propagation", "private", "--"], &command)
        });
    };
    let mount = Command::new("mount").args(["-t", "hugetlbfs", "none"]).arg(&path).output();
    match mount {
        Ok(output) if output.status.success() => {}
        refused => return skip(&format!("no hugetlbfs can be mounted: {refused:?}")),
    }
    let path = Path::new(&path).join("file");
    File::create(&path).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(refused(&path, "hugetlbfs"), ErrorKind::Unsupported);
}

#[test]
fn the_backend_reports_what_was_granted() {
    let Ok(file) = temp_file(1 << 20) else {
        return skip("no directory on a disk can be written to");
    };
    let through_cache = open(file.path(), Direct::Off).unwrap();
    assert!(!through_cache.is_direct());
    assert_eq!(through_cache.engine(), "posix");
    assert_eq!(through_cache.name(), file.path().to_str().unwrap());
    assert_eq!(through_cache.geometry().capacity, 1 << 20);
    assert!(through_cache.geometry().regular_file);
    drop(through_cache);
    match open(file.path(), Direct::Required) {
        Ok(direct) => assert!(direct.is_direct()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
}

#[test]
fn a_block_device_is_no_regular_file() {
    let device = match LoopDevice::attach(1 << 20, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    assert!(!open(device.path(), Direct::Preferred).unwrap().geometry().regular_file);
}
