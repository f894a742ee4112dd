//! Regions: memory of another owner, and exclusive leases of its parts.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::num::NonZeroUsize;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use raw_block_core::{
    AlignedBuf, Dispatcher, ErrorKind, Lease, MemoryBackend, OwnedTransfer, Region,
};

fn region(len: usize) -> Region {
    Region::owned(AlignedBuf::zeroed(len).unwrap()).unwrap()
}

/// An owner that counts its drops.
struct Owner {
    start: NonNull<u8>,
    len: NonZeroUsize,
    dropped: Arc<AtomicUsize>,
}

// SAFETY: the mapping is valid in any thread.
unsafe impl Send for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and the region and its leases are gone.
        unsafe { munmap(self.start.cast(), self.len.get()) }.unwrap();
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A shared mapping, and how often its owner was dropped.
fn shared_mapping(len: usize) -> (Region, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let len = NonZeroUsize::new(len).unwrap();
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: no address is requested, so the new mapping replaces nothing.
    let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_SHARED) };
    let start = start.unwrap().cast();
    let owner = Owner { start, len, dropped: Arc::clone(&dropped) };
    // SAFETY: the mapping is zeroed and writable, its owner unmaps it when it is dropped, and
    // nothing else accesses it.
    (unsafe { Region::new(start, len.get(), owner) }.unwrap(), dropped)
}

#[test]
fn leases_that_overlap_are_refused() {
    let region = region(100);
    let kept = region.lease(20..40).unwrap();
    for range in [20..40, 0..21, 39..40, 39..100, 25..30, 0..100, 20..21, 19..41] {
        let error = region.lease(range.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overlap, "{range:?}");
        let text = error.to_string();
        assert!(text.contains("20..40") && text.contains(&format!("{range:?}")), "{text}");
    }
    let neighbours = [region.lease(..20).unwrap(), region.lease(40..).unwrap()];
    assert_eq!(region.leases(), 3);
    assert_eq!(region.lease(..).unwrap_err().kind(), ErrorKind::Overlap);
    drop((kept, neighbours));
    assert_eq!(region.leases(), 0);
    assert_eq!(region.lease(..).unwrap().range(), 0..100);
}

#[test]
fn leases_of_one_region_have_different_bytes() {
    let region = region(1000);
    let mut leases: Vec<_> = (0..10).map(|n| region.lease(n * 100..(n + 1) * 100)).collect();
    for (byte, lease) in (0..).zip(&mut leases) {
        lease.as_mut().unwrap().fill(byte);
    }
    leases.clear();
    let all = region.lease(..).unwrap();
    assert!(all.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at / 100));
}

#[test]
fn ranges_that_are_no_lease_are_refused() {
    let region = region(100);
    let refuse = |range: (Bound<usize>, Bound<usize>), kind| {
        let error = region.lease(range).unwrap_err();
        assert_eq!(error.kind(), kind, "{range:?}: {error}");
    };
    for start in [0, 50, 100] {
        refuse((Included(start), Excluded(start)), ErrorKind::InvalidInput);
    }
    refuse((Included(60), Excluded(50)), ErrorKind::InvalidInput);
    for end in [Excluded(101), Included(100), Excluded(usize::MAX), Included(usize::MAX)] {
        refuse((Included(0), end), ErrorKind::OutOfRange);
    }
    for start in [Included(101), Included(usize::MAX), Excluded(usize::MAX)] {
        refuse((start, Unbounded), ErrorKind::OutOfRange);
    }
    let text = region.lease(90..110).unwrap_err().to_string();
    assert!(text.contains("90..110") && text.contains("100 bytes"), "{text}");
    assert_eq!(region.leases(), 0);
    assert_eq!(region.lease((Excluded(0), Included(99))).unwrap().range(), 1..100);
}

