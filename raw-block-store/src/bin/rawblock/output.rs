//! What is printed, and how.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Error, Result, bail};
use humantime::format_rfc3339_seconds;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use raw_block_store::{Error as StoreError, Progress};

use crate::Answer;

/// The styles of good and of bad results; without colour unless the output is a terminal.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// This style if the standard output shows colours, else none.
pub(crate) fn on_stdout(style: Style) -> Style {
    match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => Style::new(),
        _ => style,
    }
}

/// What failed when a command cannot print.
pub(crate) const UNWRITTEN: &str = "cannot write to the standard output";

/// Prints to the standard output what `write` writes.
pub(crate) fn print(
    write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> io::Result<()>,
) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).context(UNWRITTEN)
}

/// Prints a line to the standard error. If that fails, the exit status still reports the result.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// The answer of a command that has printed the reason: a failed output does not hide a "no".
pub(crate) fn answered(answer: Answer, printed: Result<()>) -> Result<Answer> {
    match (answer, printed) {
        (answer, Ok(())) => Ok(answer),
        (Answer::Yes, Err(error)) => Err(error),
        (Answer::No, Err(error)) => {
            if !is_broken_pipe(&error) {
                complain(&error);
            }
            Ok(Answer::No)
        }
    }
}

/// Prints an error, what caused it, and what to do about it.
pub(crate) fn complain(error: &Error) {
    note(format_args!("{BAD}error:{BAD:#} {}", text_of(error)));
    if is_io_error(error, ErrorKind::FileTooLarge) {
        note(format_args!("`ulimit -f` shows how far this process may write into a file"));
    } else if let Some(advice) = error.chain().find_map(|cause| advice(cause.downcast_ref()?)) {
        note(format_args!("{advice}"));
    }
}

/// An error and what caused it. The text of an error of the libraries ends with that of its source,
/// which is not repeated.
fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// What to do about an error of the store, in the words of this tool.
fn advice(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NotAStore { .. } => Some(
            "`rawblock dump PATH` shows what there is of a superblock; only if there is nothing to keep: \
             `rawblock format PATH` makes a store, and what is there is lost",
        ),
        StoreError::UnusableStore { .. } => Some("`rawblock dump PATH` shows its superblocks"),
        StoreError::AlreadyAStore { .. } => {
            Some("`rawblock format --force` overwrites it; `rawblock info PATH` shows what it is")
        }
        StoreError::Occupied { .. } => Some("`rawblock format --force` overwrites it"),
        StoreError::CheckpointLost { .. } => {
            Some("`--accept-older-states` opens it with the one before")
        }
        StoreError::NewestLost { .. } => {
            Some("`--accept-older-states` opens it without that block")
        }
        StoreError::OutOfSpace { .. } => Some("`rawblock rm PATH KEY...` frees space"),
        _ => None,
    }
}

/// Whether the reader closed the other end of the output, as `head` does.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    is_io_error(error, ErrorKind::BrokenPipe)
}

/// Whether the operating system's error that caused this one is of that kind.
fn is_io_error(error: &Error, kind: ErrorKind) -> bool {
    let os_error = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    os_error.is_some_and(|error| error.kind() == kind)
}

/// Shows the progress of a long call by a bar on the terminal; shows nothing where there is none.
pub(crate) fn shown(doing: &'static str) -> impl Fn(Progress) + Send + Sync {
    let bar = ProgressBar::no_length().with_message(doing);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {percent:>3} %, {eta} left") {
        bar.set_style(style);
    }
    move |progress| {
        bar.set_length(progress.bytes);
        bar.set_position(progress.bytes_done);
        if progress.bytes_done == progress.bytes {
            bar.finish_and_clear();
        }
    }
}

/// Bytes as text: what is no text, and backslashes, as `\xNN`.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                // What `Debug` would escape could move the cursor of a terminal, or hide.
                if character == '\\'
                    || character.escape_debug().len() > 1 && !"'\"".contains(character)
                {
                    let mut bytes = [0; 4];
                    write!(f, "{}", Escaped(character.encode_utf8(&mut bytes).as_bytes()))?;
                } else {
                    f.write_char(character)?;
                }
            }
            write!(f, "{}", Escaped(chunk.invalid()))?;
        }
        Ok(())
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The bytes of a key from the command line.
pub(crate) fn key(argument: &OsStr, hex: bool) -> Result<Vec<u8>> {
    if !hex {
        return Ok(argument.as_bytes().to_vec());
    }
    let digits: Option<Vec<u32>> =
        argument.to_str().and_then(|text| text.chars().map(|digit| digit.to_digit(16)).collect());
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => Ok(digits
            .chunks_exact(2)
            .filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
            .collect()),
        _ => bail!(
            "the key `{}` is not an even number of hexadecimal digits; without --hex a key is taken as it is",
            Text(argument.as_bytes())
        ),
    }
}

/// A number of bytes, with the largest binary unit that divides it, so that nothing is rounded.
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, shift): &&(&str, u32)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(fits) {
            Some((unit, shift)) => f.pad(&format!("{} {unit}", self.0 >> shift)),
            None => f.pad(&format!("{} B", self.0)),
        }
    }
}

/// A moment in UTC, as RFC 3339 writes it, by its distance from the Unix epoch.
pub(crate) fn date(since_epoch: Duration) -> String {
    format_rfc3339_seconds(UNIX_EPOCH + since_epoch).to_string()
}

/// A number of things.
pub(crate) fn counted(number: u64, name: &str) -> String {
    format!("{} {name}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_everything_else_is_escaped() {
        for (bytes, text) in [
            (&b"layer 0/key"[..], "layer 0/key"),
            ("Schlüssel 鍵".as_bytes(), "Schlüssel 鍵"),
            (b"it's \"quoted\"", "it's \"quoted\""),
            (b"a\\b", "a\\x5cb"),
            (b"\x1b[2J\n", "\\x1b[2J\\x0a"),
            (b"\xff\x00ok\xc3", "\\xff\\x00ok\\xc3"),
            ("\u{202e}evil".as_bytes(), "\\xe2\\x80\\xaeevil"),
        ] {
            assert_eq!(Text(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_key_in_hexadecimal_is_read_as_it_is_printed() {
        let bytes = [0, 0xff, 0x12];
        assert_eq!(key(OsStr::new(&Hex(&bytes).to_string()), true).unwrap(), bytes);
        assert_eq!(key(OsStr::new("00ff12"), false).unwrap(), b"00ff12");
        for wrong in ["0", "0g", "é0"] {
            let error = key(OsStr::new(wrong), true).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_unit_that_divides_them() {
        assert_eq!(Size(256 << 10).to_string(), "256 KiB");
        assert_eq!(Size(3 << 20).to_string(), "3 MiB");
        assert_eq!(Size(5000).to_string(), "5000 B");
        assert_eq!(format!("{:>9}", Size(1 << 40)), "    1 TiB");
    }

    #[test]
    fn numbers_of_things_are_counted_in_words() {
        assert_eq!(counted(1, "place"), "1 place");
        assert_eq!(counted(1_234_567, "object"), "1,234,567 objects");
    }
}
