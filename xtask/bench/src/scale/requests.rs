//! Traces of requests.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A request: the chain of blocks of its prompt.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Request {
    /// Milliseconds since the beginning.
    pub(super) timestamp: u64,
    /// Equal numbers mean an equal prefix up to that block.
    pub(super) hash_ids: Vec<u64>,
}

/// Reads a trace: one request in JSON per line, optionally compressed by gzip.
pub(super) fn read(path: &Path) -> Result<Vec<Request>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return parse(file);
    }
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip: install it, or decompress the trace")?;
    let requests = parse(gzip.stdout.take().context("gzip has no output")?);
    let status = gzip.wait()?;
    if !status.success() {
        bail!("gzip cannot decompress {} ({status})", path.display());
    }
    requests
}

fn parse(text: impl Read) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (line, number) in BufReader::new(text).lines().zip(1..) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let request = serde_json::from_str(&line)
            .with_context(|| format!("line {number} of the trace is not a request"))?;
        requests.push(request);
    }
    if requests.is_empty() {
        bail!("the trace has no requests");
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"timestamp": 0, "input_length": 900, "output_length": 3, "hash_ids": [0, 1]}

{"timestamp": 3000, "hash_ids": [0, 2, 7]}
"#;

    #[test]
    fn a_trace_is_read_plain_and_compressed() {
        let expected = [
            Request { timestamp: 0, hash_ids: vec![0, 1] },
            Request { timestamp: 3000, hash_ids: vec![0, 2, 7] },
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        std::fs::write(&path, TEXT).unwrap();
        assert_eq!(read(&path).unwrap(), expected);
        assert!(Command::new("gzip").arg(&path).status().unwrap().success());
        assert_eq!(read(&path.with_extension("jsonl.gz")).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_no_request_is_reported_by_number() {
        let error = parse("{\"timestamp\": 0, \"hash_ids\": []}\n{}\n".as_bytes()).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse("".as_bytes()).is_err());
    }
}
