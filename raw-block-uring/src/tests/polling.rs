//! The kernel's polling thread (`SQPOLL`): when it is woken by a system call.

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use io_uring::opcode;
use raw_block_core::{AlignedBuf, OwnedTransfer, ReadAt};
use raw_block_fixtures::temp_file;

use super::failures::{BLOCK, Stage};
use super::scripted::{OnEnter, Scripted};
use super::wrapped::{self, Usage};
use crate::ring::{Lookup, Ring, RingDevice, Standard};

#[test]
fn an_awake_polling_thread_needs_no_system_call() {
    let stage = Stage::with(Some(Duration::from_secs(60)));
    let device = wrapped::dispatcher(stage.dispatcher.backend(), Usage::ReapedWithoutWaiting);
    let mut buffers: Vec<_> = (0..4).map(|_| AlignedBuf::zeroed(BLOCK).unwrap()).collect();
    // It may sleep until the first entry.
    for round in 0..20 {
        let mut reads: Vec<_> = (0..)
            .zip(&mut buffers)
            .map(|(number, buffer)| ReadAt::new(number * 8192, buffer))
            .collect();
        device.read_buffers(&mut reads).all().unwrap();
        let calls = std::mem::take(&mut stage.script.lock().unwrap().calls);
        assert!(calls == 0 || round == 0, "{calls} calls in round {round}");
    }
    assert_eq!(stage.dispatcher.stats().commands, 80);
}

#[test]
fn entries_completed_before_a_system_call_are_counted() {
    let stage = Stage::with(Some(Duration::from_secs(60)));
    stage.script.lock().unwrap().pause = Duration::from_millis(5);
    for round in 1..=10 {
        let batch = (0..2)
            .map(|number| OwnedTransfer::new(number * 8192, AlignedBuf::zeroed(BLOCK).unwrap()))
            .collect();
        let finished = stage.dispatcher.batched_read(batch).unwrap().wait();
        assert!(finished.iter().all(|finished| finished.result.is_ok()), "{finished:?}");
        assert_eq!(stage.dispatcher.stats().commands, 2 * round);
    }
}

#[test]
fn an_entry_is_submitted_once_the_thread_is_awake() {
    let file = temp_file(BLOCK as u64).unwrap();
    let kernel = Scripted::default();
    let script = Arc::clone(&kernel.0);
    let idle = Some(Duration::from_millis(1));
    let device = RingDevice::new(File::open(file.path()).unwrap(), "a file", idle).unwrap();
    let mut ring = Ring::<Standard, (), _>::open(Arc::new(device), 1, kernel).unwrap();
    for round in 0..20 {
        let slot = ring.insert(()).unwrap();
        // SAFETY: the entry names no memory.
        unsafe { ring.push(slot, opcode::Nop::new().build(), Lookup::Plain) };
        assert!(!ring.is_submitted(), "the thread may be asleep");
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        script.lock().unwrap().enters = [OnEnter::Fail(libc::EINTR)].into();
        while !ring.is_submitted() {
            ring.enter(0, None);
        }
        script.lock().unwrap().enters.clear();
        // Now the completion arrives without another call.
        while ring.take_completion().is_none() {
            thread::yield_now();
        }
        ring.remove(slot);
    }
}
