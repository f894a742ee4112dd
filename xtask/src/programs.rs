//! Test programs, as cargo makes them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// An integration test of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Package and test: `raw-block-uring.vm_conformance`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The command that compiles tests of the workspace without running them; [`build`] runs it.
pub(crate) fn compiling() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--workspace"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    command
}

/// Compiles integration tests, and tells which there are, by name.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Program>> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile ({})", output.status);
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
