//! What `docs/deploying.md` says of containers: the tool where io_uring is forbidden, and without
//! sysfs.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/tool.rs"]
mod tool;

use std::process::Command;

use raw_block_fixtures::{LoopDevice, without_calls, without_io_uring, zeroed_file};
use tool::{done, run, run_with_input};

const NONE: [&str; 0] = [];

#[test]
fn posix_takes_the_place_of_io_uring_that_is_forbidden() {
    let file = match zeroed_file(4 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    done("format", file.path(), ["--engine=posix"]);
    for (errno, why) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "no io_uring")] {
        // A child inherits the filter, as every process of a container does.
        let (any, uring) = without_io_uring(errno, || {
            (run("info", file.path(), NONE), run("info", file.path(), ["--engine=uring"]))
        });
        assert_eq!(any.status, 0, "{}", any.stderr);
        assert!(any.stderr.contains("posix engine takes its place"), "{}", any.stderr);
        assert!(any.text().contains("posix"), "{}", any.text());
        assert_eq!(uring.status, 2);
        assert!(uring.stderr.contains(why), "{}", uring.stderr);
    }
}

#[test]
fn posix_takes_the_place_of_io_uring_that_is_half_allowed() {
    let file = match zeroed_file(4 << 20) {
        Ok(file) => file,
        Err(skipped) => return skipped.report(),
    };
    done("format", file.path(), ["--engine=posix"]);
    for (call, name) in [
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_io_uring_register, "io_uring_register"),
    ] {
        let any = without_calls(&[call], libc::EPERM, || run("info", file.path(), NONE));
        assert_eq!(any.status, 0, "{}", any.stderr);
        assert!(any.stderr.contains("posix engine takes its place"), "{}", any.stderr);
        assert!(any.stderr.contains(name) && any.stderr.contains("seccomp"), "{}", any.stderr);
        assert!(any.text().contains("posix"), "{}", any.text());
    }
}

#[test]
fn without_sysfs_the_defaults_stand_and_everything_works() {
    let device = match LoopDevice::attach(8 << 20, 512) {
        Ok(device) => device,
        Err(skipped) => return skipped.report(),
    };
    // Its mount namespace has nothing below /sys.
    let hidden = |arguments: &str| {
        let tool = env!("CARGO_BIN_EXE_rawblock");
        let script = format!("mount -t tmpfs none /sys && exec {tool} {arguments}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        run_with_input(command, b"value")
    };
    let device = device.path().display();
    let made = hidden(&format!("format {device}"));
    if made.stderr.contains("unshare failed") {
        return raw_block_core::conformance::Skipped::because(made.stderr).report();
    }
    assert_eq!(made.status, 0, "{}", made.stderr);
    assert_eq!(hidden(&format!("put {device} key -")).status, 0);
    assert_eq!(hidden(&format!("get {device} key -")).stdout, b"value");
    let info = &hidden(&format!("info {device} --json")).json()[0]["device"];
    assert_eq!(
        (&info["max_transfer"], &info["volatile_write_cache"]),
        (&(1 << 20).into(), &true.into())
    );
    assert_eq!(hidden(&format!("check {device}")).status, 0);
}
