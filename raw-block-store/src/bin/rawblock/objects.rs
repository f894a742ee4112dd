//! `rawblock ls`, `get`, `put` and `rm`

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow};
use indicatif::HumanCount;
use raw_block_core::Dispatcher;
use raw_block_store::Error as StoreError;
use raw_block_store::format::{MAX_SLOT_SIZE, max_payload};
use serde_json::json;

use crate::Answer;
use crate::arguments::{Get, Ls, Put, Rm};
use crate::destination;
use crate::dump::Copies;
use crate::output::{Hex, Size, Text, UNWRITTEN, answered, key, note, print};

pub(crate) fn list(arguments: &Ls) -> Result<Answer> {
    let store = arguments.device.look_into_store(&arguments.opening)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let mut count = 0;
    store.list(|object| {
        count += 1;
        let shown =
            if arguments.hex { Hex(object.key).to_string() } else { Text(object.key).to_string() };
        written = if arguments.json {
            let line = json!({
                "key": str::from_utf8(object.key).ok(),
                "key_hex": Hex(object.key).to_string(),
                "value_bytes": object.payload_len,
                "metadata_bytes": object.metadata.len(),
                "slot": object.slot,
            });
            writeln!(out, "{line}")
        } else {
            writeln!(out, "{:>10}  {shown}", Size(object.payload_len))
        };
        if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let printed = written.and_then(|()| out.flush()).context(UNWRITTEN);
    let unreadable = store.stats().failed_checks;
    if unreadable > 0 {
        note(format_args!(
            "{} of {} objects are damaged and left out: `rawblock check` tells which",
            HumanCount(unreadable),
            HumanCount(count + unreadable)
        ));
    }
    answered(if unreadable > 0 { Answer::No } else { Answer::Yes }, printed)
}

pub(crate) fn get(arguments: &Get) -> Result<Answer> {
    let key = key(&arguments.key, arguments.hex)?;
    let store = arguments.device.look_into_store(&arguments.opening)?;
    let Some(object) = store.get(&key)? else {
        note(format_args!("there is no object with the key {}", Text(&key)));
        return Ok(Answer::No);
    };
    if is_stream(&arguments.file) {
        print(|out| out.write_all(object.payload()))?;
    } else {
        destination::write(&arguments.file, &arguments.device.path, object.payload())?;
    }
    Ok(Answer::Yes)
}

pub(crate) fn put(arguments: &Put) -> Result<Answer> {
    let key = key(&arguments.key, arguments.hex)?;
    // The value may be long in coming: until it is there the store is not open, and free for others.
    let value = read_value(&arguments.file, max_value(arguments)?)?;
    let store = arguments.device.open_store(&arguments.opening)?;
    let done = store.put(&key, &value).and_then(|()| store.flush()).map_err(larger_slots);
    // A store that refused a value is well, and is closed like any other.
    let closed = store.close();
    done?;
    closed?;
    Ok(Answer::Yes)
}

pub(crate) fn remove(arguments: &Rm) -> Result<Answer> {
    let keys: Vec<_> = arguments
        .keys
        .iter()
        .map(|argument| key(argument, arguments.hex))
        .collect::<Result<_>>()?;
    let store = arguments.device.open_store(&arguments.opening)?;
    let mut answer = Answer::Yes;
    let names: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    for (key, result) in keys.iter().zip(store.delete_many(&names)) {
        if !result.with_context(|| format!("cannot delete {}", Text(key)))? {
            note(format_args!("there is no object with the key {}", Text(key)));
            answer = Answer::No;
        }
    }
    store.flush()?;
    store.close()?;
    Ok(answer)
}

/// The length of the longest value that fits into the store.
fn max_value(arguments: &Put) -> Result<u64> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    match Copies::read(&device)?.newest() {
        Some(store) => Ok(max_payload(store.slot_size.get(), store.block_size.get())),
        None => {
            drop(device);
            // Which fails, and says why.
            Ok(arguments.device.look_into_store(&arguments.opening)?.max_payload())
        }
    }
}

/// Reads a value, and no more than fits: the caller may name the wrong file.
fn read_value(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let what = || match path {
        path if is_stream(path) => "cannot read the standard input".to_owned(),
        path => format!("cannot read {}", path.display()),
    };
    let mut source: Box<dyn Read> = if is_stream(path) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).with_context(what)?)
    };
    let mut value = Vec::new();
    source.by_ref().take(limit).read_to_end(&mut value).with_context(what)?;
    let rest = io::copy(&mut source.take(MAX_SLOT_SIZE), &mut io::sink()).with_context(what)?;
    if rest > 0 {
        let len = usize::try_from(limit + rest)?;
        return Err(larger_slots(StoreError::PayloadTooLarge { len, limit }));
    }
    Ok(value)
}

/// Names the size that would do.
fn larger_slots(error: StoreError) -> Error {
    match error {
        StoreError::PayloadTooLarge { len, .. } => {
            let needed = len.next_multiple_of(4096) >> 10;
            anyhow!("{error}, such as `rawblock format --value-size {needed}KiB` makes them")
        }
        error => error.into(),
    }
}

fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}
