//! Formatting regular files, by every engine: it refuses to overwrite what other programs made, and
//! with `force` leaves no trace of it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use raw_block_core::Direct;
use raw_block_core::conformance::Skipped;
use raw_block_store::{Engine, Error, FormatOptions, Store, open_backend};

/// XFS needs the most.
const LEN: u64 = 320 << 20;

fn engines() -> Vec<Engine> {
    match raw_block_uring::probe() {
        Ok(()) => vec![Engine::Posix, Engine::Uring],
        Err(_) => vec![Engine::Posix],
    }
}

fn format(path: &Path, engine: Engine, force: bool) -> Result<(), Error> {
    let options = FormatOptions::default().force(force);
    Store::format(open_backend(path, engine, Direct::Preferred).unwrap(), &options)
}

/// Runs a program with these lines as its input; `None` if there is no such program.
fn run(
    program: &str,
    arguments: &[&str],
    path: &Path,
    input: &str,
) -> Option<(Option<i32>, String)> {
    let programs = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(arguments).arg(path).env("PATH", programs);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    // A program that reads no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn sparse(path: &Path) {
    File::create(path).unwrap().set_len(LEN).unwrap();
}

/// Programs with arguments that keep them from flushing every file system (`sync(2)`), and what
/// `blkid` says of the result.
const MADE: &[(&str, &[&str], &str)] = &[
    ("mkfs.ext4", &["-q", "-F"], "TYPE=ext4"),
    ("mkfs.xfs", &["-q"], "TYPE=xfs"),
    ("mkfs.btrfs", &["-q"], "TYPE=btrfs"),
    ("mkfs.vfat", &[], "TYPE=vfat"),
    ("mkfs.minix", &["-3"], "TYPE=minix"),
    ("mkswap", &["--pagesize", "4096"], "TYPE=swap"),
    ("mkswap", &["--pagesize", "16384"], "TYPE=swap"),
    ("mkswap", &["--pagesize", "65536"], "TYPE=swap"),
    ("sfdisk", &["--quiet", "--no-tell-kernel", "--label", "dos"], "PTTYPE=dos"),
    ("sfdisk", &["--quiet", "--no-tell-kernel", "--label", "gpt"], "PTTYPE=gpt"),
    ("sfdisk", &["--quiet", "--no-tell-kernel", "--label", "sgi"], "PTTYPE=sgi"),
    ("sfdisk", &["--quiet", "--no-tell-kernel", "--label", "sun"], "PTTYPE=sun"),
];

#[test]
fn what_programs_made_is_spared_and_erased_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let blkid = || run("blkid", &["-p", "-o", "export"], &path, "");
    let mut tried = 0;
    for (nth, &(program, arguments, named)) in MADE.iter().enumerate() {
        sparse(&path);
        let Some((Some(0), _)) = run(program, arguments, &path, ",8M\n,\n") else { continue };
        let Some((_, before)) = blkid() else { continue };
        assert!(before.contains(named), "{program} {arguments:?}: {before}");
        tried += 1;
        let engine = engines()[nth % engines().len()];
        let spared = format(&path, engine, false);
        assert!(
            matches!(&spared, Err(Error::Occupied { what, .. }) if *what != "data of an unknown kind"),
            "{program} {arguments:?}: {spared:?}"
        );
        format(&path, engine, true).unwrap();
        // Status 2: nothing was found.
        assert_eq!(blkid(), Some((Some(2), String::new())), "{program} {arguments:?}");
    }
    if tried == 0 {
        Skipped::because("no program that makes a file system is installed, or no blkid").report();
    }
}

#[test]
fn a_regular_file_with_content_is_spared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for engine in engines() {
        let contents = [
            b"SQLite format 3\0".repeat(100_000),
            fs::read(env::current_exe().unwrap()).unwrap(),
            b"text\n".repeat(1 << 19),
        ];
        for content in contents {
            fs::write(&path, &content).unwrap();
            match format(&path, engine, false) {
                Err(error @ Error::Occupied { offset: 0, .. }) => {
                    assert!(error.to_string().contains("set `force` to overwrite it"), "{error}");
                }
                other => panic!("{other:?}"),
            }
            assert!(fs::read(&path).unwrap() == content, "nothing was written");
        }
        format(&path, engine, true).unwrap();
        // A store is spared as one.
        assert!(matches!(format(&path, engine, false), Err(Error::AlreadyAStore { .. })));
    }
}

#[test]
fn a_file_of_zeroes_is_formatted_however_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for engine in engines() {
        sparse(&path);
        format(&path, engine, false).unwrap();
        let file = File::create(&path).unwrap();
        file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
        format(&path, engine, false).unwrap();
        fs::remove_file(&path).unwrap();
        if run("fallocate", &["--length", "32MiB"], &path, "") == Some((Some(0), String::new())) {
            format(&path, engine, false).unwrap();
        }
    }
}
