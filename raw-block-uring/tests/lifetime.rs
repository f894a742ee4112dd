//! Memory that the kernel still writes to is not freed, whatever happens to a batch.
//!
//! Each test starts more reads into memory from the heap than the device can complete before
//! something happens to the batch. The allocator of this program keeps freed memory, and checks at
//! the end that nothing wrote to it.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod busy;
mod quarantine;

use std::cell::Cell;
use std::env;
use std::io::{Read, Write, pipe};
use std::mem;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio, exit};
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use busy::{
    Alone, Busy, PATIENCE, PanicsWhenReaped, batch, heap, is_mapped, offsets,
    panic_with_reads_in_flight, touched,
};
use io_uring::{IoUring, opcode, types};
use quarantine::{Damage, Quarantine};
use raw_block_core::{AlignedBuf, BufferPool, Dispatcher, Finished, ReadAt, Region};

#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

/// The file has hardly any zeroes, and the buffers had only zeroes.
fn assert_read(finished: &[Finished]) {
    for Finished { buffer, result, .. } in finished {
        assert!(result.is_ok(), "{result:?}");
        assert!(buffer.iter().any(|&byte| byte != 0), "nothing arrived");
    }
}

#[test]
fn a_dropped_ticket_frees_its_memory_after_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let (ticket, addresses) = busy.reads_in_flight();
    drop(ticket);
    busy.wait_for_tickets();
    assert!(addresses.iter().all(|&address| quarantine::keeps(address)), "freed, and kept here");
}

#[test]
fn a_forgotten_ticket_never_frees_its_memory() {
    let Some(mut busy) = Busy::new() else { return };
    let (ticket, addresses) = busy.reads_in_flight();
    mem::forget(ticket);
    busy.close();
    let filled = || {
        let last = |address| address + busy::READ - size_of::<u64>();
        let words =
            addresses.iter().map(|&address| ptr::with_exposed_provenance::<u64>(last(address)));
        // SAFETY: the buffers are never freed, and these are their last words. The kernel may be
        // writing to them, which a volatile read permits.
        words.filter(|word| unsafe { word.read_volatile() } != 0).count()
    };
    // Only a thread that waits for a short read submits the rest of it, so not all buffers become
    // full.
    let (first, end) = (filled(), Instant::now() + PATIENCE);
    while first < addresses.len() && filled() == first {
        assert!(Instant::now() < end, "no read completes after the first {first}");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!addresses.iter().any(|&address| quarantine::keeps(address)), "never freed");
}

#[test]
fn a_ticket_waited_for_elsewhere_keeps_its_memory_until_then() {
    let Some(busy) = Busy::new() else { return };
    let (ticket, addresses) = busy.reads_in_flight();
    let waiter = thread::spawn(move || {
        let finished = ticket.wait();
        assert_read(&finished);
        finished
    });
    let finished = waiter.join().unwrap();
    assert!(!addresses.iter().any(|&address| quarantine::keeps(address)), "the waiter has it");
    drop(finished);
}

#[test]
fn the_owner_of_leased_memory_frees_it_after_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let registration = Cell::new(None);
    let leases = || {
        let mut memory = AlignedBuf::zeroed(busy::READS * busy::READ).unwrap();
        memory.fill(0);
        let region = Region::owned(memory).unwrap();
        registration.set(region.register_with(busy.backend(), ..).ok());
        let lease = |n| region.lease(n * busy::READ..(n + 1) * busy::READ).unwrap();
        (0..busy::READS).map(lease).collect()
    };
    let (ticket, addresses) = busy.reads_in_flight_into(leases);
    drop(registration.take());
    let mut finished = ticket.wait();
    assert_read(&finished);
    finished.truncate(1);
    assert!(!quarantine::keeps(addresses[0]), "a lease is left");
    drop(finished);
    assert!(quarantine::keeps(addresses[0]), "freed, and kept here");
}

#[test]
fn a_ticket_outlives_the_thread_that_started_it() {
    let Some(busy) = Busy::new() else { return };
    let (ticket, _) = thread::scope(|scope| scope.spawn(|| busy.reads_in_flight()).join().unwrap());
    assert_read(&ticket.wait());
    let (ticket, _) = thread::scope(|scope| scope.spawn(|| busy.reads_in_flight()).join().unwrap());
    drop(ticket);
}

#[test]
fn a_panic_with_a_ticket_out_frees_memory_after_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let (_ticket, _) = busy.reads_in_flight();
        // A panic without a message.
        resume_unwind(Box::new(()));
    }));
    assert!(unwound.is_err());
}

#[test]
fn a_ticket_outlives_its_dispatcher_and_backend() {
    let Some(mut busy) = Busy::new() else { return };
    let (ticket, _) = busy.reads_in_flight();
    busy.close();
    assert_read(&ticket.wait());
}

#[test]
fn a_ticket_may_be_dropped_after_its_dispatcher_and_backend() {
    let Some(mut busy) = Busy::new() else { return };
    let (ticket, _) = busy.reads_in_flight();
    busy.close();
    drop(ticket);
}

