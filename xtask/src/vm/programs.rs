//! The test programs for the guest: every integration test of the workspace whose name begins with `vm_`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "vm";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Package and test: `raw-block-uring.vm_conformance`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Compiles them, linked without shared libraries, below `directory`.
pub(crate) fn build(directory: &Path) -> Result<Vec<Program>> {
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" -Ctarget-feature=+crt-static");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--workspace", "--test", "vm_*"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(directory)
        .env("RUSTFLAGS", flags)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests for the guest do not compile ({})", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs: Vec<_> = messages.lines().filter_map(program).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// What cargo says about something it made.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The test program that this message of cargo is about.
fn program(message: &str) -> Option<Program> {
    let Artifact { target, manifest_path, executable } = serde_json::from_str(message).ok()?;
    if target.kind != ["test"] {
        return None;
    }
    let package = manifest_path.parent()?.file_name()?.to_str()?;
    Some(Program { name: format!("{package}.{}", target.name), path: executable? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_everything_else_that_cargo_makes() {
        let message = |kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/a/raw-block-x/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"vm_one"}},"executable":{executable}}}"#
            )
        };
        let found = Program { name: "raw-block-x.vm_one".to_owned(), path: "/t/vm_one-1".into() };
        assert_eq!(program(&message("test", r#""/t/vm_one-1""#)), Some(found));
        assert_eq!(program(&message("lib", "null")), None);
        assert_eq!(program(&message("example", r#""/t/vm_one-1""#)), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
