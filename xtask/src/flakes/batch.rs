//! One process that runs some tests of a program.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guard::Guarded;
use super::schedule::Batch;
use crate::programs::Program;

/// Maximum number of shown lines of the output of a process, from its end.
const LINES: usize = 80;
/// Maximum number of shown lines of its standard error, which all its tests share.
const STDERR_LINES: usize = 30;

/// Limits of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) threads: usize,
    pub(super) time: Duration,
}

/// A test that failed, or a process that failed without a failed test.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) what: What,
    /// Its output.
    pub(super) output: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Test(String),
    /// The process ended before its tests did.
    Died,
    /// The process was killed because it took too long.
    Hung,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test(name) => f.write_str(name),
            Self::Died => f.write_str("the process died"),
            Self::Hung => f.write_str("the process hung"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Test(name) => write!(f, "{name} failed"),
            what => write!(f, "{what}"),
        }
    }
}

/// The names of a program's tests.
pub(super) fn tests_of(program: &Program) -> Result<Vec<String>> {
    let mut command = Command::new(&program.path);
    command.args(["--list", "--format", "terse"]).current_dir(&program.directory);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", program.name))?;
    if !output.status.success() {
        bail!("cannot list the tests of {}: {}", program.name, output.status);
    }
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses the list of tests that a test program prints.
fn listed(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Runs the tests of a batch, and returns the failures.
pub(super) fn run(batch: &Batch<'_>, limits: Limits) -> Result<Vec<Failure>> {
    let threads = format!("--test-threads={}", limits.threads);
    let mut arguments = vec!["--exact", &threads];
    arguments.extend(&batch.tests);
    let Program { path, directory, .. } = batch.program;
    let [stdout, stderr] =
        [(); 2].map(|()| tempfile::tempfile().context("cannot create a temporary file"));
    let (stdout, stderr) = (stdout?, stderr?);
    let share = |file: &File| file.try_clone().context("cannot duplicate a descriptor");
    let mut process =
        Guarded::program(path, &arguments, directory, share(&stdout)?, share(&stderr)?)?;
    let status = process.wait(limits.time)?;
    drop(process);
    let (stdout, stderr) = (text_of(stdout)?, text_of(stderr)?);
    let end = match status {
        Some(status) if status.success() => return Ok(Vec::new()),
        Some(_) => What::Died,
        None => What::Hung,
    };
    Ok(failures(&batch.tests, end, &stdout, &stderr))
}

fn text_of(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .context("cannot read the output of a process")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The failures of a process that failed.
fn failures(tests: &[&str], end: What, stdout: &str, stderr: &str) -> Vec<Failure> {
    // Each once: a test that runs in its own process has two results.
    let results: BTreeMap<_, _> = stdout.lines().filter_map(result).collect();
    let failed = results.iter().filter(|&(_, &failed)| failed);
    let failure = |(&name, _)| {
        let shown = section(stdout, name).unwrap_or_else(|| last_lines(stdout, LINES));
        Failure { what: What::Test(name.to_owned()), output: with_stderr(&shown, stderr) }
    };
    let mut failures: Vec<_> = failed.map(failure).collect();
    let ended = |test: &&str| results.contains_key(test);
    let (_, missing): (Vec<_>, Vec<_>) = tests.iter().copied().partition(ended);
    // A process with failed tests exits after the last test.
    if failures.is_empty() || end == What::Hung || !missing.is_empty() {
        let shown =
            format!("no result from: {}\n{}", missing.join(", "), last_lines(stdout, LINES));
        failures.push(Failure { what: end, output: with_stderr(&shown, stderr) });
    }
    failures
}

/// Parses the result of a test: its name, and whether it failed.
fn result(line: &str) -> Option<(&str, bool)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let known = ["ok", "FAILED", "ignored"].iter().any(|&known| result.starts_with(known));
    known.then(|| (name, result.starts_with("FAILED")))
}

/// The output of a failed test, which the program repeats at its end.
fn section(stdout: &str, name: &str) -> Option<String> {
    let lines = stdout.lines().skip_while(|line| *line != format!("---- {name} stdout ----"));
    let section =
        lines.skip(1).take_while(|line| !line.starts_with("---- ") && *line != "failures:");
    let section: Vec<_> = section.collect();
    (!section.is_empty()).then(|| section.join("\n").trim().to_owned())
}

fn with_stderr(stdout: &str, stderr: &str) -> String {
    // This is the result of a test that passed.
    let stderr: Vec<_> = stderr.lines().filter(|line| !line.starts_with("skipped: ")).collect();
    if stderr.is_empty() {
        return stdout.to_owned();
    }
    format!(
        "{stdout}\n-- standard error of the process:\n{}",
        last_lines(&stderr.join("\n"), STDERR_LINES)
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::one ... ok
test two ... FAILED
test three - should panic ... FAILED
test four ... ignored, why

failures:

---- two stdout ----

thread 'two' panicked at src/lib.rs:1:2:
left and right

---- three - should panic stdout ----
note: test did not panic as expected

failures:
    three
    two

test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn whats(failures: &[Failure]) -> Vec<String> {
        failures.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tests_are_found_in_the_list_of_a_program() {
        assert_eq!(listed("a::b: test\nbench: benchmark\nc: test\n"), ["a::b", "c"]);
        assert!(listed("").is_empty());
    }

    #[test]
    fn results_are_found_in_the_output_of_a_program() {
        assert_eq!(result("test a::b ... ok"), Some(("a::b", false)));
        assert_eq!(result("test a - should panic ... FAILED"), Some(("a", true)));
        assert_eq!(result("test a ... ignored, why"), Some(("a", false)));
        for line in [
            "test a has been running for over 60 seconds",
            "test result: ok. 1 passed",
            "test x ... ",
        ] {
            assert_eq!(result(line), None, "{line}");
        }
    }

    #[test]
    fn a_failed_test_comes_with_what_it_printed() {
        let tests = ["a::one", "two", "three", "four"];
        let output = OUTPUT.replace("test two ", "test two ... FAILED\ntest two ");
        let failures = failures(&tests, What::Died, &output, "skipped: no root\na child\n");
        assert_eq!(whats(&failures), ["three failed", "two failed"]);
        let output = &failures[1].output;
        assert!(output.starts_with("thread 'two' panicked"), "{output}");
        assert!(!output.contains("did not panic") && output.ends_with("a child"), "{output}");
    }

    #[test]
    fn a_process_that_dies_or_hangs_names_tests_without_a_result() {
        let stdout = "test one ... ok\n";
        for end in [What::Died, What::Hung] {
            let failures = failures(&["one", "two", "three"], end.clone(), stdout, "signal: 6");
            assert_eq!(failures.len(), 1);
            assert_eq!(failures[0].what, end);
            for part in ["no result from: two, three\n", "test one ... ok", "signal: 6"] {
                assert!(failures[0].output.contains(part), "{}", failures[0].output);
            }
        }
        let both = failures(&["one", "two"], What::Hung, "test one ... FAILED\n", "");
        assert_eq!(whats(&both), ["one failed", "the process hung"]);
    }
}
