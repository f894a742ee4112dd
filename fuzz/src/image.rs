//! Images of one store at different times, made in memory when a target starts.

use std::sync::{Arc, LazyLock};

use raw_block_core::backend::IoBackend;
use raw_block_core::{AlignedBuf, Dispatcher, MemoryBackend, ReadAt, WriteAt};
use raw_block_store::{Error, EvictionPolicy, FormatOptions, OpenOptions, Put, Store};

/// Block size of the images, in bytes.
pub const BLOCK: usize = 512;
/// The keys of the images are the bytes below this one.
pub const KEYS: u8 = 12;
/// Enough for the eight segments that a store has at least.
const LEN: u64 = 300 << 10;

/// An image of a store.
pub struct Image {
    /// The whole device.
    pub bytes: Vec<u8>,
    /// The numbers of the blocks that are not zero.
    pub written: Vec<usize>,
}

/// The images. Every process makes the same.
pub static IMAGES: LazyLock<Vec<Image>> =
    LazyLock::new(|| make().expect("nothing fails in memory"));

/// What is put under a key in the round with this number.
#[must_use]
pub fn object(key: u8, version: u8) -> Vec<u8> {
    let len = [0, 20, 700, 2000, 6000][usize::from(key ^ version) % 5];
    let mut bytes = vec![key, version];
    bytes.extend((0_usize..).map(|at| (at * 31 + at / 256) as u8 ^ key ^ version).take(len));
    bytes
}

/// Four images of a store that was closed, and four of one that was not. Its segments are filled
/// several times.
fn make() -> Result<Vec<Image>, Error> {
    raw_block_store::simulate();
    let device = device(LEN);
    let options =
        FormatOptions::default().segment_size(64 * BLOCK as u64).block_size(512).label("fuzz");
    Store::format(device.clone(), &options)?;
    let mut images = Vec::new();
    for life in 0..8_u8 {
        // What one thread does is the same every time.
        let eviction = if life % 4 < 2 { EvictionPolicy::None } else { EvictionPolicy::Lru };
        let options = OpenOptions::default().eviction(eviction).background(false);
        let store = Store::open_with(device.clone(), &options)?;
        for round in 3 * life..3 * (life + 1) {
            change(&store, round)?;
            if round % 4 == 1 {
                store.checkpoint()?;
            }
        }
        if life % 2 == 0 {
            store.close()?;
        }
        images.push(Image::new(contents(&device)));
    }
    Ok(images)
}

/// Puts four objects, one of them alone, and deletes two keys.
fn change(store: &Store, round: u8) -> Result<(), Error> {
    let key = |number: u8| [(round + number) % KEYS];
    let objects = [0, 3, 5].map(|number| (key(number), object(key(number)[0], round)));
    let puts: Vec<_> = objects
        .iter()
        .map(|(key, payload)| Put::new(key, payload).with_metadata(b"meta"))
        .collect();
    store.put_many(&puts).all()?;
    store.put(&key(7), &object(key(7)[0], round))?;
    for result in store.delete_many(&[&key(1), &key(6)]) {
        result?;
    }
    Ok(())
}

impl Image {
    fn new(bytes: Vec<u8>) -> Self {
        let blocks = bytes.chunks_exact(BLOCK).enumerate();
        let is_written = |block: &[u8]| block.iter().any(|&byte| byte != 0);
        let written = blocks.filter(|(_, block)| is_written(block)).map(|(at, _)| at).collect();
        Self { bytes, written }
    }
}

/// A device of this length.
fn device(len: u64) -> Arc<dyn IoBackend> {
    Arc::new(MemoryBackend::new(len).expect("it has whole blocks"))
}

/// A device with these contents, but for a part of a block at the end; `None` if it has no block.
#[must_use]
pub fn device_with(bytes: &[u8]) -> Option<Arc<dyn IoBackend>> {
    let bytes = &bytes[..bytes.len() - bytes.len() % BLOCK];
    if bytes.is_empty() {
        return None;
    }
    let device = device(bytes.len() as u64);
    let dispatcher = Dispatcher::new(device.clone()).expect("it is a plain one");
    let written = dispatcher.write_buffers(&[WriteAt::new(0, bytes)]).all();
    written.expect("nothing fails in memory");
    Some(device)
}

/// The contents of a device.
pub fn contents(device: &Arc<dyn IoBackend>) -> Vec<u8> {
    let len = usize::try_from(device.geometry().capacity).expect("it is a small one");
    let mut bytes = AlignedBuf::zeroed(len).expect("it is a small one");
    let dispatcher = Dispatcher::new(device.clone()).expect("it is a plain one");
    let read = dispatcher.read_buffers(&mut [ReadAt::new(0, &mut bytes)]).all();
    read.expect("nothing fails in memory");
    bytes.to_vec()
}
