//! Compares passthrough with the block path: the same batches, alternately, on one namespace in the
//! virtual machine.
//!
//! It prints medians of the ratios within a round. It asserts no times, because an emulated machine
//! is noisy.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};
use raw_block_core::backend::{IoBackend, OpKind};
use raw_block_core::{AlignedBuf, BufferPool, Direct, Dispatcher, ReadAt, WriteAt};
use raw_block_fixtures::NvmeNamespace;
use raw_block_nvme::{NvmeBackend, NvmeOptions};
use raw_block_uring::{UringBackend, UringOptions};

const BATCH: usize = 16;
const LEN: usize = 16 << 10;
const ROUNDS: usize = 15;
const BATCHES: usize = 60;

/// Nanoseconds per op, and nanoseconds of processor time of this process.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// Runs batches of one kind. The ranges are not adjacent, so that each transfer is an op, and each
/// op one command.
#[expect(clippy::cast_precision_loss, reason = "for a ratio")]
fn run(backend: Arc<dyn IoBackend>, kind: OpKind) -> Cost {
    let pool = BufferPool::new(LEN, BATCH).unwrap();
    let _registration = pool.register_with(backend.clone()).unwrap();
    let mut buffers: Vec<AlignedBuf> = (0..BATCH).map(|_| pool.take().unwrap()).collect();
    let dispatcher = Dispatcher::new(backend).unwrap();
    let mut batch = |first: usize| {
        let places = (first..).map(|number| (number * 2 * LEN % (48 << 20)) as u64);
        match kind {
            OpKind::Write => {
                let batch: Vec<_> =
                    places.zip(&buffers).map(|(at, buffer)| WriteAt::new(at, buffer)).collect();
                dispatcher.write_buffers(&batch).all().unwrap();
            }
            _ => {
                let mut batch: Vec<_> =
                    places.zip(&mut buffers).map(|(at, buffer)| ReadAt::new(at, buffer)).collect();
                dispatcher.read_buffers(&mut batch).all().unwrap();
            }
        }
    };
    batch(0);
    let before = dispatcher.stats();
    let (begin, cpu) = (Instant::now(), cpu_ns());
    (0..BATCHES).for_each(|number| batch(number * BATCH));
    let (wall, cpu) = (begin.elapsed().as_nanos() as f64, (cpu_ns() - cpu) as f64);
    let stats = dispatcher.stats();
    let ops = (BATCHES * BATCH) as u64;
    assert_eq!(stats.ops - before.ops, ops);
    assert_eq!(stats.commands - before.commands, ops, "one command for an op");
    assert_eq!(
        stats.submissions - before.submissions,
        BATCHES as u64,
        "one system call for a batch"
    );
    Cost { wall: wall / ops as f64, cpu: cpu / ops as f64 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn passthrough_costs_what_the_block_path_costs_or_less() {
    let namespace = match NvmeNamespace::find("plain-512", 1) {
        Ok(namespace) => namespace,
        Err(skipped) => return skipped.report(),
    };
    let block = || -> Arc<dyn IoBackend> {
        let options = UringOptions::new().direct(Direct::Required);
        Arc::new(UringBackend::open(namespace.block(), &options).unwrap())
    };
    let passthrough = || -> Arc<dyn IoBackend> {
        Arc::new(NvmeBackend::open(namespace.generic(), &NvmeOptions::new()).unwrap())
    };
    for kind in [OpKind::Write, OpKind::Read] {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|round| {
                // The order alternates between rounds.
                if round % 2 == 0 {
                    let first = run(block(), kind);
                    (first, run(passthrough(), kind))
                } else {
                    let first = run(passthrough(), kind);
                    (run(block(), kind), first)
                }
            })
            .collect();
        let of = |value: fn(&(Cost, Cost)) -> f64| median(rounds.iter().map(value).collect());
        let line = format!(
            "comparison: {} of {} KiB, batch {BATCH}, {ROUNDS} rounds: passthrough makes {:.2} times the ops per \
             second of the block path, and takes {:.2} times the processor time for each ({:.1} us and {:.1} us)\n",
            kind.name(),
            LEN >> 10,
            of(|(block, passthrough)| block.wall / passthrough.wall),
            of(|(block, passthrough)| passthrough.cpu / block.cpu),
            of(|(_, passthrough)| passthrough.cpu / 1000.0),
            of(|(block, _)| block.cpu / 1000.0),
        );
        // Bypasses the test harness, which captures the output of tests that pass.
        io::stderr().write_all(line.as_bytes()).unwrap();
    }
}
