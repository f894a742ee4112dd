//! Tests of passthrough on NVMe namespaces in the virtual machine: commands, placement, faults.
#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../examples/identify.rs"]
#[allow(dead_code, reason = "only the program uses it")]
mod example;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use raw_block_core::backend::IoBackend;
use raw_block_core::conformance::Skipped;
use raw_block_core::{
    AlignedBuf, BufferPool, Dispatcher, DispatcherOptions, ErrorKind, ReadAt, WriteAt, WriteOptions,
};
use raw_block_fixtures::{NvmeNamespace, read_fault, write_fault};
use raw_block_nvme::{Advice, NvmeBackend, NvmeOptions, Status};

/// The namespace of a scenario; `None` outside of the virtual machine.
fn namespace(scenario: &str) -> Option<NvmeNamespace> {
    NvmeNamespace::find(scenario, 1).inspect_err(Skipped::report).ok()
}

fn open(path: &Path) -> Arc<NvmeBackend> {
    Arc::new(NvmeBackend::open(path, &NvmeOptions::new()).unwrap())
}

/// `count` buffers of `len` bytes, each full of its number.
fn buffers(count: u8, len: usize) -> Vec<AlignedBuf> {
    let numbered = |number| {
        let mut buffer = AlignedBuf::zeroed(len).unwrap();
        buffer.fill(number);
        buffer
    };
    (0..count).map(numbered).collect()
}

#[test]
fn the_example_prints_controller_and_namespace() {
    let Some(namespace) = namespace("plain-4096") else { return };
    let sheet = example::identify(namespace.generic()).unwrap().to_string();
    for line in [
        "controller\n",
        "  serial number               plain-4096\n",
        "  longest transfer (MDTS)     512 KiB\n",
        "  volatile write cache        yes\n",
        "namespace 1\n",
        "  blocks                      16384 of 4 KiB\n",
        "  alignment on the device     4 KiB\n",
    ] {
        assert!(sheet.contains(line), "no {line:?} in\n{sheet}");
    }
}

#[test]
fn all_commands_of_a_batch_keep_the_ring_full() {
    const DEPTH: usize = 32;
    let Some(namespace) = namespace("small-mdts") else { return };
    let options = DispatcherOptions::new().queue_depth(DEPTH);
    let dispatcher = Dispatcher::with_options(open(namespace.generic()), options).unwrap();
    assert_eq!(dispatcher.geometry().max_transfer, 64 << 10);
    let mut buffers = buffers(16, 256 << 10);
    // Not adjacent, so that nothing is merged.
    let places = || (0..).step_by(512 << 10);
    let before = dispatcher.stats();
    let writes: Vec<_> =
        places().zip(&buffers).map(|(offset, buffer)| WriteAt::new(offset, buffer)).collect();
    dispatcher.write_buffers(&writes).all().unwrap();
    let mut reads: Vec<_> =
        places().zip(&mut buffers).map(|(offset, buffer)| ReadAt::new(offset, buffer)).collect();
    dispatcher.read_buffers(&mut reads).all().unwrap();
    let stats = dispatcher.stats();
    for (number, buffer) in (0..).zip(&buffers) {
        assert!(buffer.iter().all(|&byte| byte == number), "buffer {number}");
    }
    assert_eq!(stats.ops - before.ops, 32);
    assert_eq!(stats.commands - before.commands, 32 * 4, "256 KiB are four commands");
    // The ring is refilled when some commands have completed, so it is almost full at each system
    // call except the last ones. With one op at a time, the depth would be 4.
    let depth = stats.depth_at_submission();
    assert!((0.75 * DEPTH as f64..=DEPTH as f64).contains(&depth), "{depth} commands in flight");
}

