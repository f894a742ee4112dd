//! Prints what an NVMe controller and a namespace say about themselves, and what follows for transfers.
//!
//! `cargo run -p raw-block-nvme --example identify -- /dev/ng0n1`; without a path it takes the first namespace that it
//! finds. It only reads.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use raw_block_core::IoBackend;
use raw_block_nvme::{NvmeBackend, NvmeOptions};

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

fn row(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<28}{value}");
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
    count.map_or_else(|| "not told".to_owned(), |count| format!("{count} blocks"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = env::args_os().nth(1).map(PathBuf::from).or_else(first_namespace) else {
        println!("There is no NVMe namespace (/dev/ngXnY) on this machine; give the path of one.");
        return Ok(());
    };
    let backend = NvmeBackend::open_read_only(&path, &NvmeOptions::default())?;
    let (controller, namespace) = (backend.controller(), backend.namespace());
    let geometry = backend.geometry();

    println!("controller");
    row("model", &controller.model);
    row("serial number", &controller.serial);
    row("firmware", &controller.firmware);
    let (major, minor, tertiary) = controller.version;
    row("NVMe version", format!("{major}.{minor}.{tertiary}"));
    row("longest transfer (MDTS)", limit(controller.max_transfer()));
    row("volatile write cache", yes(controller.volatile_write_cache));
    row("deallocate", yes(controller.deallocate));
    row("write zeroes", yes(controller.write_zeroes));
    row("longest write zeroes", limit(controller.max_write_zeroes));
    row("flexible data placement", yes(controller.data_placement));
    row("not torn by a power cut", format!("{} blocks", controller.atomic_write_blocks));

    println!("namespace {}", namespace.id);
    row("size", bytes(namespace.blocks * namespace.block));
    row("blocks", format!("{} of {}", namespace.blocks, bytes(namespace.block)));
    row("unique identifier (NGUID)", hexadecimal(&namespace.nguid));
    let boundary = Some(namespace.optimal_boundary).filter(|&boundary| boundary > 0);
    row("optimal boundary (NOIOB)", blocks(boundary));
    row("preferred write (NPWG)", blocks(namespace.preferred_write));
    row("preferred alignment (NPWA)", blocks(namespace.preferred_alignment));
    for handle in backend.reclaim_unit_handles() {
        let what = format!("placement identifier {}", handle.placement_id);
        row(&what, format!("{} blocks left in its unit", handle.blocks_left));
    }

    println!("transfers, with the limits of the kernel's driver");
    row("longest command", bytes(geometry.max_transfer));
    row("segments of a command", geometry.max_segments);
    row("alignment on the device", bytes(geometry.transfer_alignment.into()));
    row("alignment in memory", bytes(geometry.memory_alignment.into()));
    row("written whole or not at all", bytes(geometry.atomic_write_unit.into()));
    row("can discard", yes(geometry.discard));
    row("can write zeroes", yes(geometry.write_zeroes));
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
