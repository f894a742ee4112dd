//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use parse_size::Config;

const EXAMPLES: &str = "\
Examples:
  rawblock format /dev/nvme0n1                   make a store; what was there is lost
  rawblock put /dev/nvme0n1 greeting hello.txt   put a file
  rawblock get /dev/nvme0n1 greeting -           write a value to the standard output
  rawblock check /dev/nvme0n1                    verify every byte of it

A file serves as well as a block device:
  truncate -s 1G store.img && rawblock format store.img

Exit status:
  0  done, also if the reader of the output closed it before its end
  1  the answer is no: a key is not there (`put --if-absent`: is there), or `check` found damage
  2  it could not be done: the error says why";

/// Makes, inspects, checks and changes a store of keyed objects on a block device or in a file.
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
    /// Shows what the store is, how full it is, and whether it is healthy; writes nothing
    #[command(long_about = INFO_ABOUT)]
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
    /// Deletes all keys; durable when it returns
    Clear(Clear),
    /// Verifies everything that the store needs: superblock, checkpoints, tables, every object
    #[command(long_about = CHECK_ABOUT)]
    Check(Check),
    /// Lifts the quarantine of segments, if the device was repaired; durable when it returns
    #[command(long_about = LIFT_ABOUT)]
    Lift(Lift),
    /// Shows the structures on the device as they are, also damaged ones; writes nothing
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(Dump),
}

const FORMAT_EXAMPLES: &str = "\
A store is divided into segments, which are filled and reused as a whole. Values of any length are put \
into one store, up to almost a segment.

Examples:
  rawblock format /dev/nvme0n1 --label kv-cache
  rawblock format /dev/nvme0n1 --largest-object 64MiB
  rawblock format store.img --segment-size 1MiB --block-size 512";

const INFO_ABOUT: &str = "\
Shows what the store is, how it was left, how full it is, whether it is healthy, and what the device can do. \
Writes nothing.

The store is opened read-only. If it was not closed in order, what it holds is recovered first, as far as \
that is possible without writing.";

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
  rawblock put store.img --if-absent --hex 00ff12 chunk.bin";

const CHECK_ABOUT: &str = "\
Verifies everything that the store needs: all copies of the superblock, the checkpoints, the tables of \
segments, and every object, header and payload. Writes nothing.

Each damage is printed with its place. The exit status is 0 if there is none, 1 if there is some, and 2 if \
there is no store or the device cannot be read at all.

In a store that was not closed in order, an object that was being written when the power failed may be torn. \
It is printed as a damage; a get does not find it.";

const LIFT_ABOUT: &str = "\
Lets segments in quarantine be used again, if the device was repaired. Segments are quarantined when writes \
to them fail; `info` lists them. Those whose writes keep failing return to quarantine.";

const DUMP_EXAMPLES: &str = "\
Examples:
  rawblock dump store.img                the copies of the superblock
  rawblock dump store.img checkpoint     headers and segment records of all checkpoints
  rawblock dump store.img segment        the headers of all segments
  rawblock dump store.img segment 7      the header of segment 7, its slots and their objects
  rawblock dump store.img table 7        the entries in the table of segment 7
  rawblock dump store.img table --json   those of all segments, one JSON object a line";

/// Which device, and how it is reached.
#[derive(Args, Debug)]
pub(crate) struct Device {
    /// Block device or file
    pub(crate) path: PathBuf,

    /// How the device is reached
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) engine: EngineName,
}

/// The values of `--engine`.
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

    /// Size of a segment, a power of two [default: 1/256 of the device, from 64MiB to 1GiB; 1/32 of
    /// a small one]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) segment_size: Option<u64>,

    /// The largest value that is common, such as 4MiB: a segment gets at least eight times its
    /// size, so that little is wasted; larger ones can be put all the same
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) largest_object: Option<u64>,

    /// Block size: a power of two from 512 to 64KiB; small blocks waste less on small values, large
    /// ones take longer keys [default: 4KiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) block_size: Option<u64>,

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
    /// Go on without what is lost and may have been the newest, a checkpoint that is damaged or a
    /// block that cannot be read: objects that were deleted or replaced since may come back
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

    /// Leave an object that is there as it is; the exit status is 1 then
    #[arg(long)]
    pub(crate) if_absent: bool,

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
pub(crate) struct Clear {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,

    /// Confirm that all objects are to be deleted
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Lift {
    #[command(flatten)]
    pub(crate) device: Device,

    #[command(flatten)]
    pub(crate) opening: Opening,
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

    /// Only this one, counted from 0: copy of the superblock, container of a checkpoint, or segment
    pub(crate) number: Option<u32>,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Structure {
    /// The three copies of the superblock
    Superblock,
    /// The checkpoints in the three containers: header, and the record of each segment
    Checkpoint,
    /// The headers of all segments; of one segment also its slots, with their objects or deleted
    /// keys
    Segment,
    /// The tables of full segments: their entries
    Table,
}

/// A number of bytes with a binary unit: `4KiB`, `4k` and `4096` are the same.
fn size(text: &str) -> Result<u64, String> {
    match Config::new().with_binary().parse_size(text) {
        Ok(0) => Err("it must not be 0".to_owned()),
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