#[test]
fn header_and_payload_share_a_command_where_pages_allow_it() {
    let Some(namespace) = namespace("plain-512") else { return };
    let dispatcher = Dispatcher::new(open(namespace.generic())).unwrap();
    let (header, payload) = (&buffers(2, 4096)[1], &buffers(4, 64 << 10)[3]);
    let commands = |header: &[u8]| {
        let before = dispatcher.stats();
        dispatcher.write_buffers(&[WriteAt::gather(4096, [header, payload])]).all().unwrap();
        let after = dispatcher.stats();
        assert_eq!(after.staged_bytes, before.staged_bytes, "nothing is copied");
        let mut found = vec![0; header.len() + payload.len()];
        dispatcher.read_buffers(&mut [ReadAt::new(4096, &mut found)]).all().unwrap();
        assert!(found == [header, payload].concat());
        after.commands - before.commands
    };
    assert_eq!(commands(header), 1, "a whole page, and what follows from other memory");
    assert_eq!(commands(&header[3584..]), 1, "the end of a page, and what follows");
    // The controller cannot skip the rest of a page.
    assert_eq!(commands(&header[..512]), 2, "a gap inside a page");
}

#[test]
fn registered_memory_is_used_by_passthrough_too() {
    let Some(namespace) = namespace("plain-4096") else { return };
    let backend = open(namespace.generic());
    let dispatcher = Dispatcher::new(backend.clone()).unwrap();
    let pool = BufferPool::new(64 << 10, 4).unwrap();
    let _registration = pool.register_with(backend.clone()).unwrap();
    let (mut one, mut two) = (pool.take().unwrap(), pool.take().unwrap());
    one.fill(1);
    two.fill(2);
    let before = dispatcher.stats();
    dispatcher.write_buffers(&[WriteAt::new(0, &one), WriteAt::new(1 << 20, &two)]).all().unwrap();
    assert_eq!(dispatcher.stats().registered_ops - before.registered_ops, 2);
    // A list of segments uses it from Linux 6.15 on, and works without it before.
    dispatcher.write_buffers(&[WriteAt::gather(4 << 20, [&one[..4096], &two])]).all().unwrap();
    let read = ReadAt::scatter(4 << 20, [&mut two[..4096], &mut one[..]]);
    dispatcher.read_buffers(&mut [read]).all().unwrap();
    assert!(one.iter().all(|&byte| byte == 2));
    assert!(two[..4096].iter().all(|&byte| byte == 1));
}

#[test]
fn blocking_calls_use_local_queues_that_other_threads_cannot() {
    let Some(namespace) = namespace("plain-512") else { return };
    let backend = open(namespace.generic());
    assert!(backend.open_local_queue(4).unwrap().is_local());
    assert!(!backend.open_queue(4).unwrap().is_local());
}

#[test]
fn a_polling_queue_discards_zeroes_and_flushes() {
    let Some(namespace) = namespace("plain-512") else { return };
    let options = NvmeOptions::new().completion_polling(true);
    let backend = NvmeBackend::open(namespace.generic(), &options).unwrap();
    let dispatcher = Dispatcher::new(Arc::new(backend)).unwrap();
    let buffer = &buffers(6, 64 << 10)[5];
    dispatcher.write_buffers(&[WriteAt::new(0, buffer)]).all().unwrap();
    dispatcher.discard(0, 8192).unwrap();
    dispatcher.write_zeroes(8192, 8192).unwrap();
    dispatcher.flush().unwrap();
    let mut found = vec![1; 64 << 10];
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut found)]).all().unwrap();
    assert!(found[8192..16384].iter().all(|&byte| byte == 0));
    assert!(found[16384..] == buffer[16384..]);
}

#[test]
fn a_discard_of_the_whole_namespace_is_one_command() {
    let Some(namespace) = namespace("mapped") else { return };
    let dispatcher = Dispatcher::new(open(namespace.generic())).unwrap();
    let before = dispatcher.stats().commands;
    dispatcher.discard(0, dispatcher.geometry().capacity).unwrap();
    assert_eq!(dispatcher.stats().commands - before, 1);
}

