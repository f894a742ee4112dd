//! Images of whole stores: real ones, and what an input makes of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use raw_block_core::{AlignedBuf, Dispatcher, IoBackend, MemoryBackend, ReadAt, WriteAt};
use raw_block_store::format::{SLOT_HEADER_LEN, SlotHeader, Superblock, crc32c};
use raw_block_store::{Error, EvictionPolicy, OpenOptions, Put, Store};

use crate::seal;

/// Block size of the images, in bytes.
pub const BLOCK: usize = 512;
/// The keys of the images are the bytes below this one.
pub const KEYS: u8 = 8;

/// Images of one store at different times, made by `cargo run --example seeds`.
pub static IMAGES: [&[u8]; 4] = [
    include_bytes!("../images/closed.img"),
    include_bytes!("../images/dropped.img"),
    include_bytes!("../images/full.img"),
    include_bytes!("../images/closed-again.img"),
];

/// What is put under a key for the time with this number.
#[must_use]
pub fn object(key: u8, version: u8) -> Vec<u8> {
    let len = [20, 300, 1000, 1400][usize::from(version % 4)];
    let mut bytes = vec![key, version];
    bytes.extend((0_usize..).map(|at| (at * 31 + at / 256) as u8 ^ key ^ version).take(len));
    bytes
}

/// An input in its parts: two bytes of options, then edits of an image.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    options: [u8; 2],
    edits: &'a [u8],
}

impl<'a> Script<'a> {
    /// Takes an input apart.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Option<Self> {
        let (&options, edits) = input.split_first_chunk()?;
        Some(Self { options, edits })
    }

    /// Whether the checksums are put right after the edits.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.options[0] & 4 != 0
    }

    fn open_options(&self) -> OpenOptions {
        let eviction = match self.options[1] % 3 {
            0 => EvictionPolicy::None,
            1 => EvictionPolicy::Lru,
            _ => EvictionPolicy::S3Fifo,
        };
        OpenOptions {
            eviction,
            accept_older_states: self.options[0] & 8 != 0,
            // What one thread does is the same every time.
            checkpoint_thread: false,
            ..OpenOptions::default()
        }
    }

    /// The image that the input makes.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = IMAGES[usize::from(self.options[0] & 3)].to_vec();
        let layout = Superblock::read(&image).ok().copied();
        let mut edits = self.edits.iter().copied();
        while edit(&mut image, &mut edits).is_some() {}
        if self.is_sealed() {
            seal_superblocks(&mut image, layout.as_ref());
            let changed = Superblock::read(&image).ok().copied();
            if let Some(layout) = changed.or(layout) {
                seal_all(&mut image, &layout);
            }
        }
        image
    }

    /// Opens the store on the image and uses it in every way.
    ///
    /// # Panics
    /// When the store breaks a promise.
    pub fn run(&self) {
        let image = self.image();
        let Ok(device) = MemoryBackend::new(image.len() as u64) else { return };
        let device: Arc<dyn IoBackend> = Arc::new(device);
        write(&device, &image);
        let image = contents(&device);

        if self.options[1] & 0x80 != 0 {
            if let Ok(store) = Store::open_read_only(device.clone(), &self.open_options()) {
                self.look_at(&store);
                assert!(store.put(b"key", b"value").is_err());
            }
            assert!(contents(&device) == image, "reading has changed something");
        }
        let store = match Store::open_with(device.clone(), &self.open_options()) {
            Ok(store) => store,
            // What cannot be opened stays as it is.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(contents(&device) == image, "{error}, and something was written");
                return;
            }
        };
        self.look_at(&store);
        self.change(&store);
        let closed = store.close();
        match Store::open_with(device, &self.open_options()) {
            Ok(store) => self.look_at(&store),
            // A hostile image may have used up all sequences.
            Err(error) => assert!(closed.is_err(), "closed in order, and does not open: {error}"),
        }
    }

    /// Reads everything. Whatever is found was put there, unless the checksums are forged.
    fn look_at(&self, store: &Store) {
        check_counts(store);
        let mut keys: Vec<Vec<u8>> = (0..KEYS).map(|key| vec![key]).collect();
        store
            .list(|object| {
                keys.push(object.key.to_vec());
                ControlFlow::Continue(())
            })
            .expect("nothing fails in memory");
        for key in &keys {
            match store.get(key) {
                Ok(Some(found)) if !self.is_sealed() => {
                    let payload = found.payload();
                    let version = payload.get(1).copied().unwrap_or(0);
                    let is_ours = payload == b"value" || *payload == object(key[0], version);
                    assert!(is_ours, "key {key:?} has bytes that nobody put");
                }
                Ok(_) | Err(Error::Damaged { .. }) => {}
                Err(error) => panic!("key {key:?}: {error}"),
            }
        }
        let report = store.scrub(|_| ControlFlow::Continue(())).expect("nothing fails in memory");
        assert!(report.complete);
        for finding in report.findings {
            assert!(!finding.error.to_string().is_empty());
        }
    }

    fn change(&self, store: &Store) {
        for round in 0..2_u8 {
            for key in 0..4_u8 {
                let (name, bytes) = ([key], object(key, round));
                match store.put(&name, &bytes) {
                    Ok(()) => {
                        let found = store.get(&name).expect("it was just put");
                        let found = found.expect("it was just put");
                        assert!(found.payload() == bytes, "another object than was put");
                    }
                    Err(Error::Full { .. } | Error::Encode(_)) => {}
                    Err(error) => panic!("put: {error}"),
                }
            }
            let many: Vec<_> = (4..KEYS).map(|key| ([key], object(key, round))).collect();
            let puts: Vec<_> = many.iter().map(|(key, bytes)| Put::new(key, bytes)).collect();
            drop(store.put_many(&puts));
            for result in store.delete_many(&[&[round], &[round + 4], b"nothing"]) {
                match result {
                    Ok(_) | Err(Error::Encode(_)) => {}
                    Err(error) => panic!("delete: {error}"),
                }
            }
            store.flush().expect("nothing fails in memory");
            if let Err(error) = store.checkpoint() {
                assert!(matches!(error, Error::Encode(_)), "checkpoint: {error}");
            }
            check_counts(store);
        }
    }
}

