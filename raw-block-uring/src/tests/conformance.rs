//! The conformance suite on big rings, and with transient failures of system calls and transfers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use raw_block_core::conformance::{Skipped, Subject};

use super::scripted::{Script, Scripted, backend};
use crate::ring::{Big, Standard, Width};

const LEN: u64 = 16 << 20;

fn subject<W: Width>(kernel: Scripted) -> Result<Subject, Skipped> {
    let (backend, file) = backend::<W>(LEN, kernel, None)?;
    Ok(Subject::new(backend).keeping(file))
}

fn transient(seed: u64) -> Scripted {
    Scripted(Arc::new(Mutex::new(Script { random: Some(seed), ..Script::default() })))
}

raw_block_core::conformance_suite!(big_ring, || subject::<Big>(Scripted::default()));
raw_block_core::conformance_suite!(failing_transiently, || {
    subject::<Standard>(transient(1)).map(Subject::with_local_queues)
});
raw_block_core::conformance_suite!(big_and_failing, || subject::<Big>(transient(2)));
raw_block_core::conformance_suite!(polled_and_failing, || {
    let idle = Some(Duration::from_millis(1));
    let (backend, file) = backend::<Standard>(LEN, transient(3), idle)?;
    Ok(Subject::new(backend).keeping(file))
});
