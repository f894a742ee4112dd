//! `cargo xtask asan`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::nightly;

/// The help of this chore.
pub(crate) const ABOUT: &str = "Runs the tests with AddressSanitizer.

An access to freed or foreign memory ends the test in which it happens. Requires a nightly toolchain, because the \
sanitizer is not stable yet:

    rustup toolchain install nightly --profile minimal

By default, runs the tests of the crates with unsafe code, and those of the posix backend, whose system calls the \
sanitizer checks. The store has no unsafe code; the fuzz targets run it with the sanitizer. Skips the tests of the \
virtual machine, and those with their own allocator. The first run compiles everything, below target/asan.";

const PACKAGES: [&str; 4] =
    ["raw-block-core", "raw-block-posix", "raw-block-uring", "raw-block-nvme"];

/// Random cases of each property, unless `PROPTEST_CASES` is set. A few suffice to find invalid
/// accesses.
const CASES: &str = "16";

const FLAG: &str = "-Zsanitizer=address";

/// Leaks are not checked, because some tests leak on purpose: a forgotten ticket never returns its
/// buffers, a forked child exits with the memory of its parent, a simulated crash frees nothing.
const SANITIZER_OPTIONS: &str = "detect_leaks=0";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Packages whose tests run; may be repeated
    #[arg(long = "package", short, value_name = "PACKAGE", default_values = PACKAGES)]
    packages: Vec<String>,
    /// Arguments of the test programs, such as the name of a test
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the tests, which inherit the output of this program.
pub(crate) fn run(options: &Options) -> Result<()> {
    let host = host_of_nightly()?;
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(' ');
    }
    flags.push_str(FLAG);
    let mut sanitizer_options = SANITIZER_OPTIONS.to_owned();
    if let Ok(more) = env::var("ASAN_OPTIONS") {
        // The last value of an option counts.
        sanitizer_options = format!("{sanitizer_options}:{more}");
    }
    let mut command = nightly::program("cargo");
    command.arg("test").arg("--target").arg(&host).arg("--target-dir").arg(target_directory());
    for package in &options.packages {
        command.args(["--package", package]);
    }
    // With `--target`, the flags apply to the tests, but not to build scripts and macros, which run
    // inside the compiler. Doctests run without the sanitizer.
    command.arg("--lib");
    for test in integration_tests(&options.packages)? {
        command.args(["--test", &test]);
    }
    command.args(["--no-fail-fast", "--"]).args(&options.arguments);
    command.env("RUSTFLAGS", flags).env("ASAN_OPTIONS", sanitizer_options);
    // The checks of the sanitizer dominate the time of unoptimised code.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    if env::var_os("PROPTEST_CASES").is_none() {
        command.env("PROPTEST_CASES", CASES);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the tests failed with AddressSanitizer ({status})");
    }
    Ok(())
}

/// The names of the integration tests of these packages. Tests of the virtual machine would be
/// skipped here, and the allocator of `lifetime` tests replaces that of the sanitizer.
fn integration_tests(packages: &[String]) -> Result<BTreeSet<String>> {
    let mut tests = BTreeSet::new();
    for package in packages {
        let directory = workspace().join(package).join("tests");
        let context = || format!("{package} has no {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let is_test = path.extension().is_some_and(|extension| extension == "rs");
            if is_test && !name.starts_with("vm_") && !name.starts_with("lifetime") {
                tests.insert(name);
            }
        }
    }
    Ok(tests)
}

/// The target triple of this machine. The nightly toolchain has the sanitizer for it.
fn host_of_nightly() -> Result<String> {
    const INSTALL: &str = "install it with `rustup toolchain install nightly --profile minimal`";
    let output = match nightly::program("rustc").arg("-vV").stderr(Stdio::piped()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "AddressSanitizer requires a nightly toolchain, and rustup, which starts it, is missing"
            )
        }
        Err(error) => return Err(error).context("cannot run rustup"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "AddressSanitizer requires a nightly toolchain, which is missing: {INSTALL}\n{}",
            said.trim()
        );
    }
    let about = String::from_utf8_lossy(&output.stdout);
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("the nightly rustc does not report its host")
}

/// Not in the usual target directory: each build would invalidate the other.
fn target_directory() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target")).join("asan")
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}
