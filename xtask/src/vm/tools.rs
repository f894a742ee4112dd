//! The programs that the host must have. An error names all that are missing.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::{self, Kernel};
use super::qemu::Version;

/// The parts of a guest.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) qemu: PathBuf,
    pub(crate) qemu_version: Version,
    pub(crate) busybox: PathBuf,
    pub(crate) kernel: Kernel,
}

/// A missing program, and the Debian package that has it.
struct Missing {
    what: String,
    package: &'static str,
}

impl Tools {
    /// Finds all programs. Downloads a kernel to `directory` if none is installed.
    ///
    /// # Errors
    /// One error that names all that is missing, and the command that installs it.
    pub(crate) fn find(directory: &Path) -> Result<Self> {
        if env::consts::ARCH != "x86_64" {
            bail!(
                "the guest is an x86_64 machine, but this machine, which compiles the tests, is {}: use an x86_64 machine",
                env::consts::ARCH
            );
        }
        let qemu = program("qemu-system-x86_64", "qemu-system-x86");
        let busybox = program("busybox", "busybox-static").and_then(static_busybox);
        let kernel = kernel::find(directory).map_err(|error| Missing {
            what: format!("a kernel with NVMe built in ({error:#})"),
            package: kernel::PACKAGE,
        });
        match (qemu, busybox, kernel) {
            (Ok(qemu), Ok(busybox), Ok(kernel)) => {
                let qemu_version = version(&qemu)?;
                Ok(Self { qemu, qemu_version, busybox, kernel })
            }
            (qemu, busybox, kernel) => {
                let missing = [qemu.err(), busybox.err(), kernel.err()];
                bail!(message(&missing.into_iter().flatten().collect::<Vec<_>>()))
            }
        }
    }
}

fn message(missing: &[Missing]) -> String {
    let mut text = "the virtual machine lacks:\n".to_owned();
    for Missing { what, .. } in missing {
        let _ = writeln!(text, "  {what}");
    }
    text.push_str(
        "install on Debian with:\n  apt-get update && apt-get install --no-install-recommends",
    );
    for Missing { package, .. } in missing {
        text.push(' ');
        text.push_str(package);
    }
    text
}

/// The first program of this name in `PATH`.
fn program(name: &str, package: &'static str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Missing { what: format!("the program {name}"), package })
}

/// The guest has no shared libraries.
fn static_busybox(path: PathBuf) -> Result<PathBuf, Missing> {
    // ldd(1) succeeds if the program needs shared libraries.
    match Command::new("ldd").arg(&path).output() {
        Ok(output) if output.status.success() => Err(Missing {
            what: format!("a busybox that needs no shared libraries ({} does)", path.display()),
            package: "busybox-static",
        }),
        _ => Ok(path),
    }
}

fn version(qemu: &Path) -> Result<Version> {
    let output = Command::new(qemu)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", qemu.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).with_context(|| format!("{} does not print its version", qemu.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_names_all_that_is_missing_and_one_command() {
        let missing = [
            Missing { what: "the program qemu".to_owned(), package: "qemu-package" },
            Missing { what: "a kernel".to_owned(), package: "kernel-package" },
        ];
        assert_eq!(
            message(&missing),
            "the virtual machine lacks:\n  the program qemu\n  a kernel\ninstall on Debian with:\n  \
             apt-get update && apt-get install --no-install-recommends qemu-package kernel-package"
        );
    }
}
