//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use parse_size::Config;

const EXAMPLES: &str = "\
Examples:
  rawblock format /dev/nvme0n1 --value-size 256KiB   make a store; what was there is lost
  rawblock put /dev/nvme0n1 greeting hello.txt       put a file
  rawblock get /dev/nvme0n1 greeting -               write a value to the standard output
  rawblock check /dev/nvme0n1                        verify every byte of it

A file serves as well as a block device:
  truncate -s 1G store.img && rawblock format store.img --value-size 256KiB

Exit status:
  0  done, also if the reader of the output closed it before its end
  1  the answer is no: a key is not there, or `check` found damage
  2  it could not be done: the error says why";

/// Makes, looks into, checks and changes a store of keyed objects on a block device or in a file.
#[derive(Debug, Parser)]
#[command(name = "rawblock", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes an empty store; what was on the device is lost
    #[command(after_help = FORMAT_EXAMPLES)]
    Format(Format),
    /// Tells what the store is, how it was left, and what the device can do; writes nothing
    Info(Info),
    /// Lists the keys; writes nothing
    #[command(after_help = LS_EXAMPLES)]
    Ls(Ls),
    /// Writes the value of a key to a file or to the standard output; writes nothing to the device
    #[command(after_help = GET_EXAMPLES)]
    Get(Get),
    /// Puts the contents of a file, or the standard input, under a key; durable when it returns
    #[command(after_help = PUT_EXAMPLES)]
    Put(Put),
    /// Deletes keys; durable when it returns
    Rm(Rm),
    /// Verifies everything that the store needs: superblock, checkpoint, delete log, every object
    #[command(long_about = CHECK_ABOUT)]
    Check(Check),
    /// Shows the structures on the device as they are, also damaged ones; writes nothing
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(Dump),
}

const FORMAT_EXAMPLES: &str = "\
Examples:
  rawblock format /dev/nvme0n1 --value-size 256KiB --label kv-cache
  rawblock format store.img --slot-size 260KiB --slots 1000";

const LS_EXAMPLES: &str = "\
A key is printed as text; bytes that are no text, and backslashes, as \\xNN. With --hex the whole key is
printed as hexadecimal digits, as get, put and rm take it.";

const GET_EXAMPLES: &str = "\
Examples:
  rawblock get store.img greeting hello.txt
  rawblock get store.img greeting - | sha256sum
  rawblock get store.img --hex 00ff12 chunk.bin";

const PUT_EXAMPLES: &str = "\
Examples:
  rawblock put store.img greeting hello.txt
  echo hello | rawblock put store.img greeting -
  rawblock put store.img --hex 00ff12 chunk.bin";

const CHECK_ABOUT: &str = "\
Verifies everything that the store needs: all copies of the superblock, the checkpoint, the delete log, and \
every object, header and payload. Writes nothing.

Each damage is printed with its place. The exit status is 0 if there is none, 1 if there is some, and 2 if \
there is no store or the device cannot be read at all.

A power cut in the middle of a write may leave a torn block in the delete log, which looks like damage until \
it is written again; nothing is lost by that.";

const DUMP_EXAMPLES: &str = "\
Examples:
  rawblock dump store.img                      the copies of the superblock
  rawblock dump store.img checkpoint           headers and live entries of both checkpoints
  rawblock dump store.img slot --number 7      the header in slot 7
  rawblock dump store.img slot --json          every slot, one JSON object a line";

/// Which device, and how it is reached.
#[derive(Args, Debug)]
pub(crate) struct Device {
    /// Block device or file
    pub(crate) path: PathBuf,

    /// How the device is reached
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) engine: EngineName,
}

/// What `--engine` can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// nvme for a character device, else io_uring where the system allows it, else posix
    Auto,
    /// pread and pwrite on a pool of threads
    Posix,
    /// io_uring
    Uring,
    /// NVMe passthrough, on the character device of a namespace (/dev/ngXnY)
    Nvme,
}

#[derive(Args, Debug)]
pub(crate) struct Format {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) size: SlotSize,

    /// Block size: a power of two from 512 to 64KiB; each object takes one block for its header
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) block_size: Option<u64>,

    /// How many slots to make [default: as many as fit]
    #[arg(long, value_name = "COUNT")]
    pub(crate) slots: Option<u64>,

    /// A name for people, up to 64 bytes
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) label: String,

    /// Overwrite what is there
    #[arg(long)]
    pub(crate) force: bool,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct SlotSize {
    /// The largest value that is to fit, such as 256KiB; the slot gets a block more for the header
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) value_size: Option<u64>,

    /// The size of a slot, header included
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) slot_size: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) device: Device,

    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a damaged store is opened.
#[derive(Args, Debug)]
pub(crate) struct Opening {
    /// Go on without what is lost and may have been the newest, a checkpoint that is damaged or a block
    /// that cannot be read: objects that were deleted or replaced since may come back
    #[arg(long)]
    pub(crate) accept_older_states: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,

    /// Print keys as hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,

    /// The key: its bytes as they are, or with --hex as hexadecimal digits
    pub(crate) key: OsString,

    /// Where to write the value; `-` is the standard output
    pub(crate) file: PathBuf,

    /// The key is written as hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,

    /// The key: its bytes as they are, or with --hex as hexadecimal digits
    pub(crate) key: OsString,

    /// Where to read the value; `-` is the standard input
    pub(crate) file: PathBuf,

    /// The key is written as hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,

    /// The keys: their bytes as they are, or with --hex as hexadecimal digits
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,

    /// The keys are written as hexadecimal digits
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) device: Device,

    /// Print one JSON object for each damage, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Dump {
    #[command(flatten)]
    pub(crate) device: Device,

    /// Which structures
    #[arg(value_enum, default_value = "superblock")]
    pub(crate) structure: Structure,

    /// Only this one, counted from 0: copy, checkpoint, block of the log, or slot
    #[arg(long)]
    pub(crate) number: Option<u64>,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Structure {
    /// The three copies of the superblock
    Superblock,
    /// The headers of both checkpoints, and the objects that they name
    Checkpoint,
    /// The blocks of the delete log, and their records
    DeleteLog,
    /// The headers in the slots, of live and dead objects alike
    Slot,
}

/// A number of bytes with a binary unit: `4KiB`, `4k` and `4096` are the same.
fn size(text: &str) -> Result<u64, String> {
    match Config::new().with_binary().parse_size(text) {
        Ok(0) => Err("it is 0".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("{error}: write bytes, or a number with KiB, MiB, GiB or TiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4KiB", 4096),
            ("4k", 4096),
            ("4 KiB", 4096),
            ("1MiB", 1 << 20),
            ("2T", 2 << 40),
            ("512b", 512),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "0", "-1", "4x", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
