//! Registered memory: of pools, of the caller, large, scattered, and refused.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use raw_block_core::conformance::Skipped;
use raw_block_core::{
    BufferPool, Dispatcher, ErrorKind, OwnedTransfer, ReadAt, Registration, WriteAt,
};
use raw_block_fixtures::{TempFile, temp_file};
use raw_block_uring::{UringBackend, UringOptions};

const BLOCK: usize = 4096;

fn open() -> (TempFile, Arc<UringBackend>, Dispatcher) {
    let file = temp_file(16 << 20).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let dispatcher = Dispatcher::new(backend.clone()).unwrap();
    (file, backend, dispatcher)
}

/// Memory of another allocator.
struct Foreign(NonNull<u8>, NonZeroUsize);

impl Foreign {
    fn map(len: usize) -> Self {
        let len = NonZeroUsize::new(len).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is requested, so the new mapping replaces nothing.
        let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) };
        Self(start.unwrap().cast(), len)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable and zeroed, and belongs to this value.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.1.get()) }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and nothing borrows it.
        unsafe { munmap(self.0.cast(), self.1.get()) }.unwrap();
    }
}

/// Writes and reads `memory` as one transfer each. Returns how many of the two ops used registered
/// memory, and how many could not because they cross a border.
fn both_ways(dispatcher: &Dispatcher, memory: &mut [u8], byte: u8) -> (u64, u64) {
    let before = dispatcher.stats();
    memory.fill(byte);
    dispatcher.write_buffers(&[WriteAt::new(0, memory)]).all().unwrap();
    memory.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(0, memory)]).all().unwrap();
    assert!(memory.iter().all(|&found| found == byte));
    let after = dispatcher.stats();
    (after.registered_ops - before.registered_ops, after.crossing_ops - before.crossing_ops)
}

#[test]
fn memory_is_registered_until_the_guard_is_dropped() {
    let (_file, backend, dispatcher) = open();
    let mut foreign = Foreign::map(64 * BLOCK);
    assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[..BLOCK], 1), (0, 0));
    // SAFETY: the mapping is dropped after the registration, and nothing changes its pages before.
    let guard = unsafe { Registration::new(backend, &[(foreign.0, foreign.1.get())]) }.unwrap();
    assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[8 * BLOCK..9 * BLOCK], 2), (2, 0));
    drop(guard);
    assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[..BLOCK], 3), (0, 0));
}

#[test]
fn a_registered_address_that_is_mapped_anew_is_plain_memory() {
    let (_file, backend, dispatcher) = open();
    for round in 1..=20 {
        // Mostly at the address of the previous round.
        let mut foreign = Foreign::map(16 * BLOCK);
        assert_eq!(both_ways(&dispatcher, foreign.bytes(), round), (0, 0), "round {round}");
        let ranges = [(foreign.0, foreign.1.get())];
        // SAFETY: as above.
        let guard = unsafe { Registration::new(backend.clone(), &ranges) }.unwrap();
        assert_eq!(both_ways(&dispatcher, foreign.bytes(), 100 + round), (2, 0), "round {round}");
        drop(guard);
    }
}

#[test]
fn a_registration_does_not_touch_earlier_ones() {
    let (_file, backend, dispatcher) = open();
    let foreign = Foreign::map(4 * BLOCK);
    // SAFETY: the mapping is dropped after the registration, and keeps its pages.
    let earlier = unsafe { Registration::new(backend.clone(), &[(foreign.0, BLOCK)]) }.unwrap();
    // SAFETY: nothing accesses the mapping from now on.
    unsafe { mprotect(foreign.0.cast(), foreign.1.get(), ProtFlags::PROT_NONE) }.unwrap();
    // The kernel could not pin it again.
    // SAFETY: as above.
    let again = unsafe { Registration::new(backend.clone(), &[(foreign.0, BLOCK)]) };
    assert!(again.is_err());
    for count in [1, 2, 40] {
        let pools: Vec<_> = (0..count).map(|_| BufferPool::new(BLOCK, 4).unwrap()).collect();
        let register = |pool: &BufferPool| pool.register_with(backend.clone()).unwrap();
        let registrations: Vec<_> = pools.iter().map(register).collect();
        drop(registrations);
    }
    assert_eq!(dispatcher.stats().refused_registrations, 1);
    drop(earlier);
    let pool = BufferPool::new(BLOCK, 1).unwrap();
    let _registration = pool.register_with(backend).unwrap();
    assert_eq!(both_ways(&dispatcher, &mut pool.take().unwrap(), 1), (2, 0));
}

#[test]
fn registrations_end_in_any_order() {
    const POOLS: usize = 100; // more than the first table has slots
    let (_file, backend, dispatcher) = open();
    let pools: Vec<_> = (0..POOLS).map(|_| BufferPool::new(BLOCK, 1).unwrap()).collect();
    let mut registered: Vec<_> =
        pools.iter().map(|pool| Some(pool.register_with(backend.clone()).unwrap())).collect();
    for round in 0..3 {
        for number in 0..POOLS {
            if number % 3 == round {
                registered[number * 7 % POOLS] = None;
            }
        }
        let again = 5 * round;
        registered[again] = Some(pools[again].register_with(backend.clone()).unwrap());
        for (pool, registration) in pools.iter().zip(&registered) {
            let expected = if registration.is_some() { 2 } else { 0 };
            assert_eq!(both_ways(&dispatcher, &mut pool.take().unwrap(), 3), (expected, 0));
        }
    }
}