#[test]
fn memory_may_be_freed_once_its_reads_have_completed() {
    let Some(busy) = Busy::new() else { return };
    let dispatcher = Dispatcher::with_options(busy.backend(), busy::OPTIONS).unwrap();
    let mut buffers = heap();
    let mut reads: Vec<_> =
        offsets().zip(&mut buffers).map(|(offset, buffer)| ReadAt::new(offset, buffer)).collect();
    let results = dispatcher.read_buffers(&mut reads);
    drop(buffers);
    results.all().unwrap();

    let (ticket, _) = busy.reads_in_flight();
    let finished = ticket.wait();
    let succeeded = finished.iter().all(|one| one.result.is_ok());
    drop(finished);
    assert!(succeeded);
}

/// The panic drops the lane, and its queue with all ops in flight.
#[test]
fn a_panic_inside_a_blocking_read_unwinds_after_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let backend = Arc::new(PanicsWhenReaped(busy.backend()));
    let dispatcher = Dispatcher::with_options(backend, busy::OPTIONS).unwrap();
    panic_with_reads_in_flight(|| {
        let mut buffers = heap();
        let mut reads: Vec<_> = offsets()
            .zip(&mut buffers)
            .map(|(offset, buffer)| ReadAt::new(offset, buffer))
            .collect();
        let _ = dispatcher.read_buffers(&mut reads);
    });
}

#[test]
fn a_panic_in_running_a_ticket_frees_memory_after_the_kernel() {
    let Some(busy) = Busy::new() else { return };
    let backend = Arc::new(PanicsWhenReaped(busy.backend()));
    let dispatcher = Dispatcher::with_options(backend, busy::OPTIONS).unwrap();
    for _ in 0..3 {
        let all = dispatcher.batched_read(batch(heap())).unwrap().wait();
        assert_eq!(all.len(), busy::READS);
        assert!(all.iter().any(|finished| finished.result.is_err()), "the backend panics");
    }
}

/// Arenas are mapped, so the allocator does not see them. This test checks whether they are still
/// mapped.
#[test]
fn an_arena_stays_mapped_while_the_kernel_writes_to_it() {
    let Some(mut busy) = Busy::new() else { return };
    let lent = || {
        let pool = BufferPool::new(busy::READ, busy::READS).unwrap();
        std::iter::from_fn(|| pool.take()).collect::<Vec<_>>()
    };
    // An arena that nothing uses is unmapped, unless another thread maps something in its place.
    let unmapped = (0..100).any(|_| {
        let address = lent()[0].as_ptr().addr();
        !is_mapped(address)
    });
    assert!(unmapped, "an arena that nothing uses stays mapped");

    let (ticket, addresses) = busy.reads_in_flight_into(|| touched(lent()));
    assert!(addresses.iter().all(|&address| is_mapped(address)));
    busy.close();
    assert!(addresses.iter().all(|&address| is_mapped(address)));
    let finished = ticket.wait();
    assert!(addresses.iter().all(|&address| is_mapped(address)));
    assert_read(&finished);
}

#[test]
fn a_process_may_exit_while_reads_are_in_flight() {
    const CHILD: &str = "RAW_BLOCK_EXIT_WITH_READS_UNDER_WAY";
    const NAME: &str = "a_process_may_exit_while_reads_are_in_flight";
    let Some(busy) = Busy::new() else { return };
    if env::var_os(CHILD).is_some() {
        let _both = [busy.reads_in_flight(), busy.reads_in_flight()];
        let _ = std::io::stdout().write_all(b"leaving\n");
        exit(0);
    }
    drop(busy);
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("still there after {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(status.success() && output.contains("leaving"), "{status}: {output}");
}

/// Shows that the tests above can fail: this one frees memory too early on purpose.
#[test]
fn memory_freed_before_the_kernel_wrote_to_it_is_noticed() {
    let _alone = Alone::new();
    let (reader, mut writer) = pipe().unwrap();
    let mut ring = IoUring::new(1).unwrap();
    let buffer = vec![0_u8; 3 * 4096];
    let start = buffer.as_ptr().expose_provenance();
    let to = ptr::with_exposed_provenance_mut(start + 5000);
    let read = opcode::Read::new(types::Fd(reader.as_raw_fd()), to, 16).build();
    // SAFETY: the memory is freed while the read is in flight, which is the fault under test. The
    // allocator of this program keeps freed memory allocated, and hands it out again only after
    // `empty` has released it, which is after the read.
    unsafe { ring.submission().push(&read) }.unwrap();
    ring.submit().unwrap();
    drop(buffer);
    quarantine::check();
    assert!(quarantine::keeps(start));
    writer.write_all(b"sixteen letters.").unwrap();
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), 16);

    let damage = Damage { start, len: 3 * 4096, offset: 5000, found: b's' };
    assert_eq!(quarantine::damage(), Some(damage));
    assert_eq!(quarantine::empty(), Some(damage));
    assert_eq!(quarantine::damage(), None);
}
