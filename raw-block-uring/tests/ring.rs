//! Tests of this backend: system calls, registered memory, devices that shrink.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_core::{
    AlignedBuf, BufferPool, Direct, Dispatcher, DispatcherOptions, ErrorKind, OwnedTransfer,
    ReadAt, Ticket, WriteAt,
};
use raw_block_fixtures::{TempFile, temp_file};
use raw_block_uring::ring::{Linux, Ring, RingDevice, Standard};
use raw_block_uring::{GrantedFlags, UringBackend, UringOptions};

const LEN: u64 = 16 << 20;

fn open(options: DispatcherOptions) -> (TempFile, Arc<UringBackend>, Dispatcher) {
    let file = temp_file(LEN).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let dispatcher = Dispatcher::with_options(backend.clone(), options).unwrap();
    (file, backend, dispatcher)
}

/// Offsets that are not adjacent, so that nothing is merged.
fn apart(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| number * 8192)
}

#[test]
fn a_blocking_batch_that_fits_the_ring_is_one_system_call() {
    let (_file, _, dispatcher) = open(DispatcherOptions::new());
    let mut buffers: Vec<_> = (0..128).map(|_| AlignedBuf::zeroed(4096).unwrap()).collect();
    for count in [1, 2, 32, 128] {
        let before = dispatcher.stats().submissions;
        let writes: Vec<_> = apart(count)
            .zip(&buffers)
            .map(|(offset, buffer)| WriteAt::new(offset, buffer))
            .collect();
        dispatcher.write_buffers(&writes).all().unwrap();
        assert_eq!(dispatcher.stats().submissions - before, 1, "write of {count}");
        let mut reads: Vec<_> = apart(count)
            .zip(&mut buffers)
            .map(|(offset, buffer)| ReadAt::new(offset, buffer))
            .collect();
        dispatcher.read_buffers(&mut reads).all().unwrap();
        assert_eq!(dispatcher.stats().submissions - before, 2, "read of {count}");
    }
}

#[test]
fn a_batch_never_has_more_in_flight_than_the_ring_holds() {
    let (_file, _, dispatcher) = open(DispatcherOptions::new().queue_depth(8).max_queues(2));
    let buffers: Vec<_> = (0..200_u8)
        .map(|number| {
            let mut buffer = AlignedBuf::zeroed(4096).unwrap();
            buffer.fill(number);
            buffer
        })
        .collect();
    let writes: Vec<_> =
        apart(200).zip(&buffers).map(|(offset, buffer)| WriteAt::new(offset, buffer)).collect();
    dispatcher.write_buffers(&writes).all().unwrap();
    let stats = dispatcher.stats();
    assert!(stats.achieved_depth() <= 8.0, "{}", stats.achieved_depth());
    assert!((200 / 8..=100).contains(&stats.submissions), "{} submissions", stats.submissions);
    let mut found = AlignedBuf::zeroed(4096).unwrap();
    for (number, offset) in apart(200).enumerate() {
        dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut found)]).all().unwrap();
        assert_eq!(found[..], buffers[number][..]);
    }
}

#[test]
fn memory_of_a_registered_pool_is_used_as_registered_memory() {
    let (_file, backend, dispatcher) = open(DispatcherOptions::new());
    let pool = BufferPool::new(8192, 8).unwrap();
    let other = BufferPool::new(8192, 1).unwrap();
    let write = |pool: &BufferPool, offset| {
        let before = dispatcher.stats().registered_ops;
        let mut buffer = pool.take().unwrap();
        buffer.fill(u8::try_from(offset >> 16).unwrap());
        dispatcher.write_buffers(&[WriteAt::new(offset, &buffer)]).all().unwrap();
        // A slice inside a buffer qualifies too.
        let mut inner = pool.take().unwrap_or(buffer);
        dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut inner[4096..])]).all().unwrap();
        assert_eq!(inner[4096], u8::try_from(offset >> 16).unwrap());
        dispatcher.stats().registered_ops - before
    };
    assert_eq!(write(&pool, 1 << 16), 0, "before it is registered");
    let registration = pool.register_with(backend.clone()).unwrap();
    assert_eq!(write(&pool, 2 << 16), 2, "on a queue that was already open");
    assert_eq!(write(&other, 3 << 16), 0, "memory of another pool");
    let _other = other.register_with(backend).unwrap();
    assert_eq!(write(&other, 4 << 16), 2);
    assert_eq!(write(&pool, 5 << 16), 2, "the first one is still registered");
    drop(registration);
    assert_eq!(write(&pool, 6 << 16), 0, "no longer registered");
    assert_eq!(write(&other, 7 << 16), 2, "the other one is still registered");
}