#[test]
fn a_bad_range_is_reported_with_its_status_and_command() {
    let Some(namespace) = namespace("faulty") else { return };
    let dispatcher = Dispatcher::new(open(namespace.generic())).unwrap();
    let most = dispatcher.geometry().max_transfer;
    let mut buffer = AlignedBuf::zeroed(1 << 20).unwrap();
    let len = buffer.len() as u64;
    let check = |error: raw_block_core::Error, place: u64, name: &str| {
        assert_eq!(error.kind(), ErrorKind::Media, "{error}");
        let status = Status::of(&error).unwrap();
        assert_eq!((status.name(), status.advice()), (name, Advice::Medium), "{error}");
        let (offset, len) = error.offset().zip(error.length()).unwrap();
        assert!(len <= most && (offset..offset + len).contains(&place), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    let at = read_fault() - len / 2;
    let error = dispatcher.read_buffers(&mut [ReadAt::new(at, &mut buffer)]).all().unwrap_err();
    check(error, read_fault(), "Unrecovered Read Error");
    let at = write_fault() - len / 2;
    let error = dispatcher.write_buffers(&[WriteAt::new(at, &buffer)]).all().unwrap_err();
    check(error, write_fault(), "Write Fault");
    // No other range is affected.
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
}

#[test]
fn writes_go_to_the_placement_identifier_that_they_name() {
    let Some(namespace) = namespace("fdp") else { return };
    let left = || {
        let backend = open(namespace.generic());
        backend.reclaim_unit_handles().iter().map(|handle| handle.blocks_left).collect::<Vec<_>>()
    };
    let write = |options| {
        let dispatcher = Dispatcher::new(open(namespace.generic())).unwrap();
        let buffer = AlignedBuf::zeroed(16 << 10).unwrap();
        dispatcher.write_buffers(&[WriteAt::new(0, &buffer).with_options(options)]).all()
    };
    let backend = open(namespace.generic());
    assert!(backend.controller().data_placement);
    assert_eq!(
        (backend.reclaim_unit_handles().len(), backend.geometry().placement_handles),
        (4, 4)
    );
    let identifiers = [0, 1, 2, 3];
    let ids: Vec<_> =
        backend.reclaim_unit_handles().iter().map(|handle| handle.placement_id).collect();
    assert_eq!(ids, identifiers);
    drop(backend);
    let placement_of = |identifier| open(namespace.generic()).placement_of(identifier);
    let placed = |handle| WriteOptions::new().placement(handle);
    // 16 KiB are 4 blocks of 4096 bytes.
    for (index, identifier) in identifiers.into_iter().enumerate() {
        let before = left();
        write(WriteOptions::new().placement(placement_of(identifier))).unwrap();
        let mut expected = before;
        expected[index] -= 4;
        assert_eq!(left(), expected, "with placement identifier {identifier}");
    }
    assert_eq!(placement_of(4), None);
    let refused = write(placed(4)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("the device has 0 to 3"), "{refused}");
    // Without a handle, the device chooses.
    write(WriteOptions::new().durable(true)).unwrap();
}

#[test]
fn a_device_that_vanishes_fails_ops_in_flight_and_hangs_none() {
    let Some(namespace) = namespace("vanishing") else { return };
    let name = namespace.block().file_name().unwrap().to_str().unwrap();
    // The controller; with multipath, the parent is a subsystem.
    let serial = |path: &Path| fs::read_to_string(path.join("serial")).unwrap_or_default();
    let mut controllers =
        fs::read_dir("/sys/class/nvme").unwrap().map(|entry| entry.unwrap().path());
    let controller = controllers.find(|path| serial(path).trim() == "vanishing").unwrap();
    let dispatcher = Dispatcher::new(open(namespace.generic())).unwrap();
    let remove = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_millis(300));
        fs::write(controller.join("device/remove"), "1").unwrap();
    });
    let mut buffers = buffers(32, 64 << 10);
    let error = loop {
        let mut reads: Vec<_> = (0..)
            .step_by(1 << 20)
            .zip(&mut buffers)
            .map(|(offset, buffer)| ReadAt::new(offset, buffer))
            .collect();
        if let Err(error) = dispatcher.read_buffers(&mut reads).all() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error}");
    let buffer = &buffers[0];
    let error = dispatcher.write_buffers(&[WriteAt::new(0, buffer)]).all().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceGone, "{error}");
    // The kernel removes the namespace when its block device is no longer held.
    drop(dispatcher);
    remove.join().unwrap();
    assert!(!Path::new("/sys/block").join(name).exists());
}
