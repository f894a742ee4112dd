//! A forked child shares neither rings nor threads with its parent. Alone in its file, because a
//! process should fork while no other thread holds a lock.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use raw_block_core::{
    AlignedBuf, BufferPool, Dispatcher, DispatcherOptions, ErrorKind, OwnedTransfer, ReadAt,
    WriteAt,
};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// New memory of many sizes, each allocation filled with its own byte. It gets addresses that the
/// parent has mapped and the child has not.
struct Memory {
    /// Mappings, from one page on.
    mapped: Vec<AlignedBuf>,
    /// Allocations that the allocator maps directly.
    allocated: Vec<Vec<u8>>,
}

impl Memory {
    fn new() -> Self {
        let sizes = [4 << 20, 1 << 20, 256 << 10, 132 << 10, 64 << 10, 16 << 10, 8 << 10, 4 << 10];
        let map = |len| BufferPool::new(len, 1).unwrap().take().unwrap();
        let mut memory = Self {
            mapped: sizes.iter().flat_map(|&len| (0..16).map(move |_| map(len))).collect(),
            allocated: sizes.iter().flat_map(|&len| (0..8).map(move |_| vec![0; len])).collect(),
        };
        for (number, piece) in memory.pieces_mut() {
            piece.fill(number);
        }
        memory
    }

    fn pieces_mut(&mut self) -> impl Iterator<Item = (u8, &mut [u8])> {
        let mapped = self.mapped.iter_mut().map(|piece| &mut piece[..]);
        let allocated = self.allocated.iter_mut().map(|piece| &mut piece[..]);
        (1..).zip(mapped.chain(allocated))
    }

    /// Whether all of it is mapped, can be written to, and is unchanged.
    fn is_intact(&mut self) -> bool {
        self.pieces_mut().all(|(number, piece)| {
            piece.iter_mut().all(|byte| std::mem::replace(byte, !number) == number)
        })
    }
}

#[test]
fn a_forked_child_gets_an_error_and_can_drop_everything() {
    let file = temp_file(1 << 20).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let pool = BufferPool::new(256 << 10, 4).unwrap();
    let registration = pool.register_with(backend.clone()).unwrap();
    // Deep, so that the memory of a ring is large.
    let options = DispatcherOptions::new().queue_depth(4096).max_queues(4);
    let dispatcher = Dispatcher::with_options(backend.clone(), options).unwrap();
    let mut lent = pool.take().unwrap();
    lent.fill(1);
    dispatcher.write_buffers(&[WriteAt::new(512 << 10, &lent)]).all().unwrap();
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    buffer.fill(1);
    dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    let pending = AlignedBuf::zeroed(4096).unwrap();
    let pending = dispatcher.batched_write(vec![OwnedTransfer::new(16384, pending)]).unwrap();
    let owned = OwnedTransfer::new(8192, AlignedBuf::zeroed(4096).unwrap());

    // SAFETY: the child runs only code that uses no lock which another thread of this process may
    // have held: this is the only test of the process.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let forked = |error: &raw_block_core::Error| error.kind() == ErrorKind::Forked;
            let mut memory = Memory::new();
            let blocking = dispatcher.write_buffers(&[WriteAt::new(0, &buffer)]);
            let ticket = dispatcher.batched_write(vec![owned]);
            let own = BufferPool::new(4096, 1).unwrap().register_with(backend.clone());
            let pending = pending.wait();
            let right = pending[0].result.as_ref().is_err_and(forked)
                && blocking[0].as_ref().is_err_and(forked)
                && own.is_err_and(|error| forked(&error))
                && ticket.is_err_and(|refused| forked(&refused.error));
            drop(dispatcher);
            drop(backend);
            drop(lent);
            drop(registration);
            drop(pool);
            std::process::exit(i32::from(!right || !memory.is_intact()));
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    assert!(pending.wait()[0].result.is_ok());
    // The parent continues unaffected, and still holds the lock.
    let second = UringBackend::open(file.path(), &UringOptions::new()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Busy);
    buffer.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer.iter().all(|&byte| byte == 1));
    let registered = dispatcher.stats().registered_ops;
    lent.fill(0);
    dispatcher.read_buffers(&mut [ReadAt::new(512 << 10, &mut lent)]).all().unwrap();
    assert!(lent.iter().all(|&byte| byte == 1));
    assert!(dispatcher.stats().registered_ops > registered);
}
