//! The documents are true: their links lead somewhere, and the commands in them exist.

mod files;
mod idioms;
mod layout;
mod prose;

use std::fs;
use std::path::Path;

use clap::Parser;

use super::Arguments;
use files::{documents, root};

/// The commands of the console blocks.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("$ "))
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_to_a_file_or_a_heading_leads_there() {
    let mut links = 0;
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|found| found == heading), "{}: {link}", path.display());
            }
        }
    }
    assert!(links >= 10, "only {links} links were found");
}

#[test]
fn every_command_of_cargo_xtask_is_one_that_it_takes() {
    let mut found = 0;
    for (path, text) in documents() {
        for command in commands(&text).filter(|command| command.starts_with("cargo xtask ")) {
            found += 1;
            let command = command.split(" #").next().unwrap_or_default();
            let words: Vec<_> = command.split_whitespace().skip(1).collect();
            let parsed = match words[1] {
                "bench" | "scale" => raw_block_bench::Arguments::try_parse_from(words).map(drop),
                "crash" | "kill" => raw_block_torture::Arguments::try_parse_from(words).map(drop),
                _ => Arguments::try_parse_from(words).map(drop),
            };
            if let Err(error) = parsed {
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                let shows = matches!(error.kind(), DisplayHelp | DisplayVersion);
                assert!(shows, "{}: {command}: {error}", path.display());
            }
        }
    }
    assert!(found >= 5, "only {found} commands were found");
}

#[test]
fn every_command_that_starts_a_compiled_program_is_right() {
    let mut found = 0;
    for (path, text) in documents() {
        for command in commands(&text) {
            let Some((_, started)) = command.split_once("target/release/") else { continue };
            found += 1;
            let words: Vec<_> = started.split_whitespace().collect();
            // `cargo xtask bench` compiles it; xtask itself is compiled without optimization.
            assert_eq!(words[0], "raw-block-bench", "{}: {command}", path.display());
            if let Err(error) = raw_block_bench::Arguments::try_parse_from(words) {
                panic!("{}: {command}: {error}", path.display());
            }
        }
    }
    assert!(found >= 3, "only {found} commands were found");
}

#[test]
fn every_example_and_package_that_a_command_names_is_there() {
    let mut found = 0;
    for (path, text) in documents() {
        for command in commands(&text).filter(|command| command.starts_with("cargo ")) {
            let words: Vec<_> = command.split_whitespace().collect();
            let after = |names: [&str; 2]| {
                let at = words.iter().position(|word| names.contains(word))?;
                words.get(at + 1).copied()
            };
            let Some(package) = after(["-p", "--package"]).or_else(|| after(["--path", "--path"]))
            else {
                continue;
            };
            found += 1;
            let folder = root().join(package);
            assert!(folder.is_dir(), "{}: {command}", path.display());
            if let Some(example) = after(["--example", "--example"]) {
                let file = folder.join("examples").join(format!("{example}.rs"));
                assert!(file.is_file(), "{}: {command}", path.display());
            }
        }
    }
    assert!(found >= 5, "only {found} commands were found");
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let files: Vec<_> = files::all().into_iter().map(|(path, ..)| path).collect();
    let mut found = 0;
    for (path, text) in documents() {
        let quoted = text.split('`').skip(1).step_by(2);
        let names = quoted.filter(|name| name.ends_with(".rs") && !name.contains([' ', '*']));
        for name in names {
            found += 1;
            let is_there = files.iter().any(|file| file.ends_with(name));
            assert!(is_there, "{}: there is no {name}", path.display());
        }
    }
    assert!(found >= 20, "only {found} names were found");
}

#[test]
fn contributing_lists_every_cargo_command_of_ci() {
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let lines = ci.lines().map(str::trim).filter(|line| line.starts_with("cargo "));
    let mut found = 0;
    for line in lines {
        found += 1;
        let is_literal = |word: &&str| !word.contains(['$', '>', '&', '|']);
        let command = line.split(' ').take_while(is_literal).collect::<Vec<_>>().join(" ");
        assert!(contributing.contains(&command), "CONTRIBUTING.md lacks: {command}");
    }
    assert!(found >= 10, "only {found} commands were found");
}

/// Everything below a folder that is Rust.
fn rust_below(folder: &Path, text: &mut String) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_below(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_protocol_names_every_mutant_and_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let (_, table) = text.split_once("## Mutants and tests of each rule").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule"));
    let rows: Vec<_> = rows.map(|row| row.split('|').collect::<Vec<_>>()).collect();
    let quoted = |column: usize| {
        rows.iter().flat_map(move |row| row[column].split('`').skip(1).step_by(2)).collect()
    };
    let (mut mutants, tests): (Vec<_>, Vec<_>) = (quoted(2), quoted(3));
    let mut all =
        raw_block_store::Mutant::ALL.iter().map(|mutant| format!("{mutant:?}")).collect::<Vec<_>>();
    all.sort();
    mutants.sort_unstable();
    assert_eq!(mutants, all);
    let mut sources = String::new();
    for folder in ["raw-block-store/src", "raw-block-store/tests"] {
        rust_below(&root().join(folder), &mut sources);
    }
    for test in tests {
        assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
    }
    assert!(rows.iter().all(|row| row[2].len() + row[3].len() > 4), "each rule has one of them");
}

#[test]
fn the_code_in_the_first_readme_is_tested_in_a_package() {
    let documents = documents();
    let readme = root().join("README.md");
    let (own, others): (Vec<_>, Vec<_>) = documents.iter().partition(|(path, _)| *path == readme);
    let blocks = own.iter().flat_map(|(_, text)| text.split("```rust").skip(1));
    for block in blocks {
        let block = block.split("```").next().unwrap_or_default();
        assert!(others.iter().any(|(_, text)| text.contains(block)), "{block}");
    }
}
