//! What an input makes of an image, and how the store on it is used.

use std::ops::ControlFlow;

use raw_block_store::{Error, EvictionPolicy, OpenOptions, Put, Store};

use crate::edit::{edit, forge};
use crate::image::{IMAGES, KEYS, contents, device_with, object};

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

    /// Whether checksums and keyed hashes are corrected after the edits.
    fn is_forged(&self) -> bool {
        self.options[0] & 8 != 0
    }

    fn open_options(&self) -> OpenOptions {
        let eviction = match self.options[1] % 4 {
            0 => EvictionPolicy::None,
            1 => EvictionPolicy::Lru,
            2 => EvictionPolicy::S3Fifo,
            _ => EvictionPolicy::Fifo,
        };
        OpenOptions::default()
            .eviction(eviction)
            .accept_older_states(self.options[0] & 0x10 != 0)
            .discard(self.options[0] & 0x20 != 0)
            // What one thread does is the same every time.
            .background(false)
    }

    /// The image that the input makes.
    fn image(&self) -> Vec<u8> {
        let image = &IMAGES[usize::from(self.options[0] & 7)];
        let mut bytes = image.bytes.clone();
        let mut edits = self.edits.iter().copied();
        while edit(&mut bytes, &image.written, &mut edits).is_some() {}
        if self.is_forged() {
            forge(&mut bytes, &image.bytes);
        }
        bytes
    }

    /// Opens the store on the image and uses it in every way.
    ///
    /// # Panics
    /// When the store breaks a promise.
    pub fn run(&self) {
        let Some(device) = device_with(&self.image()) else { return };
        let image = contents(&device);
        if self.options[1] & 0x80 != 0 {
            if let Ok(store) = Store::open_read_only(device.clone(), &self.open_options()) {
                self.look(&store);
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
        self.look(&store);
        self.change(&store);
        store.close().expect("nothing fails in memory");
        let store = Store::open_with(device, &self.open_options());
        self.look(&store.expect("a store that was closed can be opened"));
    }

    /// Reads everything. What is found was put there, unless its checksum is forged.
    fn look(&self, store: &Store) {
        check_segments(store);
        let mut keys: Vec<Vec<u8>> = (0..KEYS).map(|key| vec![key]).collect();
        let list = store.list(|object| {
            keys.push(object.key.to_vec());
            ControlFlow::Continue(())
        });
        list.expect("nothing fails in memory");
        for key in &keys {
            match store.get(key) {
                Ok(Some(found)) if !self.is_forged() => {
                    let payload = found.payload();
                    let version = payload.get(1).copied().unwrap_or(0);
                    assert!(*payload == object(key[0], version), "{key:?} has other bytes");
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
                    Err(Error::OutOfSpace { .. }) => {}
                    Err(error) => panic!("put: {error}"),
                }
            }
            let many: Vec<_> = (4..KEYS).map(|key| ([key], object(key, round))).collect();
            let puts: Vec<_> = many.iter().map(|(key, bytes)| Put::new(key, bytes)).collect();
            drop(store.put_many(&puts));
            for result in store.delete_many(&[&[round], &[round + 4], b"nothing"]) {
                match result {
                    Ok(_) | Err(Error::OutOfSpace { .. }) => {}
                    Err(error) => panic!("delete: {error}"),
                }
            }
            store.flush().expect("nothing fails in memory");
            store.checkpoint().expect("nothing fails in memory");
            check_segments(store);
        }
    }
}

/// Checks that every segment is in exactly one state.
fn check_segments(store: &Store) {
    let stats = store.stats();
    let unused = stats.free_segments + stats.draining_segments + stats.bad_segments;
    assert_eq!(unused + stats.open_segments + stats.full_segments, stats.segments, "{stats:?}");
}
