//! Images of a store that were changed by accident: no panic, no bytes that were not put, and an
//! image that cannot be opened stays as it is. The fuzz targets in `fuzz/` go further; this runs on
//! every machine.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use common::faulty::Faulty;
use common::{BLOCK, bytes, check_segments, put_all, small, without_thread};
use proptest::prelude::*;
use raw_block_store::{Error, Put, Store};

/// Enough for the eight segments that a store has at least.
const LEN: usize = 300 << 10;
const KEYS: u8 = 6;

static ALBUM: LazyLock<Album> = LazyLock::new(Album::new);

/// A store at different times, and everything that was ever put.
struct Album {
    images: Vec<Vec<u8>>,
    put: HashSet<(u8, Vec<u8>)>,
}

impl Album {
    /// Fills all segments, so that some are reclaimed and opened again.
    fn new() -> Self {
        let device = Faulty::new(LEN);
        Store::format(device.backend(), &small()).unwrap();
        let mut album = Self { images: vec![device.bytes()], put: HashSet::new() };
        for round in 0..12_u8 {
            let store = open(&device).unwrap();
            let objects: Vec<_> = (0..4)
                .map(|number| {
                    let key = (round + number) % KEYS;
                    let len = [30, 1500, 12_000][usize::from(round + number) % 3];
                    (key, bytes(u64::from(round) << 8 | u64::from(number), len))
                })
                .collect();
            let puts: Vec<_> = objects
                .iter()
                .map(|(key, value)| Put::new(std::slice::from_ref(key), value))
                .collect();
            put_all(&store, &puts);
            album.put.extend(objects.iter().cloned());
            album.images.push(device.bytes());
            assert!(store.delete(&[round % KEYS]).is_ok());
            if round % 4 == 1 {
                store.checkpoint().unwrap();
            }
            if round % 2 == 0 {
                store.close().unwrap();
            } else {
                drop(store);
            }
            album.images.push(device.bytes());
        }
        album
    }
}

fn open(device: &Faulty) -> Result<Store, Error> {
    Store::open_with(device.backend(), &without_thread())
}

#[derive(Clone, Debug)]
enum Change {
    Flip {
        byte: prop::sample::Index,
        mask: u8,
    },
    Swap {
        first: prop::sample::Index,
        second: prop::sample::Index,
    },
    Zero {
        block: prop::sample::Index,
    },
    /// Blocks as they were at another time.
    Replay {
        block: prop::sample::Index,
        count: usize,
        time: prop::sample::Index,
    },
    Truncate {
        blocks: prop::sample::Index,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), 1..=255_u8).prop_map(|(byte, mask)| Change::Flip { byte, mask }),
        2 => (index(), index()).prop_map(|(first, second)| Change::Swap { first, second }),
        1 => index().prop_map(|block| Change::Zero { block }),
        3 => (index(), 1..6_usize, index())
            .prop_map(|(block, count, time)| Change::Replay { block, count, time }),
        1 => index().prop_map(|blocks| Change::Truncate { blocks }),
    ]
}

impl Change {
    fn make(&self, image: &mut Vec<u8>, album: &Album) {
        let blocks = image.len() / BLOCK;
        let range = |block: usize| block * BLOCK..(block + 1) * BLOCK;
        match self {
            Self::Flip { byte, mask } => {
                let at = byte.index(image.len());
                image[at] ^= mask;
            }
            Self::Swap { first, second } => {
                let (first, second) = (first.index(blocks), second.index(blocks));
                let held = image[range(first)].to_vec();
                image.copy_within(range(second), first * BLOCK);
                image[range(second)].copy_from_slice(&held);
            }
            Self::Zero { block } => image[range(block.index(blocks))].fill(0),
            Self::Replay { block, count, time } => {
                let other = &album.images[time.index(album.images.len())];
                let first = block.index(blocks);
                for block in first..(first + count).min(blocks) {
                    image[range(block)].copy_from_slice(&other[range(block)]);
                }
            }
            Self::Truncate { blocks: left } => image.truncate((1 + left.index(blocks)) * BLOCK),
        }
    }
}

/// Everything that is found was put under that key; everything else is a miss or damaged.
fn look(store: &Store, album: &Album) -> Result<(), TestCaseError> {
    for key in 0..KEYS {
        match store.get(&[key]) {
            Ok(None) | Err(Error::Damaged { .. }) => {}
            Ok(Some(found)) => {
                prop_assert!(album.put.contains(&(key, found.payload().to_vec())), "key {key}");
            }
            Err(error) => return Err(TestCaseError::fail(format!("key {key}: {error}"))),
        }
    }
    let report = store.scrub(|_| ControlFlow::Continue(())).unwrap();
    prop_assert!(report.complete);
    check_segments(store);
    Ok(())
}

fn hold(album: &Album, image: &[u8]) -> Result<(), TestCaseError> {
    let device = Faulty::holding(image.to_vec());
    let store = match open(&device) {
        Ok(store) => store,
        Err(error) => {
            prop_assert!(!error.to_string().is_empty());
            prop_assert!(device.bytes() == image, "{error}, and something was written");
            return Ok(());
        }
    };
    look(&store, album)?;
    let value = bytes(99, 900);
    for key in 100..104 {
        match store.put(&[key], &value) {
            Ok(()) => prop_assert!(store.get(&[key]).unwrap().unwrap().payload() == value),
            Err(error) => prop_assert!(matches!(error, Error::OutOfSpace { .. }), "{error}"),
        }
    }
    store.close().unwrap();
    look(&open(&device).unwrap(), album)
}

#[test]
fn a_byte_that_is_flipped_is_noticed_or_harmless() {
    let is_written = |image: &[u8], at: usize| {
        let block = at / BLOCK * BLOCK;
        image[block..block + BLOCK].iter().any(|&byte| byte != 0)
    };
    // One that was closed, and one that was not.
    for (image, start) in [(&ALBUM.images[18], 0), (&ALBUM.images[20], 7)] {
        // Some bytes of every header, and some of every block.
        let places = (start..image.len()).filter(|at| {
            (at % BLOCK < 192 && at % 307 == 0 || at % 5003 == 0) && is_written(image, *at)
        });
        for at in places {
            let mut changed = image.clone();
            changed[at] ^= 1 << (at % 8);
            if let Err(error) = hold(&ALBUM, &changed) {
                panic!("byte {at}: {error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_that_are_changed_moved_or_lost_are_not_believed(
        time in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..8),
    ) {
        let mut image = ALBUM.images[time.index(ALBUM.images.len())].clone();
        for change in &changes {
            change.make(&mut image, &ALBUM);
        }
        hold(&ALBUM, &image)?;
    }
}
