use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

const THREADS: u32 = 3;
const KEYS: u64 = 40_000;
/// Keys after those, which are there all the time.
const KEPT: u64 = 1000;

/// Puts that complete in some order, while shards are split; every tenth is deleted again.
fn change(index: &Index, thread: u32, sequence: &AtomicU64) {
    let mut random = fastrand::Rng::with_seed(thread.into());
    let mut results = Vec::new();
    let (mut number, mut round) = (0, 0);
    while u64::from(number) < KEYS {
        index.extend(thread, number + 50).unwrap();
        let first = sequence.fetch_add(50, Ordering::Relaxed);
        let batch: Vec<_> = (0..50)
            .map(|at| {
                let new = entry(random.u64(..KEYS), first + u64::from(at));
                located(thread, number + at, new)
            })
            .collect();
        results.clear();
        index.publish_many(&batch, &mut results);
        if round % 10 == 0 {
            let deleted = batch.iter().filter(|new| {
                let (hash, sequence) = (&new.entry.key_hash, new.sequence());
                index.delete(hash, sequence + 1, 0).is_some()
            });
            assert!(deleted.count() > 0);
        }
        (number, round) = (number + 50, round + 1);
    }
}

#[test]
fn threads_find_whole_entries_while_shards_are_split() {
    let (index, sequence) = (Index::new(THREADS + 1), AtomicU64::new(1));
    index.extend(THREADS, 1000).unwrap();
    for (number, key) in (0..).zip(KEYS..KEYS + KEPT) {
        index.publish(&located(THREADS, number, entry(key, 1)));
    }
    let kept: Vec<_> = (KEYS..KEYS + KEPT).map(hash).collect();
    let changing = AtomicU64::new(THREADS.into());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (index, sequence, changing) = (&index, &sequence, &changing);
            scope.spawn(move || {
                change(index, thread, sequence);
                changing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while changing.load(Ordering::Relaxed) > 0 {
                assert!(kept.iter().all(|hash| index.find(hash).is_some()));
            }
        });
        let mut random = fastrand::Rng::with_seed(99);
        let mut found = Vec::new();
        while changing.load(Ordering::Relaxed) > 0 {
            let keys: Vec<_> = (0..40).map(|_| random.u64(..KEYS)).collect();
            let hashes: Vec<_> = keys.iter().copied().map(hash).collect();
            found.clear();
            index.find_many(&hashes, &mut found);
            for (key, found) in keys.into_iter().zip(&found) {
                let Some(found) = found else { continue };
                assert_eq!(found.entry, entry(key, found.sequence()));
                assert!(index.live(found.place).is_none_or(|live| live == found.entry));
            }
            found.clear();
            index.find_many(&kept, &mut found);
            assert!(found.iter().all(Option::is_some));
            for segment in 0..THREADS {
                index.for_each_live(segment, |_, live| assert_ne!(live.sequence.get(), 0));
            }
        }
    });
    let live: u32 = (0..=THREADS).map(|segment| index.live_count(segment)).sum();
    assert_eq!(u64::from(live), index.len());
    assert!(index.shards.each().count() > 64, "shards were split");
    let mut shown = 0;
    for key in 0..KEYS + KEPT {
        if let Some(found) = index.find(&hash(key)) {
            assert_eq!(index.live(found.place), Some(entry(key, found.sequence())));
            shown += 1;
        }
    }
    assert_eq!(shown, index.len());
}

#[test]
fn batches_that_lock_the_same_shards_complete() {
    let index = index(400);
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            let index = &index;
            scope.spawn(move || {
                let mut keys: Vec<u64> = (0..50).map(|key| u64::from(thread) * 50 + key).collect();
                if thread % 2 == 0 {
                    keys.reverse();
                }
                for round in 0..8 {
                    let new = |(at, key): (u32, &u64)| {
                        located(thread, round * 50 + at, entry(*key, u64::from(round) + 1))
                    };
                    let batch: Vec<_> = (0..).zip(&keys).map(new).collect();
                    let mut results = Vec::new();
                    index.publish_many(&batch, &mut results);
                    assert!(!results.contains(&Published::Superseded));
                    let hashes: Vec<_> = keys.iter().copied().map(hash).collect();
                    let mut found = Vec::new();
                    index.find_many(&hashes, &mut found);
                    assert_eq!(found, batch.into_iter().map(Some).collect::<Vec<_>>());
                }
            });
        }
    });
    assert_eq!(index.len(), 200);
}