#[test]
fn memory_that_no_process_can_have_is_no_region() {
    let last = NonNull::new(std::ptr::without_provenance_mut(usize::MAX)).unwrap();
    let one = NonNull::<u8>::dangling();
    for (start, len) in [(one, 0), (last, 1), (last, usize::MAX), (one, 1 << 63)] {
        let dropped = Arc::new(());
        // SAFETY: no region is made.
        let error = unsafe { Region::new(start, len, Arc::clone(&dropped)) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{len} bytes at {start:p}");
        assert_eq!(Arc::strong_count(&dropped), 1);
    }
    assert!(Region::owned(AlignedBuf::default()).is_err());
}

#[test]
fn the_owner_is_dropped_with_the_last_lease() {
    let (region, dropped) = shared_mapping(4096);
    let mut leases = vec![region.lease(..1000).unwrap(), region.lease(2000..).unwrap()];
    drop(region);
    leases[1].fill(7);
    drop(leases.swap_remove(0));
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    let region = leases[0].region();
    assert!(leases.pop().unwrap().iter().all(|&byte| byte == 7));
    assert_eq!((region.leases(), dropped.load(Ordering::Relaxed)), (0, 0));
    drop(region);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_lease_in_flight_keeps_the_owner() {
    let device = Dispatcher::new(Arc::new(MemoryBackend::new(1 << 20).unwrap())).unwrap();
    let (region, dropped) = shared_mapping(8192);
    let batch = vec![OwnedTransfer::new(0, region.lease(1..4097).unwrap())];
    let ticket = device.batched_read(batch).unwrap();
    assert_eq!(region.lease(4096..4097).unwrap_err().kind(), ErrorKind::Overlap);
    drop(region);
    let mut all = ticket.wait();
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    let finished = all.pop().unwrap();
    finished.result.unwrap();
    let lease = Lease::try_from(finished.buffer).unwrap();
    assert_eq!(lease.range(), 1..4097);
    drop(lease);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn of_threads_that_race_for_a_lease_one_gets_it() {
    const THREADS: usize = 4;
    let region = region(4096);
    let barrier = Barrier::new(THREADS);
    let race = |thread: usize| {
        let mut won = 0;
        for round in 0..500 {
            barrier.wait();
            // Different ranges, each of which has the middle.
            let lease = region.lease(thread..2048 + (thread + round) % 100);
            barrier.wait();
            if let Ok(mut lease) = lease {
                lease.fill(1);
                won += 1;
            }
            barrier.wait();
        }
        won
    };
    let won: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || race(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((won, region.leases()), (500, 0));
}

#[test]
fn leases_in_any_order_agree_with_a_list_of_them() {
    const LEN: usize = 64;
    let region = region(LEN);
    let mut kept: Vec<Lease> = Vec::new();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let (mut leased, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let start = random(LEN);
        let range = start..start + 1 + random(8).min(LEN - start - 1);
        let free = kept.iter().all(|lease| {
            let other = lease.range();
            other.end <= range.start || range.end <= other.start
        });
        match region.lease(range.clone()) {
            Ok(lease) => {
                assert!(free, "{range:?} overlaps one of {kept:?}");
                kept.push(lease);
                leased += 1;
            }
            Err(error) => {
                assert!(!free, "{range:?}: {error}");
                drop(kept.swap_remove(random(kept.len())));
                refused += 1;
            }
        }
        assert_eq!(region.leases(), kept.len());
    }
    assert!(leased > 1000 && refused > 1000, "{leased} and {refused}");
}

#[test]
fn a_lease_may_be_dropped_by_another_thread() {
    let (region, dropped) = shared_mapping(4096);
    let lease = region.lease(..).unwrap();
    drop(region);
    thread::spawn(move || drop(lease)).join().unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_region_has_as_many_leases_as_bytes() {
    // In an order that is neither ascending nor descending. A scan would take minutes.
    const BYTES: usize = 1 << 18;
    let region = region(BYTES);
    let place = |n: usize| n * 48_271 % BYTES;
    let mut leases: Vec<_> =
        (0..BYTES).map(|n| region.lease(place(n)..=place(n)).unwrap()).collect();
    assert_eq!(region.leases(), BYTES);
    let text = region.lease(777..779).unwrap_err().to_string();
    assert!(text.contains("777..779") && text.contains("778..779"), "{text}");
    leases.retain(|lease| !(1000..2000).contains(&lease.range().start));
    assert_eq!(region.lease(1000..2000).unwrap().len(), 1000);
}
