//! The driver: any number of tickets share one queue, and none of their calls waits for a transfer
//! unless it asks to.

#![allow(clippy::unwrap_used, reason = "tests panic to fail")]

mod fakes;
mod threaded;

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Instant;

use fakes::{until, within_seconds};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use raw_block_core::backend::{IoBackend, OpKind};
use raw_block_core::simulated::{DeviceFault, SimulatedDevice};
use raw_block_core::{
    AlignedBuf, Dispatcher, DispatcherOptions, Geometry, MemoryBackend, OwnedTransfer, Ticket,
    WakeFd,
};
use threaded::ThreadedBackend;

const BLOCK: usize = 512;

fn geometry() -> Geometry {
    Geometry::new(16 << 20, 512).unwrap()
}

fn transfer(block: usize) -> OwnedTransfer {
    // Two blocks apart, so that no two are merged.
    OwnedTransfer::new((2 * block * BLOCK) as u64, AlignedBuf::zeroed(BLOCK).unwrap())
}

fn read(device: &Dispatcher, block: usize) -> Ticket {
    device.batched_read(vec![transfer(block)]).unwrap()
}

fn write(device: &Dispatcher, block: usize) -> Ticket {
    device.batched_write(vec![transfer(block)]).unwrap()
}

fn all_succeeded(ticket: Ticket) -> usize {
    let finished = ticket.wait();
    finished.iter().for_each(|finished| finished.result.as_ref().copied().unwrap());
    finished.len()
}

fn with_depth(backend: Arc<dyn IoBackend>, depth: usize) -> Dispatcher {
    let options = DispatcherOptions::new().queue_depth(depth).max_queues(1);
    Dispatcher::with_options(backend, options).unwrap()
}

#[test]
fn a_thousand_tickets_share_one_queue() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        let backends: [Arc<dyn IoBackend>; 3] = [
            Arc::new(MemoryBackend::with_geometry(geometry())),
            Arc::new(ThreadedBackend::new(geometry())),
            simulated.backend(),
        ];
        for backend in backends {
            let device = with_depth(backend, 16);
            let tickets: Vec<_> = (0..1000)
                .map(
                    |block| {
                        if block % 3 == 0 { write(&device, block) } else { read(&device, block) }
                    },
                )
                .collect();
            assert_eq!(tickets.into_iter().map(all_succeeded).sum::<usize>(), 1000);
        }
    });
}

#[test]
fn a_long_batch_completes_without_calls_of_its_ticket() {
    within_seconds(|| {
        let device = with_depth(Arc::new(ThreadedBackend::new(geometry())), 16);
        let mut ticket = device.batched_read((0..8000).map(transfer).collect()).unwrap();
        let event = WakeFd::new().unwrap();
        let waker = event.waker();
        assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)).is_pending());
        let mut readable = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut readable, PollTimeout::from(60_000_u16)), Ok(1));
        assert_eq!(all_succeeded(ticket), 8000);
    });
}

#[test]
fn tickets_of_a_stalled_device_are_started_and_dropped() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        simulated.inject(DeviceFault::hold(OpKind::Write));
        let device = with_depth(simulated.backend(), 1);
        for block in 0..100 {
            drop(write(&device, block));
        }
        let mut kept = write(&device, 100);
        assert!(kept.try_wait().is_none());
        assert!(kept.wait_deadline(Instant::now()).is_none());
        simulated.clear_faults();
        assert_eq!(all_succeeded(kept), 1);
        until("the writes of dropped tickets are lost", || simulated.ops_so_far() == 101);
    });
}

#[test]
fn loads_pass_queued_stores() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        simulated.inject(DeviceFault::hold(OpKind::Write));
        let device = with_depth(simulated.backend(), 1);
        let first = write(&device, 0);
        until("no write was submitted", || device.stats().submissions > 0);
        let stores: Vec<_> = (1..100).map(|block| write(&device, block)).collect();
        let load = read(&device, 200);
        // The op that is held, and later ones of its kind, no more.
        simulated.clear_faults();
        simulated.inject(DeviceFault::hold(OpKind::Write).nth(8));
        assert_eq!(all_succeeded(load), 1, "the load waits for stores that were queued before it");
        simulated.clear_faults();
        assert_eq!(all_succeeded(first), 1);
        assert_eq!(stores.into_iter().map(all_succeeded).sum::<usize>(), 99);
    });
}

#[test]
fn a_ticket_completes_after_its_dispatcher_was_dropped() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        simulated.inject(DeviceFault::hold(OpKind::Write));
        let device = with_depth(simulated.backend(), 16);
        let ticket = write(&device, 0);
        drop(device);
        simulated.clear_faults();
        assert_eq!(all_succeeded(ticket), 1);
    });
}

#[test]
fn dropping_an_idle_dispatcher_releases_its_backend() {
    let backend: Arc<dyn IoBackend> = Arc::new(MemoryBackend::with_geometry(geometry()));
    for _ in 0..100 {
        let device = with_depth(Arc::clone(&backend), 16);
        assert_eq!(all_succeeded(read(&device, 0)), 1);
        drop(device);
        assert_eq!(Arc::strong_count(&backend), 1, "the thread of the driver still has it");
    }
}

/// Does this when it is woken.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let act = self.0.lock().unwrap().take();
        act.into_iter().for_each(|act| act());
    }
}

/// Polls a write on a held device, so that `act` runs when it has completed.
fn when_written(
    simulated: &SimulatedDevice,
    device: &Dispatcher,
    act: impl FnOnce() + Send + 'static,
) -> Ticket {
    simulated.inject(DeviceFault::hold(OpKind::Write));
    let mut ticket = write(device, 0);
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(act))))));
    assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)).is_pending());
    simulated.clear_faults();
    ticket
}

#[test]
fn a_waker_may_drop_the_dispatcher() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        let device = Arc::new(with_depth(simulated.backend(), 16));
        let (dropped, is_dropped) = mpsc::channel();
        let held = Arc::clone(&device);
        let ticket = when_written(&simulated, &device, move || {
            drop(held);
            dropped.send(()).unwrap();
        });
        drop(device);
        is_dropped.recv().unwrap();
        assert_eq!(all_succeeded(ticket), 1);
    });
}

#[test]
fn a_panic_of_a_waker_costs_no_other_ticket() {
    within_seconds(|| {
        let simulated = SimulatedDevice::new(geometry(), 1).unwrap();
        let device = with_depth(simulated.backend(), 16);
        for _ in 0..3 {
            let ticket = when_written(&simulated, &device, || panic!("as scripted"));
            assert_eq!(all_succeeded(ticket), 1);
            assert_eq!(all_succeeded(read(&device, 1)), 1);
        }
    });
}
