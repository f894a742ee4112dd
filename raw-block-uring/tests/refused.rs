//! Refusals of io_uring and of devices.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;

use raw_block_core::{Direct, ErrorKind};
use raw_block_fixtures::{temp_file, without_calls, without_io_uring};
use raw_block_uring::{UringBackend, UringOptions, probe};

#[test]
fn a_seccomp_profile_that_forbids_io_uring_is_named() {
    let file = temp_file(1 << 20).unwrap();
    let error = without_io_uring(libc::EPERM, || {
        assert_eq!(probe().unwrap_err().kind(), ErrorKind::PermissionDenied);
        UringBackend::open(file.path(), &UringOptions::new()).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = error.to_string();
    assert!(text.contains("seccomp") && text.contains("posix backend"), "{text}");
    assert!(text.contains(file.path().to_str().unwrap()), "{text}");
}

#[test]
fn each_system_call_that_is_refused_is_named_at_opening() {
    let file = temp_file(1 << 20).unwrap();
    let calls = [
        (libc::SYS_io_uring_setup, "io_uring_setup was refused"),
        (libc::SYS_io_uring_enter, "io_uring_enter was refused"),
        (libc::SYS_io_uring_register, "io_uring_register was refused"),
    ];
    let kinds = [
        (libc::EPERM, ErrorKind::PermissionDenied),
        (libc::EACCES, ErrorKind::PermissionDenied),
        (libc::ENOSYS, ErrorKind::Unsupported),
    ];
    for ((call, name), (errno, kind)) in
        calls.into_iter().flat_map(|call| kinds.map(|kind| (call, kind)))
    {
        let errors = without_calls(&[call], errno, || {
            let open = UringBackend::open(file.path(), &UringOptions::new());
            [probe().unwrap_err(), open.unwrap_err()]
        });
        for error in errors {
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("seccomp"), "{text}");
        }
    }
    probe().unwrap();
}

#[test]
fn a_kernel_without_io_uring_differs_from_a_forbidden_one() {
    let error = without_io_uring(libc::ENOSYS, || probe().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("this kernel has no io_uring"), "{error}");
}

#[test]
fn exhausted_lockable_memory_differs_from_a_ban() {
    let error = without_io_uring(libc::ENOMEM, || probe().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::OutOfResources);
    assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
}

#[test]
fn a_kernel_that_refuses_a_ring_with_any_flags_ends_the_search() {
    // A filter cannot read the flags, which are in memory. Refusing all of them shows that the
    // search ends.
    let error = without_io_uring(libc::EINVAL, || probe().unwrap_err());
    assert_eq!(error.os_error().unwrap().raw_os_error(), Some(libc::EINVAL));
    let file = temp_file(1 << 20).unwrap();
    let backend = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
    assert!(backend.granted_flags().names().any(|name| name == "CLAMP"));
}

#[test]
fn completion_polling_is_refused_where_it_cannot_work() {
    let file = temp_file(1 << 20).unwrap();
    let open = |direct| {
        let options = UringOptions::new().direct(direct).completion_polling(true);
        UringBackend::open(file.path(), &options)
    };
    // Polling through the page cache is impossible. With O_DIRECT it depends on the driver of the
    // disk.
    let mut refusals = vec![open(Direct::Off).unwrap_err()];
    match open(Direct::Required) {
        Ok(backend) => assert!(backend.granted_flags().names().any(|name| name == "IOPOLL")),
        Err(error) => refusals.push(error),
    }
    for error in refusals {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("poll_queues") && text.contains("O_DIRECT"), "{text}");
        assert!(text.contains(file.path().to_str().unwrap()), "{text}");
    }
    UringBackend::open(file.path(), &UringOptions::new()).unwrap();
}

#[test]
fn a_device_that_cannot_be_opened_has_a_clear_error() {
    let open = |path: &str| UringBackend::open(path, &UringOptions::new()).unwrap_err();
    assert_eq!(open("/no/such/path").kind(), ErrorKind::NotFound);
    let error = open("/");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("directory"), "{error}");
    let error = open("/dev/null");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("character device"), "{error}");
    let small = temp_file(100).unwrap();
    assert_eq!(open(small.path().to_str().unwrap()).kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_open_file_is_refused_and_free_again_afterwards() {
    let file = temp_file(1 << 20).unwrap();
    let first = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
    let error = UringBackend::open(file.path(), &UringOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    drop(first);
    assert!(UringBackend::open(file.path(), &UringOptions::new()).is_ok());
}

#[test]
fn the_page_cache_is_bypassed_only_on_request() {
    let file = temp_file(1 << 20).unwrap();
    let options = |direct| UringOptions::new().direct(direct);
    for (direct, expected) in [(Direct::Required, true), (Direct::Off, false)] {
        let backend = UringBackend::open(file.path(), &options(direct)).unwrap();
        assert_eq!(backend.is_direct(), expected);
    }
    assert_eq!(fs::metadata(file.path()).unwrap().len(), 1 << 20, "opening changes nothing");
}
