//! `cargo xtask unprivileged`.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::programs::{self, Program};

/// The help of this chore.
pub(crate) const ABOUT: &str = "Runs the tests of the backends and of the store as a user without privileges.

Run as root, the other tests would not notice an operation that requires root. This chore requires root too, and \
becomes user 65534, without groups or capabilities. It runs copies of the test programs in a directory of that user. A \
test that requires root prints one line, `skipped`. If you are not root, `cargo test` does the same.";

/// The user `nobody`. The kernel itself uses this number for users without a mapping.
const USER: u32 = 65_534;

const PACKAGES: [&str; 3] = ["raw-block-posix", "raw-block-uring", "raw-block-store"];

/// Random cases of each property, unless `PROPTEST_CASES` is set: these tests depend on the user,
/// not on the data.
const CASES: &str = "16";

/// Tests that need the program `rawblock` or files of the workspace, which that user may not be
/// able to read.
const WITH_FILES: [&str; 6] =
    ["cli", "cli_check", "cli_output", "cli_structures", "deploying", "documents"];
/// Tests that run in memory only, or check memory use: they do not depend on the user.
const IN_MEMORY: [&str; 8] = [
    "concurrent",
    "eviction",
    "front_fork",
    "hostile_images",
    "index_memory",
    "lifetime_conformance",
    "read_faults",
    "reopen",
];

/// Runs the tests, which inherit the output of this program.
pub(crate) fn run() -> Result<()> {
    if !geteuid().is_root() {
        bail!("only root can become another user: run `cargo test --workspace` instead");
    }
    let mut programs = programs::build(&mut programs::compiling())?;
    programs.retain(|program| is_run(&program.name));
    let directory = tempfile::tempdir().context("cannot create a directory")?;
    let directory = directory.path();
    // A umask may have removed access for other users.
    fs::set_permissions(directory, Permissions::from_mode(0o755))
        .and_then(|()| chown(directory, Some(USER), Some(USER)))
        .with_context(|| format!("cannot change the owner of {}", directory.display()))?;
    let mut failed = Vec::new();
    for program in &programs {
        println!("\n== {}", program.name);
        if !succeeds(program, directory)? {
            failed.push(program.name.as_str());
        }
    }
    println!("\n{} test programs as user {USER}, {} failed", programs.len(), failed.len());
    if !failed.is_empty() {
        bail!("these tests failed without privileges: {}", failed.join(", "));
    }
    Ok(())
}

fn is_run(name: &str) -> bool {
    let Some((package, test)) = name.split_once('.') else { return false };
    PACKAGES.contains(&package)
        && !test.starts_with("vm_")
        && !WITH_FILES.contains(&test)
        && !IN_MEMORY.contains(&test)
}

/// Copies the program to where that user can read it, runs the copy, and removes it.
fn succeeds(program: &Program, directory: &Path) -> Result<bool> {
    // Not the name of its package: threads have that name, and some tests count them.
    let copy = directory.join("test");
    fs::copy(&program.path, &copy).with_context(|| format!("cannot copy {}", program.name))?;
    let mut command = Command::new(&copy);
    // Without explicit groups, the standard library drops those of root.
    command.uid(USER).gid(USER).current_dir(directory).stdin(Stdio::null());
    command.env("TMPDIR", directory).env("HOME", directory);
    if env::var_os("PROPTEST_CASES").is_none() {
        command.env("PROPTEST_CASES", CASES);
    }
    let status = command.status().with_context(|| format!("cannot run {}", program.name))?;
    fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_open_files_run_and_those_for_root_do_not() {
        for name in
            ["raw-block-store.opening", "raw-block-posix.conformance", "raw-block-uring.ring"]
        {
            assert!(is_run(name), "{name}");
        }
        for name in
            ["raw-block-store.cli", "raw-block-uring.vm_conformance", "raw-block-core.queues"]
        {
            assert!(!is_run(name), "{name}");
        }
    }

    #[test]
    fn every_program_that_is_skipped_exists() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for name in WITH_FILES.iter().chain(&IN_MEMORY) {
            let file = format!("tests/{name}.rs");
            assert!(
                PACKAGES.iter().any(|package| workspace.join(package).join(&file).is_file()),
                "{name}"
            );
        }
    }
}
