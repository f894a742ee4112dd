//! Makes the images in `images/`, and from them the seeds of every target in `seeds/`:
//! `cargo run --example seeds`, in `fuzz/`. To be run again when the format changes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raw_block_core::{IoBackend, MemoryBackend};
use raw_block_fuzz::image::{BLOCK, contents, object};
use raw_block_store::format::Superblock;
use raw_block_store::{FormatOptions, OpenOptions, Put, Store};

const SLOTS: u64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let images = images()?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, image) in &images {
        save(&directory.join("images"), &format!("{name}.img"), image)?;
    }
    let seeds = |target: &str| directory.join("seeds").join(target);
    for (name, image) in &images {
        let store = Superblock::read(image).map_err(|damage| damage.to_string())?;
        // Put nothing right, or everything: the options of a target.
        for (suffix, options) in [("as-it-is", 0), ("forged", 3)] {
            let name = |what: &str| format!("{name}-{what}-{suffix}");
            let at = |offset: u64| usize::try_from(offset);
            let block =
                |offset: u64| -> Result<_, Box<dyn Error>> { Ok(&image[at(offset)?..][..BLOCK]) };
            let superblocks = [image[..512].to_vec(), image[4096..][..512].to_vec()].concat();
            save(&seeds("superblock"), &name("copies"), &[&[options], &superblocks[..]].concat())?;
            for (number, offset) in (0..).zip(store.checkpoint_offset) {
                let offset = offset.get();
                for (what, offset) in [("header", offset), ("body", offset + BLOCK as u64)] {
                    let seed = [&[options], block(offset)?].concat();
                    save(&seeds("checkpoint"), &name(&format!("{what}-{number}")), &seed)?;
                }
            }
            let seed = [&[options, 0], block(store.delete_log_offset.get())?].concat();
            save(&seeds("delete_log"), &name("block"), &seed)?;
            for slot in 0..2 {
                let offset = store.slot_offset(slot.into()).unwrap_or(0);
                let seed = [&[options, slot], block(offset)?].concat();
                save(&seeds("slot_header"), &name(&format!("slot-{slot}")), &seed)?;
            }
        }
    }
    // Every image as it is and with its checksums forged; opened in every way; and one of each kind of edit.
    for image in 0..4 {
        for (name, options) in [("plain", 0), ("forged", 4), ("older", 8)] {
            for policy in [0, 0x81, 2] {
                save(
                    &seeds("image"),
                    &format!("{name}-{image}-{policy}"),
                    &[image | options, policy],
                )?;
            }
        }
    }
    let edits: [(&str, &[u8]); 6] = [
        ("bytes", &[0, 100, 0, 4, 1, 2, 3, 4]),
        ("block-moved", &[1, 24, 28]),
        ("block-lost", &[2, 16]),
        ("block-replayed", &[3, 1, 20]),
        ("bits", &[4, 70, 0, 0x80]),
        ("end", &[5, 40]),
    ];
    for (name, edit) in edits {
        for options in [0, 6] {
            save(&seeds("image"), &format!("{name}-{options}"), &[&[options, 0], edit].concat())?;
        }
    }
    Ok(())
}

/// One store at four times.
fn images() -> Result<Vec<(&'static str, Vec<u8>)>, Box<dyn Error>> {
    let device: Arc<dyn IoBackend> = Arc::new(MemoryBackend::new(36 << 10)?);
    let options = FormatOptions {
        slot_count: Some(SLOTS),
        block_size: Some(512),
        delete_log_blocks: Some(3),
        label: "fuzz".into(),
        ..FormatOptions::for_payloads(1500)
    };
    Store::format(device.clone(), &options)?;
    let options = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    let mut images = Vec::new();

    let store = Store::open_with(device.clone(), &options)?;
    put(&store, &[(0, 0), (1, 1), (2, 2), (3, 3)])?;
    put(&store, &[(1, 2)])?;
    delete(&store, &[2, 7])?;
    store.close()?;
    images.push(("closed", contents(&device)));

    // Some of it is in the checkpoint, some of it speaks for itself.
    let store = Store::open_with(device.clone(), &options)?;
    put(&store, &[(0, 1), (4, 2)])?;
    store.checkpoint()?;
    delete(&store, &[0])?;
    put(&store, &[(4, 3), (0, 2)])?;
    drop(store);
    images.push(("dropped", contents(&device)));

    let store = Store::open_with(device.clone(), &options)?;
    put(&store, &[(1, 5), (2, 6), (5, 1), (6, 2), (7, 3)])?;
    drop(store);
    images.push(("full", contents(&device)));

    let store = Store::open_with(device.clone(), &options)?;
    delete(&store, &[0, 1, 2, 3, 4])?;
    put(&store, &[(0, 7)])?;
    store.close()?;
    images.push(("closed-again", contents(&device)));
    Ok(images)
}

fn put(store: &Store, objects: &[(u8, u8)]) -> Result<(), raw_block_store::Error> {
    let objects: Vec<_> =
        objects.iter().map(|&(key, version)| ([key], object(key, version))).collect();
    let puts: Vec<_> = objects
        .iter()
        .map(|(key, payload)| Put::new(key, payload).with_metadata(b"meta"))
        .collect();
    store.put_many(&puts).into_iter().collect()
}

fn delete(store: &Store, keys: &[u8]) -> Result<(), raw_block_store::Error> {
    let keys: Vec<_> = keys.iter().map(std::slice::from_ref).collect();
    store.delete_many(&keys).into_iter().try_for_each(|result| result.map(drop))
}

fn save(directory: &PathBuf, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join(name), bytes)
}
