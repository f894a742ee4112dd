//! Test programs, as cargo makes them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A test program of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Package and target: `raw-block-uring.vm_conformance`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Of the package: cargo runs its tests there.
    pub(crate) directory: PathBuf,
    /// Whether it is an integration test. The others are the tests in a library, a program or an example.
    pub(crate) is_integration: bool,
}

impl Program {
    /// The name of its package.
    pub(crate) fn package(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// A program that is nowhere.
    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: PathBuf::new(),
            directory: PathBuf::new(),
            is_integration: true,
        }
    }
}

/// The command that compiles tests of the workspace without running them; [`build`] runs it.
pub(crate) fn compiling() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--workspace"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    command
}

/// Compiles tests, and returns the integration tests, by name.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Program>> {
    let mut programs = build_all(command)?;
    programs.retain(|program| program.is_integration);
    Ok(programs)
}

/// Compiles tests, and returns all test programs, by name.
pub(crate) fn build_all(command: &mut Command) -> Result<Vec<Program>> {
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
    profile: Profile,
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test program that this message of cargo is about.
fn program(message: &str) -> Option<Program> {
    let Artifact { target, profile, manifest_path, executable } =
        serde_json::from_str(message).ok()?;
    if !profile.test {
        return None;
    }
    let directory = manifest_path.parent()?;
    let package = directory.file_name()?.to_str()?;
    Some(Program {
        name: format!("{package}.{}", target.name),
        path: executable?,
        directory: directory.to_owned(),
        is_integration: target.kind == ["test"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_everything_else_that_cargo_makes() {
        let message = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/a/raw-block-x/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"vm_one"}},"profile":{{"test":{test}}},
                "executable":{executable}}}"#
            )
        };
        let path = r#""/t/vm_one-1""#;
        for (kind, is_integration) in [("test", true), ("lib", false), ("example", false)] {
            let found = program(&message(kind, true, path)).unwrap();
            assert_eq!((&*found.name, found.package()), ("raw-block-x.vm_one", "raw-block-x"));
            assert_eq!(
                (found.path, found.directory),
                ("/t/vm_one-1".into(), "/a/raw-block-x".into())
            );
            assert_eq!(found.is_integration, is_integration);
        }
        assert_eq!(program(&message("lib", false, "null")), None);
        assert_eq!(program(&message("example", false, path)), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
