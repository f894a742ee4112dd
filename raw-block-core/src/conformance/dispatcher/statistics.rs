//! The counters say what happened.

use std::time::{Duration, Instant};

use super::{fill, kinds};
use crate::conformance::Subject;
use crate::conformance::bytes::{aligned, pattern};
use crate::{ErrorKind, OwnedTransfer, ReadAt, WriteAt};

pub(crate) fn batches_transfers_and_bytes_add_up(subject: &Subject) {
    let device = subject.dispatcher();
    let block = subject.block();
    let before = device.stats();
    let bytes = pattern(700, 4 * block);
    fill(&device, 0, &bytes);
    let mut found = vec![0; 3 * block];
    let (a, b) = found.split_at_mut(block + 1);
    let mut reads = [
        ReadAt::new(0, a).padded_to(2 * block as u64),
        ReadAt::new(subject.at(9), &mut b[..block]),
    ];
    device.read_buffers(&mut reads).all().unwrap();
    device.flush().unwrap();
    let owned = vec![OwnedTransfer::new(subject.at(20), aligned(&bytes))];
    device.batched_write(owned).unwrap().wait().remove(0).result.unwrap();

    let after = device.stats();
    assert_eq!(after.batches - before.batches, 4);
    assert_eq!(after.transfers - before.transfers, 5);
    assert_eq!(after.ops - before.ops, 5);
    assert_eq!(after.written_bytes - before.written_bytes, 8 * block as u64);
    assert_eq!(after.read_bytes - before.read_bytes, 3 * block as u64);
    let through = |stats: &crate::StatsSnapshot| stats.direct_bytes + stats.staged_bytes;
    assert_eq!(through(&after) - through(&before), 11 * block as u64);
    assert!(after.submissions > before.submissions, "the backend counts its submissions");
    assert_eq!(after.tickets_in_flight, before.tickets_in_flight);
}

pub(crate) fn errors_are_counted_by_kind(subject: &Subject) {
    let device = subject.dispatcher();
    let bytes = pattern(701, subject.block());
    let end = subject.geometry().capacity;
    let before = device.stats();
    let results = device.write_buffers(&[
        WriteAt::new(1, &bytes),
        WriteAt::new(3, &bytes),
        WriteAt::new(end, &bytes),
        WriteAt::new(0, &bytes).padded_to(0),
        WriteAt::new(0, &bytes),
        WriteAt::new(0, &bytes),
    ]);
    assert_eq!(kinds(&results).iter().filter(|kind| kind.is_none()).count(), 1);
    let after = device.stats();
    let counted = |kind| after.errors(kind) - before.errors(kind);
    // With any byte range allowed, the first two overlap the last two.
    let misaligned = if subject.alignment() > 1 { 2 } else { 0 };
    assert_eq!(counted(ErrorKind::Misaligned), misaligned);
    assert_eq!(counted(ErrorKind::OutOfRange), 1);
    assert_eq!(counted(ErrorKind::InvalidInput), 1);
    assert_eq!(counted(ErrorKind::Overlap), 3 - misaligned);
    assert_eq!(counted(ErrorKind::Io), 0);
    assert_eq!(after.ops - before.ops, 1, "refused transfers are no ops");
    assert_eq!(after.written_bytes - before.written_bytes, bytes.len() as u64);
}

pub(crate) fn latencies_and_depth_are_within_what_is_possible(subject: &Subject) {
    let queue_depth = 4;
    let device = subject.dispatcher_with(queue_depth, 2);
    let granted = subject.queue(queue_depth).depth();
    let bytes = pattern(702, subject.block());
    let started = Instant::now();
    for _ in 0..10 {
        let batch: Vec<_> =
            (0..20).map(|number| WriteAt::new(subject.at(2 * number), &bytes)).collect();
        device.write_buffers(&batch).all().unwrap();
    }
    let elapsed = started.elapsed();
    let stats = device.stats();
    let quantiles = [0.0, 0.5, 0.99, 1.0].map(|quantile| stats.latency(quantile));
    assert!(quantiles.is_sorted(), "{quantiles:?}");
    assert!(quantiles[3] > Duration::ZERO, "a transfer takes time");
    // The histogram is exact to one per cent.
    assert!(quantiles[3] <= elapsed + elapsed / 50, "{quantiles:?} within {elapsed:?}");
    assert!(Duration::from_nanos(stats.busy_ns) <= elapsed);
    let depth = stats.achieved_depth();
    let most = u32::try_from(granted).unwrap();
    assert!(depth > 0.0 && depth <= f64::from(most) + 0.01, "depth {depth} of {granted}");
}
