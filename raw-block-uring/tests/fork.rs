//! A forked child shares neither rings nor threads with its parent. Alone in its file, because forking is
//! for processes in which little else goes on.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use raw_block_core::{AlignedBuf, Dispatcher, ErrorKind, OwnedTransfer, ReadAt, WriteAt};
use raw_block_uring::{UringBackend, UringOptions};

#[test]
fn a_forked_child_gets_an_error_and_can_drop_everything() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let backend = UringBackend::open(file.path(), &UringOptions::default()).unwrap();
    let device = Dispatcher::new(Arc::new(backend)).unwrap();
    let mut buffer = AlignedBuf::zeroed(4096).unwrap();
    buffer.fill(1);
    device.write_buffers(&[WriteAt::new(0, &buffer)]).all().unwrap();
    let pending = AlignedBuf::zeroed(4096).unwrap();
    let pending = device.batched_write(vec![OwnedTransfer::new(16384, pending)]).unwrap();
    let owned = OwnedTransfer::new(8192, AlignedBuf::zeroed(4096).unwrap());

    // SAFETY: the child runs only code that uses no lock which another thread of this process may have
    // held: this is the only test of the process.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let forked = |error: &raw_block_core::Error| error.kind() == ErrorKind::Forked;
            let blocking = device.write_buffers(&[WriteAt::new(0, &buffer)]);
            let ticket = device.batched_write(vec![owned]);
            let pending = pending.wait();
            let right = pending[0].result.as_ref().is_err_and(forked)
                && blocking[0].as_ref().is_err_and(forked)
                && ticket.is_err_and(|refused| forked(&refused.error));
            drop(device);
            std::process::exit(i32::from(!right));
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    assert!(pending.wait()[0].result.is_ok());
    // The parent goes on as if nothing had happened, and still holds the lock.
    let second = UringBackend::open(file.path(), &UringOptions::default()).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Busy);
    buffer.fill(0);
    device.read_buffers(&mut [ReadAt::new(0, &mut buffer)]).all().unwrap();
    assert!(buffer.iter().all(|&byte| byte == 1));
}
