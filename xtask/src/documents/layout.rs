//! Comments and Markdown end at column 100, and the names of tests are short.

use super::files::{self, Kind};

const COLUMNS: usize = 100;
const NAME_LEN: usize = 60;

/// The numbers of the lines that are too long, from 1.
///
/// In Rust that is every line, because `rustfmt` leaves only comments and string literals longer; a
/// literal may be, if it has no comment. In Markdown, tables, blocks of code and single words that
/// do not fit are not wrapped.
fn too_long(kind: Kind, text: &str) -> Vec<usize> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        fenced ^= line.trim_start().starts_with("```");
        let is_exempt = match kind {
            Kind::Rust => {
                !line.contains("//") || line.trim_start_matches([' ', '/', '!']).starts_with("$ ")
            }
            Kind::Markdown => fenced || line.starts_with('|'),
            Kind::Script => !line.trim_start().starts_with('#'),
        };
        let has_words = line.trim_start_matches([' ', '/', '!', '#', '-', '*']).contains(' ');
        if !is_exempt && has_words && line.chars().count() > COLUMNS {
            found.push(number);
        }
    }
    found
}

#[test]
fn comments_and_markdown_end_at_column_100() {
    let mut all = String::new();
    for (path, kind, text) in files::all() {
        let path = path.strip_prefix(files::root()).unwrap().display().to_string();
        too_long(kind, &text).iter().for_each(|line| all += &format!("{path}:{line}\n"));
    }
    assert!(all.is_empty(), "{} lines are longer than {COLUMNS}:\n{all}", all.lines().count());
}

#[test]
fn only_prose_is_held_to_the_last_column() {
    let long = "word ".repeat(21);
    let of = |kind, text: &str| too_long(kind, text).len();
    assert_eq!(of(Kind::Rust, &format!("/// {long}\n// short\n    // {long}\n")), 2);
    assert_eq!(of(Kind::Rust, &format!("    \"{long}\"\n")), 0);
    assert_eq!(of(Kind::Rust, &format!("// {}\n", "x".repeat(120))), 0);
    assert_eq!(of(Kind::Markdown, &format!("{long}\n\n| {long} |\n```text\n{long}\n```\n")), 1);
    assert_eq!(of(Kind::Script, &format!("# {long}\necho {long}\n")), 1);
}

/// The names of the tests in a Rust file that are too long.
fn long_names(text: &str) -> Vec<&str> {
    let after = text.split("#[test]").skip(1);
    let names = after.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
    names.filter(|name| name.len() > NAME_LEN).collect()
}

#[test]
fn names_of_tests_have_at_most_60_characters() {
    let mut all = String::new();
    for (path, _, text) in files::all().iter().filter(|(_, kind, _)| *kind == Kind::Rust) {
        let path = path.strip_prefix(files::root()).unwrap().display();
        long_names(text).iter().for_each(|name| all += &format!("{path}: {name}\n"));
    }
    assert!(all.is_empty(), "{} names are too long:\n{all}", all.lines().count());
}

#[test]
fn a_long_name_of_a_test_is_found() {
    let long = "a".repeat(61);
    let text =
        format!("#[test]\n#[ignore]\nfn {long}() {{}}\nfn {long}_() {{}}\n#[test]\nfn b() {{}}");
    assert_eq!(long_names(&text), [long]);
}
