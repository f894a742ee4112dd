//! The files of the project that people read.

use std::fs;
use std::path::{Path, PathBuf};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rust,
    Markdown,
    /// A shell script or TOML: comments begin with `#`.
    Script,
}

/// The root of the workspace.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Markdown files with their text.
pub(super) fn documents() -> Vec<(PathBuf, String)> {
    let all = all().into_iter().filter(|&(_, kind, _)| kind == Kind::Markdown);
    let documents: Vec<_> = all.map(|(path, _, text)| (path, text)).collect();
    assert!(documents.len() >= 10, "{documents:?}");
    documents
}

/// All files with their kind and text, in the order of their paths.
pub(super) fn all() -> Vec<(PathBuf, Kind, String)> {
    let mut files = Vec::new();
    add_below(&root(), &mut files);
    files.sort_by(|one, other| one.0.cmp(&other.0));
    files
}

fn add_below(folder: &Path, files: &mut Vec<(PathBuf, Kind, String)>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_symlink() || matches!(&*name, ".git" | "target" | "artifacts" | "corpus") {
            continue;
        }
        if path.is_dir() {
            add_below(&path, files);
            continue;
        }
        let extension = path.extension().unwrap_or_default();
        let kind = match extension.to_str() {
            Some("rs") => Kind::Rust,
            Some("md") => Kind::Markdown,
            Some("sh" | "toml") => Kind::Script,
            None | Some("") if path.parent() == Some(&root().join(".ci")) => Kind::Script,
            _ => continue,
        };
        let text = fs::read_to_string(&path).unwrap();
        files.push((path, kind, text));
    }
}
