//! The conformance suite on big rings, and while system calls and transfers keep failing in passing.

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

fn in_passing(seed: u64) -> Scripted {
    Scripted(Arc::new(Mutex::new(Script { random: Some(seed), ..Script::default() })))
}

raw_block_core::conformance_suite!(big_ring, || subject::<Big>(Scripted::default()));
raw_block_core::conformance_suite!(failing_in_passing, || {
    subject::<Standard>(in_passing(1)).map(Subject::with_local_queues)
});
raw_block_core::conformance_suite!(big_and_failing, || subject::<Big>(in_passing(2)));
raw_block_core::conformance_suite!(polled_and_failing, || {
    let idle = Some(Duration::from_millis(1));
    let (backend, file) = backend::<Standard>(LEN, in_passing(3), idle)?;
    Ok(Subject::new(backend).keeping(file))
});