#[test]
fn a_registered_pool_may_be_dropped_before_the_backend() {
    let (_file, backend, dispatcher) = open(DispatcherOptions::new());
    let pool = BufferPool::new(4096, 1).unwrap();
    let _registration = pool.register_with(backend).unwrap();
    drop(pool);
    let buffer = AlignedBuf::zeroed(4096).unwrap();
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    let pool = BufferPool::new(4096, 1).unwrap();
    let mut buffer = pool.take().unwrap();
    buffer.fill(3);
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    buffer.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer.iter().all(|&byte| byte == 3));
}

#[test]
fn a_file_that_shrank_ends_in_an_error_not_in_a_loop() {
    let (file, _, dispatcher) = open(DispatcherOptions::new());
    fs::File::options().write(true).open(file.path()).unwrap().set_len(6144).unwrap();
    let mut buffers = vec![vec![0; 8192]; 3];
    let mut reads: Vec<_> = [0, 4096, 8192]
        .into_iter()
        .zip(&mut buffers)
        .map(|(offset, buffer)| ReadAt::new(offset, &mut buffer[..4096]))
        .collect();
    let results = dispatcher.read_buffers(&mut reads);
    assert!(results[0].is_ok());
    for result in &results[1..] {
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::EndOfDevice);
    }
    assert_eq!(dispatcher.stats().errors(ErrorKind::EndOfDevice), 2);
}

#[test]
fn a_dropped_ticket_completes_and_closing_waits_for_it() {
    let (file, backend, dispatcher) = open(DispatcherOptions::new());
    let batch = apart(64)
        .map(|offset| {
            let mut buffer = AlignedBuf::zeroed(4096).unwrap();
            buffer.fill(9);
            OwnedTransfer::new(offset, buffer)
        })
        .collect();
    drop(dispatcher.batched_write(batch).unwrap());
    drop(dispatcher);
    drop(backend);
    // Free at once: nothing holds the device in the background.
    let backend = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut found = AlignedBuf::zeroed(4096).unwrap();
    for offset in apart(64) {
        dispatcher.read_buffers(&mut [ReadAt::new(offset, &mut found)]).all().unwrap();
        assert!(found.iter().all(|&byte| byte == 9));
    }
}

#[test]
fn zeroes_are_written_where_the_file_system_only_has_holes() {
    const BLOCK: usize = 512;
    // Linux keeps these files in memory. They have holes, but no FALLOC_FL_ZERO_RANGE.
    let file = match tempfile::NamedTempFile::new_in("/dev/shm") {
        Ok(file) => file,
        Err(error) => return Skipped::because(format!("/dev/shm is not there: {error}")).report(),
    };
    fs::write(file.path(), vec![9; 1 << 20]).unwrap();
    let options = UringOptions::new().direct(Direct::Off);
    let backend = UringBackend::open(file.path(), &options).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    // The second one is on a queue that has seen the error.
    dispatcher.write_zeroes(BLOCK as u64, 100 * BLOCK as u64).unwrap();
    dispatcher.write_zeroes(300 * BLOCK as u64, BLOCK as u64).unwrap();
    dispatcher.discard(200 * BLOCK as u64, BLOCK as u64).unwrap();
    drop(dispatcher);
    let found = fs::read(file.path()).unwrap();
    assert_eq!(found.len(), 1 << 20);
    let zeroes = [1..101, 200..201, 300..301];
    for (number, block) in found.chunks(BLOCK).enumerate() {
        let expected = if zeroes.iter().any(|zeroes| zeroes.contains(&number)) { 0 } else { 9 };
        assert!(block.iter().all(|&byte| byte == expected), "block {number}");
    }
}

