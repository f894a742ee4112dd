//! The documents are true: every `$ rawblock` command in them runs as it is written, in the order
//! of its file, and where help is shown, it is what the program prints.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use raw_block_core::conformance::Skipped;

/// All Markdown files of the project.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = [".", "docs", "raw-block-core", "raw-block-posix", "raw-block-uring"]
        .into_iter()
        .chain(["raw-block-nvme", "raw-block-store"]);
    let files = folders.filter_map(|folder| fs::read_dir(root.join(folder)).ok()).flatten();
    let mut documents: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    documents.sort();
    documents
}

/// The commands of the console blocks of a document, each with what is shown below it.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let mut of_block: Vec<(String, String)> = Vec::new();
        for line in block.lines() {
            // The prompt of root is another.
            let command = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
            match (command, of_block.last_mut()) {
                (Some(command), _) => of_block.push((command.to_owned(), String::new())),
                (None, Some((_, shown))) => *shown += &format!("{line}\n"),
                (None, None) => panic!("a console block begins with a command: {line}"),
            }
        }
        commands.extend(of_block);
    }
    commands
}

#[test]
fn every_command_of_the_tool_runs_as_it_is_written() {
    let tool = Path::new(env!("CARGO_BIN_EXE_rawblock")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), env::var("PATH").unwrap());
    let mut ran = 0;
    let documents = documents();
    if !documents.iter().any(|path| path.ends_with("CONTRIBUTING.md")) {
        return Skipped::because("the documents are those of the workspace, not of the package")
            .report();
    }
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(folder.path().join("README.md"), "a value").unwrap();
        let commands: Vec<_> = commands(&text)
            .into_iter()
            .filter(|(command, _)| {
                command.contains("rawblock ") || command.starts_with("truncate ")
            })
            .collect();
        // A document may take the store for given that another one makes.
        if !commands.iter().any(|(command, _)| command.starts_with("truncate ")) {
            shell("truncate -s 64M store.img && rawblock format store.img", &path, folder.path());
        }
        for (command, shown) in commands {
            if command.contains("/dev/") {
                continue;
            }
            let printed = shell(&command, &path, folder.path());
            if !shown.is_empty() {
                assert_eq!(printed, shown, "{}: {command}", document.display());
            }
            ran += 1;
        }
    }
    assert!(ran >= 15, "only {ran} commands were found");
}

/// Runs a command that succeeds; what it printed.
fn shell(command: &str, path: &str, folder: &Path) -> String {
    let output =
        Command::new("sh").args(["-c", command]).env("PATH", path).current_dir(folder).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_examples_of_the_help_are_commands_of_the_tool() {
    for name in ["", "format", "ls", "get", "put", "rm", "clear", "check", "dump", "info"] {
        let help = Command::new(env!("CARGO_BIN_EXE_rawblock"))
            .args([name, "--help"].iter().filter(|part| !part.is_empty()))
            .output()
            .unwrap();
        assert!(help.status.success(), "{name}");
        let help = String::from_utf8(help.stdout).unwrap();
        for line in help.lines().filter(|line| line.starts_with("  rawblock ")) {
            // The command line is right: the device alone is missing.
            let words: Vec<_> = line
                .split("   ")
                .find(|part| part.contains("rawblock"))
                .and_then(|command| command.split('|').next())
                .unwrap()
                .split_whitespace()
                .skip(1)
                .map(|word| if word.starts_with("/dev/") { "/nowhere" } else { word })
                .collect();
            let output = Command::new(env!("CARGO_BIN_EXE_rawblock"))
                .args(&words)
                .current_dir("/")
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("No such file"), "{line}: {said}");
        }
    }
}
