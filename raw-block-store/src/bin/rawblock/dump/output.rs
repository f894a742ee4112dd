//! One line for each structure: text for people, or JSON.

use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::output::UNWRITTEN;
use crate::read::Flaw;

/// The lines that are printed.
pub(super) struct Lines<'a> {
    out: BufWriter<StdoutLock<'a>>,
    json: bool,
}

impl Lines<'_> {
    pub(super) fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json }
    }

    /// Prints a structure: its name, its number, where it begins, and its fields or why it cannot
    /// be used.
    pub(super) fn add(
        &mut self,
        name: &str,
        number: u32,
        offset: u64,
        structure: Result<Value, Flaw>,
    ) -> Result<()> {
        let structure = structure.map(fields);
        let written = if self.json {
            let mut line = Map::new();
            line.insert("structure".into(), name.into());
            line.insert("number".into(), number.into());
            line.insert("offset".into(), offset.into());
            line.insert("valid".into(), structure.is_ok().into());
            match structure {
                Ok(fields) => line.extend(fields),
                Err(flaw) => _ = line.insert("damage".into(), flaw.to_string().into()),
            }
            writeln!(self.out, "{}", Value::Object(line))
        } else {
            write!(self.out, "{name} {number} at {offset}:").and_then(|()| match structure {
                Ok(fields) => {
                    for (name, value) in &fields {
                        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        write!(self.out, " {name}={value}")?;
                    }
                    writeln!(self.out)
                }
                Err(flaw) => writeln!(self.out, " not valid: {flaw}"),
            })
        };
        written.context(UNWRITTEN)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush().context(UNWRITTEN)
    }
}

/// The fields of a JSON object.
fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
