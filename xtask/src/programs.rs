//! Programs that cargo builds.

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
    /// The directory of the package, in which cargo runs its tests.
    pub(crate) directory: PathBuf,
    /// Whether it is an integration test, and not the unit tests of a library, program or example.
    pub(crate) is_integration: bool,
}

impl Program {
    /// The name of its package.
    pub(crate) fn package(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// A program without a file.
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

/// Returns the command that compiles the tests of the workspace and does not run them. [`build`]
/// runs it. `.ci/run` tests the same packages, so that they are compiled once.
pub(crate) fn compiling() -> Command {
    let mut command = cargo("test");
    command.args(["--no-run", "--workspace"]);
    command
}

/// Compiles tests, and returns the integration tests, sorted by name.
pub(crate) fn build(command: &mut Command) -> Result<Vec<Program>> {
    let mut programs = build_all(command)?;
    programs.retain(|program| program.is_integration);
    Ok(programs)
}

/// Compiles tests, and returns all test programs, sorted by name.
pub(crate) fn build_all(command: &mut Command) -> Result<Vec<Program>> {
    let messages = messages_of(command).context("cannot compile the tests")?;
    let mut programs: Vec<_> = messages.lines().filter_map(test_program).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// Compiles the program of one package in release mode, and returns its path.
pub(crate) fn build_release(package: &str) -> Result<PathBuf> {
    let mut command = cargo("build");
    command.args(["--release", "--package", package]);
    let messages =
        messages_of(&mut command).with_context(|| format!("cannot compile {package}"))?;
    let program = messages.lines().find_map(executable);
    program.with_context(|| format!("the package {package} has no program"))
}

/// A cargo command that reports what it builds as JSON.
fn cargo(subcommand: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([subcommand, "--message-format", "json-render-diagnostics"]);
    command
}

/// Runs cargo, and returns its JSON messages. Its progress and the errors of the compiler are
/// shown.
fn messages_of(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A message of cargo about a file that it has built.
#[derive(Deserialize)]
struct Artifact {
    package_id: String,
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

impl Artifact {
    fn parse(message: &str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }

    /// The name of its package. The id is `URL#NAME@VERSION`, or `URL#VERSION` if the last segment
    /// of the URL is the name.
    fn package(&self) -> Option<&str> {
        let (url, fragment) = self.package_id.rsplit_once('#')?;
        match fragment.split_once('@') {
            Some((name, _)) => Some(name),
            None => url.rsplit('/').next(),
        }
    }
}

/// The test program that this message of cargo is about.
fn test_program(message: &str) -> Option<Program> {
    let artifact = Artifact::parse(message)?;
    if !artifact.profile.test {
        return None;
    }
    Some(Program {
        name: format!("{}.{}", artifact.package()?, artifact.target.name),
        directory: artifact.manifest_path.parent()?.to_owned(),
        is_integration: artifact.target.kind == ["test"],
        path: artifact.executable?,
    })
}

/// The path of the program that this message of cargo is about. Tests do not count.
fn executable(message: &str) -> Option<PathBuf> {
    let artifact = Artifact::parse(message)?;
    let is_program = artifact.target.kind == ["bin"] && !artifact.profile.test;
    if is_program { artifact.executable } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///a/raw-block-x#0.1.0",
            "manifest_path":"/a/raw-block-x/Cargo.toml",
            "target":{{"kind":["{kind}"],"name":"vm_one"}},"profile":{{"test":{test}}},
            "executable":{executable}}}"#
        )
    }

    const PATH: &str = r#""/t/vm_one-1""#;

    #[test]
    fn test_programs_are_those_that_cargo_built_as_tests() {
        for (kind, is_integration) in [("test", true), ("lib", false), ("example", false)] {
            let found = test_program(&message(kind, true, PATH)).unwrap();
            assert_eq!((&*found.name, found.package()), ("raw-block-x.vm_one", "raw-block-x"));
            assert_eq!(
                (found.path, found.directory),
                ("/t/vm_one-1".into(), "/a/raw-block-x".into())
            );
            assert_eq!(found.is_integration, is_integration);
        }
        assert_eq!(test_program(&message("lib", false, "null")), None);
        assert_eq!(test_program(&message("example", false, PATH)), None);
        assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn a_package_has_its_name_in_any_directory() {
        let message = message("test", true, PATH).replace("#0.1.0", "/dir#raw-block-y@0.1.0");
        assert_eq!(test_program(&message).unwrap().name, "raw-block-y.vm_one");
    }

    #[test]
    fn the_executable_of_a_package_is_its_program() {
        assert_eq!(executable(&message("bin", false, PATH)), Some("/t/vm_one-1".into()));
        for (kind, test, path) in
            [("bin", true, PATH), ("lib", false, "null"), ("test", true, PATH)]
        {
            assert_eq!(executable(&message(kind, test, path)), None, "{kind}");
        }
    }
}
