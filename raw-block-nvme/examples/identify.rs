//! Prints what an NVMe controller and a namespace report about themselves, and the limits that
//! follow for transfers.
//!
//! `cargo run -p raw-block-nvme --example identify -- /dev/ng0n1`; without a path it uses the first
//! namespace. It only reads.

use std::env;
use std::fmt::{self, Display, Write};
use std::fs;
use std::path::{Path, PathBuf};

use raw_block_nvme::core::backend::IoBackend;
use raw_block_nvme::{Error, NvmeBackend, NvmeOptions};

/// The first character device of a namespace.
fn first_namespace() -> Option<PathBuf> {
    let nodes = fs::read_dir("/dev").ok()?.flatten().map(|entry| entry.path());
    let is_namespace = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("ng"));
        number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
    };
    nodes.filter(is_namespace).min()
}

/// The text to print.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn heading(&mut self, heading: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{heading}");
    }

    fn row(&mut self, what: impl Display, value: impl Display) {
        let _ = writeln!(self.0, "  {what:<28}{value}");
    }
}

impl Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A length in bytes, in the largest unit that divides it.
fn bytes(len: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| len > 0 && len.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", len / unit),
        None => format!("{len} bytes"),
    }
}

fn limit(len: Option<u64>) -> String {
    len.map_or_else(|| "no limit".to_owned(), bytes)
}

fn blocks(count: Option<u64>) -> String {
    count.map_or_else(|| "not reported".to_owned(), |count| format!("{count} blocks"))
}

/// The sheet of the namespace whose character device is at `path`.
pub(crate) fn identify(path: &Path) -> Result<impl Display, Error> {
    let backend = NvmeBackend::open_read_only(path, &NvmeOptions::new())?;
    let mut sheet = Sheet::default();
    let (controller, namespace) = (backend.controller(), backend.namespace());
    let geometry = backend.geometry();

    sheet.heading("controller");
    sheet.row("model", &controller.model);
    sheet.row("serial number", &controller.serial);
    sheet.row("firmware", &controller.firmware);
    let (major, minor, tertiary) = controller.version;
    sheet.row("NVMe version", format!("{major}.{minor}.{tertiary}"));
    sheet.row("longest transfer (MDTS)", limit(controller.max_transfer()));
    sheet.row("volatile write cache", yes(controller.volatile_write_cache));
    sheet.row("deallocate", yes(controller.deallocate));
    let ranges = controller.max_deallocate_ranges.unwrap_or(256);
    sheet.row("deallocated by a command", format!("{ranges} ranges"));
    sheet.row("longest deallocated range", blocks(controller.max_deallocate_range));
    sheet.row("write zeroes", yes(controller.write_zeroes));
    sheet.row("longest write zeroes", limit(controller.max_write_zeroes));
    sheet.row("flexible data placement", yes(controller.data_placement));
    sheet.row("not torn by a power cut", format!("{} blocks", controller.atomic_write_blocks));

    sheet.heading(format!("namespace {}", namespace.id));
    sheet.row("size", bytes(namespace.blocks * namespace.block));
    sheet.row("blocks", format!("{} of {}", namespace.blocks, bytes(namespace.block)));
    sheet.row("unique identifier (NGUID)", hexadecimal(&namespace.nguid));
    sheet.row("not torn by a power cut", blocks(namespace.atomic_write_blocks));
    let boundary = Some(namespace.optimal_boundary).filter(|&boundary| boundary > 0);
    sheet.row("optimal boundary (NOIOB)", blocks(boundary));
    sheet.row("preferred write (NPWG)", blocks(namespace.preferred_write));
    sheet.row("preferred alignment (NPWA)", blocks(namespace.preferred_alignment));
    sheet.row("write-protected", yes(namespace.write_protected));
    for (index, handle) in backend.reclaim_unit_handles().iter().enumerate() {
        let what = format!("placement identifier {}", handle.placement_id);
        let left = handle.blocks_left;
        sheet.row(what, format!("placement handle {index}, {left} blocks left in its unit"));
    }

    sheet.heading("transfers, with the limits of the kernel's driver");
    sheet.row("longest command", bytes(geometry.max_transfer));
    sheet.row("segments of a command", geometry.max_segments);
    sheet.row("alignment on the device", bytes(geometry.transfer_alignment.into()));
    sheet.row("alignment in memory", bytes(geometry.memory_alignment.into()));
    sheet.row("can discard", yes(geometry.discard));
    sheet.row("can write zeroes", yes(geometry.write_zeroes));
    Ok(sheet)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn main() -> Result<(), Error> {
    let path = env::args_os().nth(1).map(PathBuf::from).or_else(first_namespace);
    match path {
        Some(path) => print!("{}", identify(&path)?),
        None => {
            println!("no NVMe namespace (/dev/ngXnY) on this machine: pass the path of one");
        }
    }
    Ok(())
}
