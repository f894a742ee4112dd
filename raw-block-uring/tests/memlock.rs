//! A process that may pin no more memory. Alone in its file, because it drops rights of its
//! process.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;

use nix::sys::resource::{Resource, setrlimit};
use raw_block_core::{BufferPool, Dispatcher, ErrorKind, ReadAt, WriteAt};
use raw_block_fixtures::temp_file;
use raw_block_uring::{UringBackend, UringOptions};

/// Drops `CAP_IPC_LOCK` from this thread, because the limit does not apply with it
/// (`capabilities(7)`).
fn drop_unlimited_locking() {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable, for capabilities 0 to 31, then for 32 to 63.
    let mut sets = [0_u32; 6];
    // SAFETY: the header names the version for which `sets` has the size.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    sets[0] &= !(1 << IPC_LOCK);
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}

#[test]
fn memory_that_may_not_be_pinned_works_unregistered() {
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 << 20, 8 << 20).unwrap();
    drop_unlimited_locking();
    let file = temp_file(1 << 20).unwrap();
    let backend = Arc::new(UringBackend::open(file.path(), &UringOptions::new()).unwrap());
    let dispatcher = Dispatcher::new(backend.clone()).unwrap();
    let small = BufferPool::new(64 << 10, 4).unwrap();
    let large = BufferPool::new(1 << 20, 64).unwrap();
    let _registration = small.register_with(backend.clone()).unwrap();
    let error = large.register_with(backend).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfResources);
    assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
    assert_eq!(dispatcher.stats().refused_registrations, 1);

    for (pool, expected) in [(&large, 0), (&small, 2)] {
        let before = dispatcher.stats().registered_ops;
        let mut buffer = pool.take().unwrap();
        buffer.fill(7);
        dispatcher.write_buffers(&[WriteAt::new(0, &buffer[..4096])]).all().unwrap();
        buffer.fill(0);
        dispatcher.read_buffers(&mut [ReadAt::new(0, &mut buffer[..4096])]).all().unwrap();
        assert!(buffer[..4096].iter().all(|&byte| byte == 7));
        assert_eq!(dispatcher.stats().registered_ops - before, expected);
    }
}
