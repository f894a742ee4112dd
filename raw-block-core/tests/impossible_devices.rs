//! A device that says of itself what cannot be, or says something else each time, is refused or
//! taken at its first word; it never makes the dispatcher touch memory that it does not have.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fakes::{kinds, within_seconds};
use raw_block_core::backend::{FlushState, IoBackend, IoQueue, Stats};
use raw_block_core::{
    AlignedBuf, Dispatcher, Error, ErrorKind, Geometry, MemoryBackend, OwnedTransfer, ReadAt,
    WriteAt,
};

const NO_MEMORY: Option<ErrorKind> = Some(ErrorKind::OutOfResources);

/// A geometry in blocks of 512 bytes, with `change` made to it.
fn geometry(capacity: u64, change: impl FnOnce(&mut Geometry)) -> Geometry {
    let mut geometry = Geometry::new(capacity, 512).unwrap();
    change(&mut geometry);
    geometry
}

fn device(geometry: Geometry) -> Result<Dispatcher, Error> {
    Dispatcher::new(Arc::new(MemoryBackend::with_geometry(geometry)))
}

#[test]
fn a_device_in_memory_is_no_larger_than_file_offsets_can_say() {
    for capacity in [u64::MAX, Geometry::MAX_CAPACITY + 1, Geometry::MAX_CAPACITY] {
        let device = Dispatcher::new(Arc::new(MemoryBackend::new(capacity).unwrap())).unwrap();
        let capacity = device.geometry().capacity;
        assert_eq!(capacity, Geometry::MAX_CAPACITY - 511, "whole blocks");
        let block = [7; 512];
        device.write_buffers(&[WriteAt::new(capacity - 512, &block)]).all().unwrap();
        let mut found = [0; 512];
        device.read_buffers(&mut [ReadAt::new(capacity - 512, &mut found)]).all().unwrap();
        assert_eq!(found, block);
    }
}

#[test]
fn erasing_a_device_takes_as_long_as_what_is_stored_there() {
    within_seconds(|| {
        let device = Dispatcher::new(Arc::new(MemoryBackend::new(u64::MAX).unwrap())).unwrap();
        let (capacity, block) = (device.geometry().capacity, [7; 512]);
        // Adjacent across a border of two chunks, and at both ends.
        let places = [0, 512, 65536 - 512, 65536, 1 << 40, capacity - 512];
        let writes = places.map(|place| WriteAt::new(place, &block));
        device.write_buffers(&writes).all().unwrap();
        device.write_zeroes(512, capacity - 1024).unwrap();
        for place in places {
            let mut found = [1; 512];
            device.read_buffers(&mut [ReadAt::new(place, &mut found)]).all().unwrap();
            let kept = place == 0 || place == capacity - 512;
            assert_eq!(found, if kept { block } else { [0; 512] }, "{place}");
        }
    });
}

#[test]
fn a_device_that_claims_to_be_impossible_is_refused() {
    let impossible = [
        geometry(512, |geometry| geometry.capacity = Geometry::MAX_CAPACITY + 1),
        geometry(512, |geometry| geometry.capacity = u64::MAX),
        geometry(512, |geometry| geometry.transfer_alignment = 0),
        geometry(512, |geometry| geometry.transfer_alignment = 1536),
        geometry(512, |geometry| geometry.memory_alignment = 0),
        geometry(512, |geometry| geometry.memory_alignment = 3),
        geometry(512, |geometry| geometry.memory_alignment = 8192),
    ];
    for geometry in impossible {
        let error = device(geometry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{geometry:?}");
    }
    assert!(device(geometry(512, |geometry| geometry.capacity = Geometry::MAX_CAPACITY)).is_ok());
}

#[test]
fn transfers_that_need_more_memory_than_there_can_be_fail_alone() {
    within_seconds(|| {
        for memory_alignment in [1, 512, 4096] {
            let geometry =
                geometry(u64::MAX, |geometry| geometry.memory_alignment = memory_alignment);
            let device = device(geometry).unwrap();
            let all = geometry.capacity;
            device.write_buffers(&[WriteAt::new(0, &[7; 512])]).all().unwrap();
            // Reads may overlap, so a batch can be longer than the device.
            let read = |lengths: &[u64]| {
                let mut found = vec![[0xEE]; lengths.len()];
                let mut batch: Vec<_> = lengths
                    .iter()
                    .zip(&mut found)
                    .map(|(&len, found)| ReadAt::new(0, found).padded_to(len))
                    .collect();
                let kinds = kinds(&*device.read_buffers(&mut batch));
                for (found, _) in found.iter().zip(&kinds).filter(|(_, kind)| kind.is_none()) {
                    assert_eq!(*found, [7]);
                }
                kinds
            };
            assert_eq!(read(&[1024, all]), [None, NO_MEMORY]);
            assert_eq!(read(&[all, 1024]), [NO_MEMORY, None]);
            assert_eq!(read(&[all, all]), [NO_MEMORY; 2]);
            assert_eq!(
                read(&[all, 512, all, all, 512]),
                [NO_MEMORY, None, NO_MEMORY, NO_MEMORY, None]
            );

            let writes = [WriteAt::new(0, &[9]).padded_to(all), WriteAt::new(512, &[9; 512])];
            let overlap = Some(ErrorKind::Overlap);
            assert_eq!(kinds(&*device.write_buffers(&writes)), [NO_MEMORY, overlap]);
            let writes = [
                WriteAt::new(0, &[9]).padded_to(512),
                WriteAt::new(512, &[9]).padded_to(all - 512),
            ];
            assert_eq!(kinds(&*device.write_buffers(&writes)), [None, NO_MEMORY]);

            let mut owned = OwnedTransfer::new(0, AlignedBuf::zeroed(1).unwrap());
            owned.total_len = all;
            let all = device.batched_read(vec![owned]).unwrap().wait();
            assert_eq!(kinds(all.iter().map(|finished| &finished.result)), [NO_MEMORY]);
        }
    });
}

/// Describes itself otherwise from a certain question on.
struct Fickle {
    memory: MemoryBackend,
    later: Geometry,
    asked: AtomicUsize,
    /// So often it says the first.
    steady: usize,
}

impl IoBackend for Fickle {
    fn engine(&self) -> &'static str {
        "fickle"
    }

    fn name(&self) -> &'static str {
        "fickle device"
    }

    fn geometry(&self) -> &Geometry {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        if asked < self.steady { self.memory.geometry() } else { &self.later }
    }

    fn stats(&self) -> &Stats {
        self.memory.stats()
    }

    fn flush_state(&self) -> &FlushState {
        self.memory.flush_state()
    }

    fn open_queue(&self, depth: usize) -> Result<Box<dyn IoQueue>, Error> {
        self.memory.open_queue(depth)
    }
}