#[test]
fn a_transfer_across_two_regions_is_served_and_counted() {
    let (_file, backend, dispatcher) = open();
    let mut foreign = Foreign::map(4 * BLOCK);
    let half = 2 * BLOCK;
    let middle = foreign.0.as_ptr().wrapping_add(half);
    let ranges = [(foreign.0, half), (NonNull::new(middle).unwrap(), half)];
    // SAFETY: the mapping is dropped after the registration, and nothing changes its pages before.
    let _guard = unsafe { Registration::new(backend, &ranges) }.unwrap();
    assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[..half], 1), (2, 0), "in the first");
    assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[half..], 2), (2, 0), "in the second");
    assert_eq!(both_ways(&dispatcher, foreign.bytes(), 3), (0, 2), "in both");
}

#[test]
fn thousands_of_ranges_can_be_registered() {
    const RANGES: usize = 4000;
    let (_file, backend, dispatcher) = open();
    // Every other page, so that none is adjacent to the next.
    let mut foreign = Foreign::map(2 * RANGES * BLOCK);
    let page = |number: usize| foreign.0.as_ptr().wrapping_add(2 * number * BLOCK);
    let ranges: Vec<_> =
        (0..RANGES).map(|number| (NonNull::new(page(number)).unwrap(), BLOCK)).collect();
    // SAFETY: the mapping is dropped after the registration, and nothing changes its pages before.
    let _guard = match unsafe { Registration::new(backend, &ranges) } {
        Ok(guard) => guard,
        // They exceed what a user may lock by default.
        Err(error) if error.kind() == ErrorKind::OutOfResources => {
            return Skipped::because(error).report();
        }
        Err(error) => panic!("{error}"),
    };
    for number in [0, 1, 1777, RANGES - 1] {
        let at = 2 * number * BLOCK;
        assert_eq!(both_ways(&dispatcher, &mut foreign.bytes()[at..at + BLOCK], 9), (2, 0));
        let beside = &mut foreign.bytes()[at + BLOCK..at + 2 * BLOCK];
        assert_eq!(both_ways(&dispatcher, beside, 9), (0, 0));
    }
}

#[test]
fn segments_of_one_region_share_a_registered_transfer() {
    let (_file, backend, dispatcher) = open();
    let pool = BufferPool::new(BLOCK, 16).unwrap();
    let _registration = pool.register_with(backend.clone()).unwrap();
    let mut lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    for (number, buffer) in lent.iter_mut().enumerate() {
        buffer.fill(u8::try_from(number).unwrap());
    }
    // Adjacent on the device, in reverse order in memory: merged as several segments.
    let places = |number: usize| (15 - number) as u64 * BLOCK as u64;
    let writes: Vec<_> = lent.iter().enumerate().map(|(n, b)| WriteAt::new(places(n), b)).collect();
    dispatcher.write_buffers(&writes).all().unwrap();
    let stats = dispatcher.stats();
    assert!(stats.ops < 16 && stats.merged_transfers == 16, "{stats:?}");
    let expected = if backend.serves_vectored_fixed() { stats.ops } else { 0 };
    assert_eq!(stats.registered_ops, expected);
    let mut all = vec![0; 16 * BLOCK];
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut all)]).all().unwrap();
    for (place, bytes) in all.chunks(BLOCK).enumerate() {
        assert!(bytes.iter().all(|&byte| usize::from(byte) == 15 - place), "block {place}");
    }
    let mut reads: Vec<_> =
        lent.iter_mut().enumerate().map(|(n, b)| ReadAt::new(n as u64 * BLOCK as u64, b)).collect();
    dispatcher.read_buffers(&mut reads).all().unwrap();
    for (place, buffer) in lent.iter().enumerate() {
        assert!(buffer.iter().all(|&byte| usize::from(byte) == 15 - place));
    }
}

#[test]
fn memory_may_be_registered_while_transfers_are_in_flight() {
    let (_file, backend, dispatcher) = open();
    let pool = BufferPool::new(64 * BLOCK, 16).unwrap();
    for _ in 0..10 {
        let owned = |n: u64| OwnedTransfer::new(n * 64 * BLOCK as u64, pool.take().unwrap());
        let ticket = dispatcher.batched_read((0..8).map(owned).collect()).unwrap();
        let mut foreign = Foreign::map(4 * BLOCK);
        let ranges = [(foreign.0, foreign.1.get())];
        // SAFETY: the mapping is dropped after the registration, and nothing changes its pages
        // before.
        let guard = unsafe { Registration::new(backend.clone(), &ranges) }.unwrap();
        let other = dispatcher.batched_read((8..16).map(owned).collect()).unwrap();
        assert_eq!(both_ways(&dispatcher, foreign.bytes(), 5), (2, 0));
        drop(guard);
        for finished in ticket.wait().into_iter().chain(other.wait()) {
            finished.result.unwrap();
        }
    }
}

#[test]
fn ranges_without_memory_are_refused() {
    let (_file, backend, _) = open();
    let foreign = Foreign::map(BLOCK);
    for ranges in [&[][..], &[(foreign.0, BLOCK), (foreign.0, 0)]] {
        // SAFETY: nothing changes the pages of the mapping before it is dropped.
        let error = unsafe { Registration::new(backend.clone(), ranges) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn memory_may_be_larger_than_one_region_of_the_kernel() {
    let (_file, backend, dispatcher) = open();
    // Registering pins the pages, and not every machine has that much memory.
    let pool = BufferPool::new(BLOCK, (1 << 30) / BLOCK + 2).unwrap();
    let _registration = match pool.register_with(backend) {
        Ok(registration) => registration,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OutOfResources);
            println!("skipped: {error}");
            return;
        }
    };
    let mut first = pool.take().unwrap();
    let mut lent: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(both_ways(&dispatcher, &mut first, 1), (2, 0));
    assert_eq!(both_ways(&dispatcher, lent.last_mut().unwrap(), 2), (2, 0), "in the second part");
}
