//! Stores of very many slots, up to the largest that the format knows: 2^32, on a device of more than 2^48 bytes.
//!
//! The largest takes 15 GiB of memory and a quarter of an hour, so it runs only when asked for:
//!
//! ```console
//! $ cargo test --release -p raw-block-store --test limits -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use common::{fake, payload, read, superblock, write};
use raw_block_core::{Completion, Geometry, IoBackend, Op, OpKind};
use raw_block_store::format::{
    CheckpointBlock, CheckpointHeader, ObjectEntry, SlotFields, SlotHeader, Superblock, body_blocks,
};
use raw_block_store::{FormatOptions, OpenOptions, Store};

const BLOCK: usize = 65536;
const SECTOR: usize = 512;

/// A device that keeps no more than the sectors that are not zero: a checkpoint without objects is a few bytes in
/// each block of 64 KiB.
struct Sparse {
    geometry: Geometry,
    sectors: Mutex<Sectors>,
}

/// In few and large pieces of memory, because there are millions of them.
#[derive(Default)]
struct Sectors {
    places: HashMap<u64, usize>,
    stored: Vec<[u8; SECTOR]>,
}

impl Sectors {
    fn write(&mut self, at: u64, sector: &[u8; SECTOR]) {
        match self.places.get(&at) {
            Some(&place) => self.stored[place] = *sector,
            None if *sector == [0; SECTOR] => {}
            None => {
                self.places.insert(at, self.stored.len());
                self.stored.push(*sector);
            }
        }
    }

    fn read(&self, at: u64) -> [u8; SECTOR] {
        self.places.get(&at).map_or([0; SECTOR], |&place| self.stored[place])
    }
}

impl Sparse {
    fn of_len(len: u64) -> Arc<dyn IoBackend> {
        let geometry = Geometry::new(len, 512).unwrap();
        fake::backend(Arc::new(Self { geometry, sectors: Mutex::default() }))
    }
}

impl fake::Device for Sparse {
    const NAME: &'static str = "a sparse device";

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn carry_out(&self, mut op: Op) -> Completion {
        let mut sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = op.offset() / SECTOR as u64;
        if op.kind() == OpKind::Write {
            for sector in op.source().iter().flat_map(|segment| segment.as_chunks::<SECTOR>().0) {
                sectors.write(at, sector);
                at += 1;
            }
        } else {
            for sector in op.destination().flat_map(|segment| segment.as_chunks_mut::<SECTOR>().0) {
                *sector = sectors.read(at);
                at += 1;
            }
        }
        op.complete()
    }
}

/// Moves the object in slot 0, in a store that is closed, to the last slot.
fn move_to_the_last(device: &Arc<dyn IoBackend>, store: &Superblock) {
    let slots = store.slot_count.get();
    let last = slots - 1;
    let from = read(device, store.slot_offset(0).unwrap(), BLOCK);
    let view = SlotHeader::read(&from, store, 0).unwrap();
    let fields = SlotFields {
        slot: last,
        sequence: view.header.entry.sequence.get(),
        checkpoint: view.header.checkpoint.get(),
        key_hash: view.header.entry.key_hash,
        key: view.key,
        metadata: view.metadata,
        payload: view.inline_payload.unwrap(),
    };
    let mut to = vec![0; BLOCK];
    let entry = SlotHeader::encode(&mut to, store, &fields).unwrap();
    write(device, store.slot_offset(last).unwrap(), &to);

    let headers = store.checkpoint_offset.map(|offset| {
        let block = read(device, offset.get(), BLOCK);
        (CheckpointHeader::read(&block, store).unwrap().number.get(), offset.get())
    });
    let (number, container) = headers.into_iter().max().unwrap();
    let last_block = body_blocks(slots, store.block_size.get()).unwrap() - 1;
    for (index, entry) in [(0, ObjectEntry::NONE), (last_block, entry)] {
        let at = container + (1 + index) * BLOCK as u64;
        let mut block = read(device, at, BLOCK);
        CheckpointBlock::read(&block, store, number, index).unwrap();
        let entries = CheckpointBlock::entries_mut(&mut block, store, index).unwrap();
        *if index == 0 { entries.first_mut() } else { entries.last_mut() }.unwrap() = entry;
        CheckpointBlock::seal(&mut block, store, number, index).unwrap();
        write(device, at, &block);
    }
}

#[test]
fn a_store_of_many_slots_uses_the_last_one() {
    use_the_last_of(1 << 17);
}

#[test]
#[ignore = "it takes 15 GiB of memory and a quarter of an hour: see the top of this file"]
fn a_store_has_up_to_4294967296_slots_and_uses_the_last_one() {
    use_the_last_of(1 << 32);
}

fn use_the_last_of(slots: u64) {
    let began = Instant::now();
    let told = |what: &str| println!("{what} after {:.0?}", began.elapsed());
    let device = Sparse::of_len(slots * BLOCK as u64 + (1 << 40));
    let options = FormatOptions {
        slot_count: Some(slots),
        block_size: Some(65536),
        ..FormatOptions::for_payloads(0)
    };
    Store::format(device.clone(), &options).unwrap();
    told("formatted");
    // No thread takes a checkpoint when it is not expected.
    let options = OpenOptions { checkpoint_thread: false, ..OpenOptions::default() };
    let open = || Store::open_with(device.clone(), &options).unwrap();
    let store = open();
    assert_eq!((store.stats().slots, store.stats().free_slots), (slots, slots));
    told("opened");
    store.put(b"key", b"value").unwrap();
    store.close().unwrap();
    told("closed");

    move_to_the_last(&device, &superblock(&device));
    let store = open();
    told("opened again");
    assert_eq!(payload(&store, b"key").unwrap(), b"value");
    assert_eq!(store.stats().free_slots, slots - 1);
    store.put(b"other", b"in slot 0").unwrap();
    store.put(b"key", b"newer, in slot 1").unwrap();
    assert_eq!((store.stats().free_slots, store.stats().waiting_slots), (slots - 3, 1));
    // The object in the last slot is at or below what the checkpoint covers: a flush is enough.
    store.flush().unwrap();
    assert_eq!((store.stats().free_slots, store.stats().waiting_slots), (slots - 2, 0));
    assert!(store.delete_many(&[b"other"]).remove(0).unwrap());
    store.close().unwrap();
    told("closed again");

    let store = open();
    assert_eq!(payload(&store, b"key").unwrap(), b"newer, in slot 1");
    assert_eq!(payload(&store, b"other"), None);
    assert_eq!((store.stats().live_slots, store.stats().free_slots), (1, slots - 1));
    told("opened for the last time");
}
