//! Refusals to open NVMe namespaces in the virtual machine, and their errors.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_core::{Dispatcher, Error, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::NvmeNamespace;
use raw_block_nvme::{NvmeBackend, NvmeOptions};
use raw_block_uring::{UringBackend, UringOptions};

/// The namespace of a scenario; `None` outside of the virtual machine.
fn namespace(scenario: &str) -> Option<NvmeNamespace> {
    NvmeNamespace::find(scenario, 1).inspect_err(Skipped::report).ok()
}

fn open_with(path: &Path, options: &NvmeOptions) -> Result<Arc<NvmeBackend>, Error> {
    NvmeBackend::open(path, options).map(Arc::new)
}

fn open(path: &Path) -> Result<Arc<NvmeBackend>, Error> {
    open_with(path, &NvmeOptions::new())
}

/// Asserts that opening failed with this kind of error, which names the path and contains these
/// words.
#[track_caller]
fn assert_refused(result: Result<Arc<NvmeBackend>, Error>, kind: ErrorKind, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// The controller with this serial number in `/sys/class/nvme`.
fn controller(scenario: &str) -> PathBuf {
    let mut controllers =
        fs::read_dir("/sys/class/nvme").unwrap().map(|entry| entry.unwrap().path());
    let has_serial =
        |path: &PathBuf| fs::read_to_string(path.join("serial")).unwrap().trim() == scenario;
    controllers.find(has_serial).unwrap()
}

#[test]
fn other_devices_are_refused_with_the_reason() {
    let Some(namespace) = namespace("plain-512") else { return };
    let block = open(namespace.block());
    assert_refused(block, ErrorKind::Unsupported, &["block device", "/dev/ng0n1"]);
    let node = Path::new("/dev").join(controller("plain-512").file_name().unwrap());
    assert_refused(open(&node), ErrorKind::Unsupported, &["it is a controller"]);
    assert_refused(open(Path::new("/dev/null")), ErrorKind::Unsupported, &["/dev/null", "mem"]);
    assert_refused(open(Path::new("/init")), ErrorKind::Unsupported, &["it is no device"]);
    assert_refused(open(Path::new("/dev")), ErrorKind::Unsupported, &["it is no device"]);
    assert_refused(open(Path::new("/dev/ng99n1")), ErrorKind::NotFound, &["/dev/ng99n1"]);
}

#[test]
fn a_format_with_metadata_is_refused() {
    let Some(namespace) = namespace("metadata") else { return };
    let refused = open(namespace.generic());
    assert_refused(refused, ErrorKind::Unsupported, &["8 bytes of metadata", "format"]);
}

#[test]
fn a_namespace_in_use_is_refused() {
    let Some(namespace) = namespace("plain-4096") else { return };
    let (block, generic) = (namespace.block(), namespace.generic());
    let name = block.to_str().unwrap();
    let force = NvmeOptions::new().force(true);

    // The kernel uses it, as if it were mounted.
    let run = |program: &str| {
        let status = Command::new(program).arg(block).status().unwrap();
        assert!(status.success(), "{program} {name}: {status}");
    };
    run("mkswap");
    run("swapon");
    assert_refused(open(generic), ErrorKind::Busy, &[name, "mounted"]);
    assert_refused(open_with(generic, &force), ErrorKind::Busy, &[name, "mounted"]);
    run("swapoff");

    let other = UringBackend::open(block, &UringOptions::new()).unwrap();
    assert_refused(open(generic), ErrorKind::Busy, &[name]);
    drop(other);
    let first = open(generic).unwrap();
    assert_refused(open(generic), ErrorKind::Busy, &[name]);
    let other = UringBackend::open(block, &UringOptions::new()).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Busy, "passthrough holds the block device");
    // Held while anything could write.
    let dispatcher = Dispatcher::new(first).unwrap();
    assert_refused(open(generic), ErrorKind::Busy, &[name]);
    drop(dispatcher);
    open(generic).unwrap();
}

#[test]
fn only_the_part_of_a_namespace_in_the_options_is_used() {
    let Some(namespace) = namespace("two-namespaces") else { return };
    let part = |offset, len| {
        let options = NvmeOptions::new().offset(offset).len(len);
        open_with(namespace.generic(), &options)
    };
    let size = open(namespace.generic()).unwrap().geometry().capacity;
    let past = part(size - 4096, Some(8192));
    assert_refused(past, ErrorKind::OutOfRange, &["past the end", &size.to_string()]);
    assert_refused(part(size + 512, None), ErrorKind::OutOfRange, &["past the end"]);
    assert_refused(part(u64::MAX - 511, Some(1024)), ErrorKind::OutOfRange, &["past the end"]);
    assert_refused(part(100, None), ErrorKind::Misaligned, &["block of 512 bytes"]);
    assert_refused(part(0, Some(1000)), ErrorKind::Misaligned, &["block of 512 bytes"]);
    assert_refused(part(size, None), ErrorKind::InvalidInput, &["smaller than one"]);
    let most = NvmeOptions::new().max_command(Some(100));
    let refused = open_with(namespace.generic(), &most);
    assert_refused(refused, ErrorKind::InvalidInput, &["100 bytes"]);

    let whole = Dispatcher::new(open(namespace.generic()).unwrap()).unwrap();
    whole.write_buffers(&[WriteAt::new(0, &[1; 16 << 10])]).all().unwrap();
    drop(whole);
    let dispatcher = Dispatcher::new(part(4096, Some(8192)).unwrap()).unwrap();
    assert_eq!(dispatcher.geometry().capacity, 8192);
    dispatcher.write_buffers(&[WriteAt::new(0, &[2; 512])]).all().unwrap();
    dispatcher.write_zeroes(512, 512).unwrap();
    dispatcher.discard(4096, 4096).unwrap();
    let outside = dispatcher.write_buffers(&[WriteAt::new(8192, &[3; 512])]).all().unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::OutOfRange);
    let misaligned = dispatcher.write_buffers(&[WriteAt::new(100, &[3; 512])]).all().unwrap_err();
    assert_eq!(misaligned.kind(), ErrorKind::Misaligned);
    drop(dispatcher);
    let whole = Dispatcher::new(open(namespace.generic()).unwrap()).unwrap();
    let mut found = vec![0; 16 << 10];
    whole.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    for (range, byte) in [(0..4096, 1), (4096..4608, 2), (4608..5120, 0), (5120..8192, 1)] {
        assert!(found[range.clone()].iter().all(|&found| found == byte), "{range:?}");
    }
    assert!(found[12288..].iter().all(|&found| found == 1), "after the part");
}