#[test]
fn the_backend_reports_its_granted_flags() {
    let (_file, backend, _) = open(DispatcherOptions::new());
    let text = format!("{backend:?}");
    assert!(text.contains("granted_flags") && text.contains("CLAMP"), "{text}");
    assert!(text.contains("granted_local_flags"), "{text}");
    assert_eq!(backend.engine(), "uring");
    let names = |flags: GrantedFlags| flags.names().collect::<Vec<_>>();
    for flag in ["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN"] {
        assert!(
            !names(backend.granted_flags()).contains(&flag),
            "{flag}: any thread may use the queues"
        );
    }
    let is_local = names(backend.granted_local_flags()).contains(&"SINGLE_ISSUER");
    assert_eq!(backend.open_local_queue(1).unwrap().is_local(), is_local);
    assert!(!backend.open_queue(1).unwrap().is_local());
}

#[test]
fn a_ticket_completes_while_its_submitter_computes() {
    let (_file, _, dispatcher) = open(DispatcherOptions::new());
    let is_over = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            for ticket in receiver {
                let ticket: Ticket = ticket;
                let finished = ticket.wait();
                is_over.store(true, Ordering::Release);
                finished.into_iter().for_each(|finished| finished.result.unwrap());
            }
        });
        for _ in 0..20 {
            let batch = vec![OwnedTransfer::new(0, AlignedBuf::zeroed(4096).unwrap())];
            sender.send(dispatcher.batched_read(batch).unwrap()).unwrap();
            // No system call until the other thread has its results.
            while !is_over.swap(false, Ordering::Acquire) {
                hint::spin_loop();
            }
        }
        drop(sender);
    });
}

#[test]
fn the_device_is_free_once_another_thread_has_closed_it() {
    let (file, backend, dispatcher) = open(DispatcherOptions::new());
    // Both rings belong to threads that have ended.
    for _ in 0..2 {
        let write = || dispatcher.write_buffers(&[WriteAt::new(0, &[1; 4096])]).all().unwrap();
        thread::scope(|scope| scope.spawn(write).join().unwrap());
    }
    drop(dispatcher);
    drop(backend);
    let other = fs::File::open(file.path()).unwrap();
    other.try_lock().unwrap();
}

#[test]
fn a_file_stays_locked_when_ops_of_a_ring_are_leaked() {
    for leaks in [false, true] {
        let file = temp_file(4096).unwrap();
        // Keeps the file open, as the kernel does until the last op has completed.
        let kept = fs::File::open(file.path()).unwrap();
        kept.try_lock().unwrap();
        let device = RingDevice::new(kept.try_clone().unwrap(), "test", None).unwrap();
        let mut ring = Ring::<Standard, ()>::open(Arc::new(device), 1, Linux).unwrap();
        if leaks {
            ring.insert(()).unwrap();
        }
        drop(ring);
        let other = fs::File::open(file.path()).unwrap();
        assert_eq!(other.try_lock().is_err(), leaks, "leaks: {leaks}");
    }
}

#[test]
fn the_kernel_can_poll_for_submissions() {
    let file = temp_file(LEN).unwrap();
    let polling = |idle| UringOptions::new().kernel_polling(Some(idle));
    let backend = UringBackend::open(file.path(), &polling(Duration::from_millis(20))).unwrap();
    assert!(backend.granted_flags().names().any(|name| name == "SQPOLL"));
    assert!(format!("{backend:?}").contains("SQPOLL"), "{backend:?}");
    drop(backend);
    let plain = UringBackend::open(file.path(), &UringOptions::new()).unwrap();
    assert!(plain.granted_flags().names().all(|name| name != "SQPOLL"));
    drop(plain);

    for idle in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(1 << 40)] {
        let error = UringBackend::open(file.path(), &polling(idle)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("milliseconds"), "{error}");
    }
}
