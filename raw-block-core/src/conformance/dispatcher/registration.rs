//! Registered memory is faster, or not there: the bytes are the same.

use std::sync::Arc;

use super::tickets::wait_for_all;
use super::{assert_holds, fill};
use crate::conformance::Subject;
use crate::conformance::bytes::{assert_same, pattern};
use crate::{
    AlignedBuf, BufferPool, Error, ErrorKind, OwnedTransfer, ReadAt, Region, Registration, WriteAt,
};

/// Registers a pool, if the backend has such a thing.
fn register(subject: &Subject, pool: &BufferPool) -> Option<Registration> {
    if_there_is_such(pool.register_with(Arc::clone(&subject.backend)))
}

/// The registration, unless the backend or the machine has no registered memory.
fn if_there_is_such(registered: Result<Registration, Error>) -> Option<Registration> {
    let refused = match registered {
        Ok(registration) => return Some(registration),
        Err(error) => error,
    };
    let kind = refused.kind();
    assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::OutOfResources), "{refused}");
    None
}

pub(crate) fn memory_serves_when_its_registration_has_ended(subject: &Subject) {
    let device = subject.dispatcher();
    let backend = Arc::strong_count(&subject.backend);
    let bytes = pattern(820, subject.block());
    for round in 0..3 {
        let pool = BufferPool::new(subject.block(), 1).unwrap();
        let registrations = [(); 2].map(|()| register(subject, &pool));
        assert_eq!(Arc::strong_count(&subject.backend), backend, "it keeps no device open");
        let mut buffer = pool.take().unwrap();
        for registration in registrations {
            buffer.copy_from_slice(&bytes);
            device.write_buffers(&[WriteAt::new(subject.at(round), &buffer)]).all().unwrap();
            buffer.fill(0xEE);
            drop(registration);
            device.read_buffers(&mut [ReadAt::new(subject.at(round), &mut buffer)]).all().unwrap();
            assert_same(&buffer, &bytes, "read when a registration has ended");
        }
        // The next pool is likely to have the same addresses.
    }
}

pub(crate) fn registered_memory_and_other_memory_serve_alike(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    // A queue that is open already serves from registered memory as well, or does without.
    fill(&device, 0, &pattern(800, block));
    let pool = BufferPool::new(3 * block, 4).unwrap();
    let _registration = register(subject, &pool);
    for round in 0..3 {
        let bytes = pattern(801 + round, 9 * block);
        let (mut registered, mut other) = (pool.take().unwrap(), pool.take().unwrap());
        registered.copy_from_slice(&bytes[..3 * block]);
        other.copy_from_slice(&bytes[6 * block..]);
        let mixed: [&[u8]; 3] = [&registered, &bytes[3 * block..6 * block], &other];
        device.write_buffers(&[WriteAt::gather(0, mixed)]).all().unwrap();
        assert_holds(&device, 0, &bytes, "written from registered and other memory");

        registered.fill(0xEE);
        other.fill(0xEE);
        let mut plain = vec![0xEE; 3 * block];
        let read = ReadAt::scatter(0, [&mut other[..], &mut registered[..], &mut plain[..]]);
        device.read_buffers(&mut [read]).all().unwrap();
        assert_same(&[&other[..], &registered, &plain].concat(), &bytes, "read into both");
        let part = ReadAt::new(subject.at(1), &mut registered[..block]);
        device.read_buffers(&mut [part]).all().unwrap();
        assert_same(&registered[..block], &bytes[block..2 * block], "read into a part");
    }
}

pub(crate) fn a_buffer_of_a_registered_pool_comes_back_from_a_ticket(subject: &Subject) {
    let device = subject.dispatcher();
    let pool = BufferPool::new(2 * subject.block(), 3).unwrap();
    // Without registration the same holds.
    let _registration = register(subject, &pool);
    let bytes = pattern(810, pool.buffer_len());
    fill(&device, 0, &bytes);
    let batch = (0..3).map(|_| OwnedTransfer::new(0, pool.take().unwrap())).collect();
    let ticket = device.batched_read(batch).unwrap();
    assert_eq!(pool.available(), 0);
    for finished in ticket.wait() {
        finished.result.unwrap();
        assert_same(&finished.buffer, &bytes, "a buffer of the pool");
    }
    assert_eq!(pool.available(), 3);

    let batch = (0..3).map(|n| OwnedTransfer::new(subject.at(2 * n), pool.take().unwrap()));
    drop(device.batched_write(batch.collect()).unwrap());
    wait_for_all(&device);
    assert_eq!(pool.available(), 3, "a dropped ticket gives its buffers back");
}

pub(crate) fn a_registration_of_leased_memory_may_end_at_any_time(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let bytes = pattern(830, block);
    for round in 0..4 {
        // Half of the region is registered.
        let region = Region::owned(AlignedBuf::zeroed(8 * block).unwrap()).unwrap();
        let half = || region.register_with(Arc::clone(&subject.backend), ..4 * block);
        let mut registration = if_there_is_such(half());
        let leases = (0..8).map(|n| {
            let mut lease = region.lease(n * block..(n + 1) * block).unwrap();
            lease.copy_from_slice(&bytes);
            OwnedTransfer::new(subject.at(2 * n), lease)
        });
        let mut batch: Vec<_> = leases.collect();
        let mut may_end = |at| drop(registration.take_if(|_| round == at));
        may_end(0);
        let ticket = device.batched_write(batch).unwrap();
        may_end(1);
        batch = Vec::new();
        for (n, mut written) in ticket.wait().into_iter().enumerate() {
            written.result.unwrap();
            written.buffer.as_mut_slice().unwrap().fill(0xEE);
            batch.push(OwnedTransfer::new(subject.at(2 * n), written.buffer));
        }
        let ticket = device.batched_read(batch).unwrap();
        may_end(2);
        for read in ticket.wait() {
            read.result.unwrap();
            assert_same(&read.buffer, &bytes, "read into a lease");
        }
        assert_eq!(region.leases(), 0);
    }
}
