//! Registered ranges of regions: which leases of them are registered memory.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;
use raw_block_core::conformance::Skipped;
use raw_block_core::{
    AlignedBuf, Dispatcher, ErrorKind, Finished, Lease, OwnedTransfer, Region, Registration,
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

fn region(len: usize) -> Region {
    Region::owned(AlignedBuf::zeroed(len).unwrap()).unwrap()
}

/// How two ops moved the bytes of a lease.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    registered_ops: u64,
    crossing_ops: u64,
    staged_bytes: u64,
}

/// Both ops used registered memory, and nothing was copied.
const REGISTERED: Moved = Moved { registered_ops: 2, crossing_ops: 0, staged_bytes: 0 };
/// Neither op used registered memory, and nothing was copied.
const PLAIN: Moved = Moved { registered_ops: 0, ..REGISTERED };

/// Writes a lease and reads it again, as one owned transfer each.
fn both_ways(dispatcher: &Dispatcher, mut lease: Lease, byte: u8) -> Moved {
    let before = dispatcher.stats();
    lease.fill(byte);
    let run = |ticket: Result<raw_block_core::Ticket, _>| {
        let Finished { buffer, result, .. } = ticket.unwrap().wait().remove(0);
        result.unwrap();
        Lease::try_from(buffer).unwrap()
    };
    let mut lease = run(dispatcher.batched_write(vec![OwnedTransfer::new(0, lease)]));
    lease.fill(!byte);
    let lease = run(dispatcher.batched_read(vec![OwnedTransfer::new(0, lease)]));
    assert!(lease.iter().all(|&found| found == byte));
    let after = dispatcher.stats();
    Moved {
        registered_ops: after.registered_ops - before.registered_ops,
        crossing_ops: after.crossing_ops - before.crossing_ops,
        staged_bytes: after.staged_bytes - before.staged_bytes,
    }
}