/// Runs `test` in a thread of an unprivileged user without capabilities.
fn as_nobody<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    const NOBODY: libc::uid_t = 65534;
    let run = || {
        // SAFETY: the system call only takes numbers. Unlike the function of the C library, it
        // changes only this thread.
        let failed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(failed, 0);
        test()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn permission_on_the_nodes_is_enough() {
    let Some(namespace) = namespace("plain-512") else { return };
    let (block, generic) = (namespace.block(), namespace.generic());
    let refused = as_nobody(|| open(generic));
    assert_refused(refused, ErrorKind::PermissionDenied, &["mode and group"]);
    let allow = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    allow(generic, 0o666);
    let refused = as_nobody(|| open(generic));
    assert_refused(refused, ErrorKind::PermissionDenied, &["block device cannot be held"]);
    allow(block, 0o666);
    let result = as_nobody(|| {
        let dispatcher = Dispatcher::new(open(generic)?)?;
        dispatcher.write_buffers(&[WriteAt::new(0, &[7; 4096])]).all()?;
        dispatcher.flush()
    });
    allow(block, 0o600);
    allow(generic, 0o600);
    result.unwrap();
}

#[test]
fn opening_read_only_needs_no_permission_to_write() {
    let Some(namespace) = namespace("plain-512") else { return };
    let allow = |mode| {
        for path in [namespace.block(), namespace.generic()] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    };
    let dispatcher = Dispatcher::new(open(namespace.generic()).unwrap()).unwrap();
    dispatcher.write_buffers(&[WriteAt::new(0, &[9; 512])]).all().unwrap();
    drop(dispatcher);
    allow(0o644);
    let result = as_nobody(|| {
        assert!(open(namespace.generic()).is_err());
        let backend = NvmeBackend::open_read_only(namespace.generic(), &NvmeOptions::new())?;
        let dispatcher = Dispatcher::new(Arc::new(backend))?;
        let mut found = [0; 512];
        dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all()?;
        assert_eq!(found, [9; 512]);
        let refused = dispatcher.write_buffers(&[WriteAt::new(0, &found)]).all().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        Ok::<(), Error>(())
    });
    allow(0o600);
    result.unwrap();
}

#[test]
fn polling_is_refused_where_the_driver_has_no_queues_for_it() {
    let Some(namespace) = namespace("over-tcp") else { return };
    let options = NvmeOptions::new().completion_polling(true);
    let refused = open_with(namespace.generic(), &options);
    assert_refused(refused, ErrorKind::Unsupported, &["poll_queues", "io_poll"]);
}

#[test]
fn a_read_only_namespace_opens_for_reads_and_not_for_writes() {
    let Some(namespace) = namespace("plain-512") else { return };
    let dispatcher = Dispatcher::new(open(namespace.generic()).unwrap()).unwrap();
    dispatcher.write_buffers(&[WriteAt::new(0, &[4; 512])]).all().unwrap();
    drop(dispatcher);
    set_read_only(namespace.block(), true);
    let refused = open(namespace.generic());
    let read =
        NvmeBackend::open_read_only(namespace.generic(), &NvmeOptions::new()).and_then(|backend| {
            let mut found = [0; 512];
            let dispatcher = Dispatcher::new(Arc::new(backend))?;
            dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().map(|()| found)
        });
    set_read_only(namespace.block(), false);
    assert_refused(refused, ErrorKind::PermissionDenied, &["read-only", "blockdev --setrw"]);
    assert_eq!(read.unwrap(), [4; 512]);
    open(namespace.generic()).unwrap();
}

/// Does the same as `blockdev --setro` and `--setrw`.
fn set_read_only(block: &Path, read_only: bool) {
    // `linux/fs.h`: BLKROSET is _IO(0x12, 93), and takes a pointer to an int.
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), libc::c_int);
    let file = File::open(block).unwrap();
    // SAFETY: the argument is the int that this ioctl reads.
    unsafe { blkroset(file.as_raw_fd(), &libc::c_int::from(read_only)) }.unwrap();
}

#[test]
fn without_sysfs_opening_needs_force_and_commands_are_short() {
    let Some(namespace) = namespace("plain-512") else { return };
    let generic = namespace.generic();
    let hidden = || {
        // Only for this thread.
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("none"), "/sys", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        assert_refused(open(generic), ErrorKind::Unsupported, &["/sys", "force"]);
        let force = NvmeOptions::new().force(true);
        let backend = open_with(generic, &force).unwrap();
        assert_eq!(backend.geometry().max_transfer, 128 << 10);
        assert_refused(open_with(generic, &force), ErrorKind::Busy, &["open already"]);
        let dispatcher = Dispatcher::new(backend).unwrap();
        dispatcher.write_buffers(&[WriteAt::new(0, &vec![5; 1 << 20])]).all().unwrap();
    };
    thread::scope(|scope| scope.spawn(hidden).join().unwrap());
}