/// Runs `test` on a device that becomes another one after the first, the second, ... question.
fn at_every_moment(first: Geometry, later: Geometry, test: impl Fn(&Dispatcher)) {
    for steady in 1..=12 {
        let memory = MemoryBackend::with_geometry(first);
        let backend = Fickle { memory, later, asked: AtomicUsize::new(0), steady };
        let device = Dispatcher::new(Arc::new(backend)).unwrap();
        assert_eq!(*device.geometry(), first, "it changed after question {steady}");
        test(&device);
        assert_eq!(*device.geometry(), first);
    }
}

#[test]
fn a_device_whose_alignment_changes_is_served_as_it_was_first() {
    const LEN: usize = 8192 + 100;
    const TOTAL: u64 = 8192 + 512;
    within_seconds(|| {
        let aligned_to = |alignment| {
            geometry(1 << 20, |geometry| {
                geometry.memory_alignment = alignment;
            })
        };
        for (first, later) in [(1, 4096), (4096, 1), (512, 4096), (4096, 512)] {
            at_every_moment(aligned_to(first), aligned_to(later), |device| {
                let bytes: Vec<u8> = (1..=251).cycle().take(LEN + 1).collect();
                let writes =
                    [0, TOTAL].map(|offset| WriteAt::new(offset, &bytes[1..]).padded_to(TOTAL));
                device.write_buffers(&writes).all().unwrap();
                let mut found = [(); 2].map(|()| vec![0xEE; LEN + 2]);
                let [one, two] = &mut found;
                let mut reads = [(0, one), (TOTAL, two)].map(|(offset, found)| {
                    ReadAt::new(offset, &mut found[1..=LEN]).padded_to(TOTAL)
                });
                device.read_buffers(&mut reads).all().unwrap();
                for found in &found {
                    assert!(found[1..=LEN] == bytes[1..], "alignment {first}, then {later}");
                    assert_eq!((found[0], found[LEN + 1]), (0xEE, 0xEE));
                }
            });
        }
    });
}

#[test]
fn a_device_whose_capacity_changes_is_as_large_as_it_was_first() {
    within_seconds(|| {
        let first = geometry(1 << 20, |_| ());
        for capacity in [u64::MAX - 511, 512] {
            let later = geometry(512, |geometry| geometry.capacity = capacity);
            at_every_moment(first, later, |device| {
                let outside = Some(ErrorKind::OutOfRange);
                let (mut one, mut two, mut three) = ([1], [1], [1]);
                let mut reads = [
                    ReadAt::new(0, &mut one).padded_to(1 << 20),
                    ReadAt::new(0, &mut two).padded_to(u64::MAX - 511),
                    ReadAt::new(1 << 20, &mut three).padded_to(512),
                ];
                assert_eq!(kinds(&*device.read_buffers(&mut reads)), [None, outside, outside]);
                assert_eq!((one, two, three), ([0], [1], [1]), "only the first was read");
            });
        }
    });
}