fn check_counts(store: &Store) {
    let stats = store.stats();
    let sum = stats.live_slots + stats.free_slots + stats.waiting_slots;
    assert_eq!(sum, stats.slots, "free, live and waiting slots are not all");
}

/// Makes the next edit; `None` at the end of the input.
fn edit(image: &mut Vec<u8>, input: &mut impl Iterator<Item = u8>) -> Option<()> {
    let what = input.next()?;
    match what % 6 {
        // Bytes.
        0 => {
            let (at, len) = (place(input)?, input.next()?);
            for (offset, byte) in input.take(len.into()).enumerate() {
                *image.get_mut(at + offset)? = byte;
            }
        }
        // A block from another place.
        1 => {
            let (from, to) = (input.next()?, input.next()?);
            let from = block_at(image, from)?.to_vec();
            block_at(image, to)?.copy_from_slice(&from);
        }
        // A block that is not there.
        2 => block_at(image, input.next()?)?.fill(0),
        // A block from another time.
        3 => {
            let (other, at) = (IMAGES[usize::from(input.next()? % 4)], input.next()?);
            let from = usize::from(at) * BLOCK;
            block_at(image, at)?.copy_from_slice(other.get(from..from + BLOCK)?);
        }
        // Bits.
        4 => {
            let (at, mask) = (place(input)?, input.next()?);
            *image.get_mut(at)? ^= mask;
        }
        // The end of the device.
        _ => image.truncate(usize::from(input.next()?) * BLOCK),
    }
    Some(())
}

fn place(input: &mut impl Iterator<Item = u8>) -> Option<usize> {
    Some(u16::from_le_bytes([input.next()?, input.next()?]).into())
}

fn block_at(image: &mut [u8], number: u8) -> Option<&mut [u8]> {
    image.get_mut(usize::from(number) * BLOCK..)?.get_mut(..BLOCK)
}

fn seal_superblocks(image: &mut [u8], layout: Option<&Superblock>) {
    let last = layout.map_or(0, |layout| layout.last_superblock_offset.get());
    for offset in [0, 4096, last] {
        seal_at(image, offset, 512);
    }
}

/// Puts right the checksums of everything in the store.
fn seal_all(image: &mut [u8], layout: &Superblock) {
    let block = u64::from(layout.block_size.get());
    for container in layout.checkpoint_offset {
        seal_at(image, container.get(), 128);
        for at in (block..layout.checkpoint_len.get()).step_by(block as usize) {
            seal_at(image, container.get() + at, block);
        }
    }
    for at in (0..layout.delete_log_len.get()).step_by(block as usize) {
        seal_at(image, layout.delete_log_offset.get() + at, block);
    }
    for slot in 0..layout.slot_count.get() {
        let Some(offset) = layout.slot_offset(slot) else { return };
        if !seal_slot(image, layout, offset, slot) {
            return;
        }
    }
}

/// Puts right the checksums of a slot: of key and metadata, of the header, of the payload. Returns whether the
/// image has such a slot.
fn seal_slot(image: &mut [u8], layout: &Superblock, offset: u64, slot: u64) -> bool {
    let block = layout.block_size.get() as usize;
    let object = usize::try_from(offset).ok().and_then(|offset| image.get_mut(offset..));
    let Some(object) = object else { return false };
    if object.len() < block {
        return false;
    }
    let (header, behind) = object.split_at_mut(block);
    let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let end = SLOT_HEADER_LEN + length(60) + length(62);
    if let Some(key) = header.get(SLOT_HEADER_LEN..end) {
        let checksum = crc32c([key]);
        header[80..84].copy_from_slice(&checksum.to_le_bytes());
    }
    seal(&mut header[..SLOT_HEADER_LEN]);
    let payload_checksum = match SlotHeader::read(header, layout, slot) {
        Ok(view) => {
            let len = view.header.entry.payload_len.get() as usize;
            let payload = view.inline_payload.or_else(|| behind.get(..len)).unwrap_or(&[]);
            let sequence = view.header.entry.sequence.get();
            let uuid = &layout.preamble.uuid;
            raw_block_store::format::payload_checksum(uuid, slot, sequence, payload)
        }
        Err(_) => return true,
    };
    header[72..80].copy_from_slice(&payload_checksum.to_le_bytes());
    seal(&mut header[..SLOT_HEADER_LEN]);
    true
}

fn seal_at(image: &mut [u8], offset: u64, len: u64) {
    let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(len)).ok());
    if let Some(structure) = range.and_then(|(from, to)| image.get_mut(from..to)) {
        seal(structure);
    }
}

/// What a device holds.
pub fn contents(device: &Arc<dyn IoBackend>) -> Vec<u8> {
    let len = usize::try_from(device.geometry().capacity).expect("it is a small one");
    let mut bytes = AlignedBuf::zeroed(len).expect("it is a small one");
    let device = Dispatcher::new(device.clone()).expect("it is a plain one");
    device.read_buffers(&mut [ReadAt::new(0, &mut bytes)]).all().expect("nothing fails in memory");
    bytes.to_vec()
}

fn write(device: &Arc<dyn IoBackend>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len() - bytes.len() % BLOCK];
    let device = Dispatcher::new(device.clone()).expect("it is a plain one");
    device.write_buffers(&[WriteAt::new(0, bytes)]).all().expect("nothing fails in memory");
}
