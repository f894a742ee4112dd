//! `rawblock ls`, `get`, `put`, `rm` and `clear`

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use indicatif::HumanCount;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat, makedev};
use raw_block_core::Dispatcher;
use raw_block_store::Error as StoreError;
use raw_block_store::format::Layout;
use raw_block_store::{Put as PutObject, Store};
use serde_json::json;

use crate::Answer;
use crate::arguments::{Clear, Get, Ls, Put, Rm};
use crate::destination;
use crate::output::{Hex, Size, Text, UNWRITTEN, answered, counted, key, note, print};
use crate::read::Copies;

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
                "segment": object.segment,
                "offset": object.offset,
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
            "{} of {} objects are damaged and left out: `rawblock check` names them",
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
    // The value may be long in coming: until it is there the store is not open, and free for
    // others.
    let value = read_value(&arguments.file, max_value(arguments)?)?;
    let store = arguments.device.open_store(&arguments.opening)?;
    let done = put_value(&store, arguments.if_absent, &key, &value).map_err(larger_segments);
    // A store that refused a value is well, and is closed like any other.
    let closed = store.close();
    let put = done?;
    closed?;
    if !put {
        note(format_args!("there is an object with the key {} already", Text(&key)));
        return Ok(Answer::No);
    }
    Ok(Answer::Yes)
}

/// Puts a value, durably. Returns whether it was put.
fn put_value(store: &Store, if_absent: bool, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
    let put = if if_absent {
        let results = store.put_many_if_absent(&[PutObject::new(key, value)]);
        results.into_iter().next().unwrap_or(Ok(false))?
    } else {
        store.put(key, value)?;
        true
    };
    store.flush()?;
    Ok(put)
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

pub(crate) fn clear(arguments: &Clear) -> Result<Answer> {
    let path = arguments.device.path.display();
    if !arguments.yes {
        bail!("this deletes all objects of the store on {path}: repeat the command with `--yes`");
    }
    let store = arguments.device.open_store(&arguments.opening)?;
    let objects = counted(store.stats().objects, "object");
    let cleared = store.clear();
    let closed = store.close();
    cleared?;
    closed?;
    print(|out| writeln!(out, "{path}: {objects} deleted"))
        .with_context(|| format!("{objects} on {path} were deleted"))?;
    Ok(Answer::Yes)
}

/// The length of the longest value that fits into the store.
fn max_value(arguments: &Put) -> Result<u64> {
    let device = Dispatcher::read_only(arguments.device.look()?)?;
    match Copies::read(&device)?.newest() {
        Some(store) => Ok(Layout::of(&store).largest_payload().into()),
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
        if is_stdin_closed().with_context(what)? {
            bail!("cannot read the standard input: it is closed; {EMPTY_VALUE}");
        }
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).with_context(what)?)
    };
    let mut value = Vec::new();
    source.by_ref().take(limit).read_to_end(&mut value).with_context(what)?;
    let rest = io::copy(&mut source.take(LONGEST), &mut io::sink()).with_context(what)?;
    if rest > 0 {
        let len = usize::try_from(limit + rest)?;
        return Err(larger_segments(StoreError::PayloadTooLarge { len, limit }));
    }
    Ok(value)
}

const EMPTY_VALUE: &str = "to put an empty value, name /dev/null as the file";

/// Whether the process was started without a standard input. Then Rust has opened `/dev/null` in
/// its place, for reading and writing. A shell that redirects the input opens it only for reading.
fn is_stdin_closed() -> io::Result<bool> {
    let stdin = io::stdin();
    let stat = fstat(&stdin)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let is_null = kind == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3);
    let flags = OFlag::from_bits_truncate(fcntl(&stdin, FcntlArg::F_GETFL)?);
    Ok(is_null && flags & OFlag::O_ACCMODE == OFlag::O_RDWR)
}

/// The length of the longest value that any store takes, in bytes.
const LONGEST: u64 = u32::MAX as u64;

/// Says which store would take a value that is too long.
fn larger_segments(error: StoreError) -> Error {
    match error {
        StoreError::PayloadTooLarge { len, .. } if len as u64 <= LONGEST => {
            let needed = len.next_multiple_of(1024) >> 10;
            anyhow!("{error}, such as `rawblock format --largest-object {needed}KiB` makes them")
        }
        error => error.into(),
    }
}

fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}