/// The registration; `None`, with a message, if the user may not pin that much memory.
fn if_allowed(registered: Result<Registration, raw_block_core::Error>) -> Option<Registration> {
    match registered {
        Ok(registration) => Some(registration),
        Err(error) if error.kind() == ErrorKind::OutOfResources => {
            Skipped::because(error).report();
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lease_is_registered_memory_until_the_guard_is_dropped() {
    let (_file, backend, dispatcher) = open();
    let region = region(64 * BLOCK);
    let lease = || region.lease(8 * BLOCK..11 * BLOCK).unwrap();
    assert_eq!(both_ways(&dispatcher, lease(), 1), PLAIN);
    let Some(registration) = if_allowed(region.register_with(backend, ..)) else { return };
    assert_eq!(both_ways(&dispatcher, lease(), 2), REGISTERED);
    drop(registration);
    assert_eq!(both_ways(&dispatcher, lease(), 3), PLAIN);
}

#[test]
fn a_registered_range_serves_the_leases_inside_it() {
    let (_file, backend, dispatcher) = open();
    let region = region(64 * BLOCK);
    let registered = region.register_with(backend, 16 * BLOCK..32 * BLOCK);
    let Some(_registration) = if_allowed(registered) else { return };
    let lease = |first, last| region.lease(first * BLOCK..=last * BLOCK - 1).unwrap();
    for (first, last) in [(16, 32), (16, 17), (31, 32)] {
        assert_eq!(both_ways(&dispatcher, lease(first, last), 1), REGISTERED, "{first} to {last}");
    }
    for (first, last) in [(0, 16), (32, 33), (15, 17), (31, 33)] {
        assert_eq!(both_ways(&dispatcher, lease(first, last), 2), PLAIN, "{first} to {last}");
    }
}

#[test]
fn ranges_of_one_region_may_overlap() {
    let (_file, backend, dispatcher) = open();
    let region = region(64 * BLOCK);
    let register = |range| region.register_with(backend.clone(), range);
    let Some(whole) = if_allowed(register(0..64 * BLOCK)) else { return };
    let Some(part) = if_allowed(register(8 * BLOCK..16 * BLOCK)) else { return };
    let lease = |at: usize| region.lease(at * BLOCK..(at + 4) * BLOCK).unwrap();
    for at in [0, 6, 8, 14, 60] {
        assert_eq!(both_ways(&dispatcher, lease(at), 1), REGISTERED, "at {at}");
    }
    drop(whole);
    assert_eq!(both_ways(&dispatcher, lease(8), 2), REGISTERED);
    assert_eq!(both_ways(&dispatcher, lease(16), 3), PLAIN);
    drop(part);
    assert_eq!(both_ways(&dispatcher, lease(8), 4), PLAIN);
}

#[test]
fn of_an_unaligned_lease_only_the_copy_is_not_registered() {
    let (_file, backend, dispatcher) = open();
    let region = region(8 * BLOCK);
    let Some(_registration) = if_allowed(region.register_with(backend, ..)) else { return };
    let lease = region.lease(1..=BLOCK).unwrap();
    let staged = Moved { staged_bytes: 2 * BLOCK as u64, ..PLAIN };
    assert_eq!(both_ways(&dispatcher, lease, 1), staged);
}

#[test]
fn ranges_outside_a_region_are_not_registered() {
    let (_file, backend, _) = open();
    let region = region(8 * BLOCK);
    for (range, kind) in [
        (0..8 * BLOCK + 1, ErrorKind::OutOfRange),
        (9 * BLOCK..10 * BLOCK, ErrorKind::OutOfRange),
        (BLOCK..BLOCK, ErrorKind::InvalidInput),
    ] {
        let error = region.register_with(backend.clone(), range).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn a_registration_keeps_the_owner_of_its_region() {
    let (_file, backend, dispatcher) = open();
    let mut memory = AlignedBuf::zeroed(8 * BLOCK).unwrap();
    let (start, len) = (NonNull::from(&mut memory[..]).cast(), memory.len());
    let owner = Arc::new(memory);
    // SAFETY: the buffer keeps the memory until it is dropped, and nothing else accesses it.
    let region = unsafe { Region::new(start, len, Arc::clone(&owner)) }.unwrap();
    let Some(registration) = if_allowed(region.register_with(backend, ..)) else { return };
    assert_eq!(both_ways(&dispatcher, region.lease(..BLOCK).unwrap(), 1), REGISTERED);
    drop(region);
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(registration);
    assert_eq!(Arc::strong_count(&owner), 1);
}

/// The kernel registers at most this many bytes as one region (`io_uring_register(2)`).
const MAX_REGION: usize = 1 << 30;
/// The length of the file below.
const MAPPED: usize = 2 << 20;

/// A mapping longer than the kernel registers as one region. It is made of many mappings of one
/// short file, so it takes little memory.
struct Long(NonNull<u8>);

const LONG: NonZeroUsize = NonZeroUsize::new(MAX_REGION + MAPPED).unwrap();

// SAFETY: the mapping is valid in any thread.
unsafe impl Send for Long {}

impl Long {
    fn map() -> Self {
        let file: OwnedFd = memfd_create("region", MFdFlags::empty()).unwrap();
        ftruncate(&file, MAPPED.cast_signed().try_into().unwrap()).unwrap();
        // SAFETY: no address is requested, so the new mapping replaces nothing.
        let start =
            unsafe { mmap_anonymous(None, LONG, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) };
        let mapping = Self(start.unwrap().cast());
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let len = NonZeroUsize::new(MAPPED).unwrap();
        for at in (0..LONG.get()).step_by(MAPPED) {
            let address = NonZeroUsize::new(mapping.0.addr().get() + at);
            // SAFETY: it replaces a part of the mapping above, which nothing uses yet.
            unsafe { mmap(address, len, protection, flags, &file, 0) }.unwrap();
        }
        mapping
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and its region is gone.
        unsafe { munmap(self.0.cast(), LONG.get()) }.unwrap();
    }
}

#[test]
fn a_long_range_is_registered_in_pieces() {
    let (_file, backend, dispatcher) = open();
    let mapping = Long::map();
    // SAFETY: the mapping is readable, writable and zeroed, and its owner unmaps it. Two leases
    // that have the same pages do not exist at the same time.
    let region = unsafe { Region::new(mapping.0, LONG.get(), mapping) }.unwrap();
    let Some(_registration) = if_allowed(region.register_with(backend, ..)) else { return };
    let lease = |at: usize| region.lease(at..at + 2 * BLOCK).unwrap();
    for at in [0, MAX_REGION - 2 * BLOCK, MAX_REGION, LONG.get() - 2 * BLOCK] {
        assert_eq!(both_ways(&dispatcher, lease(at), 1), REGISTERED, "at {at}");
    }
    let crossing = Moved { crossing_ops: 2, ..PLAIN };
    assert_eq!(both_ways(&dispatcher, lease(MAX_REGION - BLOCK), 2), crossing);
}
