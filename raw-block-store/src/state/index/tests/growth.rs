use super::*;

/// Publishes `count` new keys in batches.
fn fill(index: &Index, first: u32, count: u32) {
    let mut results = Vec::new();
    let numbers = (first..first + count).collect::<Vec<_>>();
    for numbers in numbers.chunks(256) {
        let new = |number: &u32| located(0, *number, entry((*number).into(), 1));
        let batch: Vec<_> = numbers.iter().map(new).collect();
        results.clear();
        index.publish_many(&batch, &mut results);
        assert!(results.iter().all(|result| *result == Published::Shown { replaced: None }));
    }
}

#[test]
fn an_entry_takes_at_most_64_bytes_at_any_size() {
    let index = Index::new(2);
    // From one power of two shards to the next and beyond; then it repeats.
    let (step, most) = (10_000, 300_000);
    for entries in (step..=most).step_by(step as usize) {
        index.extend(0, entries).unwrap();
        fill(&index, entries - step, step);
        let memory = index.memory() as f64 / f64::from(entries);
        if entries >= 100_000 {
            assert!(memory <= 64.0, "{memory} bytes an entry at {entries}");
        }
    }
    assert_eq!(index.len(), most.into());
}

#[test]
fn an_empty_index_takes_next_to_no_memory() {
    let memory = Index::new(256).memory();
    assert!(memory < 100_000, "{memory} bytes");
}

#[test]
fn shards_stay_small_so_that_work_under_their_locks_is_bounded() {
    let index = index(100_000);
    for first in (0..100_000).step_by(10_000) {
        fill(&index, first, 10_000);
        let largest = index.shards.each().map(|shard| shard.len()).max();
        assert!(largest <= Some(1000), "{largest:?} of {first}");
    }
    let shards = index.shards.each().count();
    assert!((250..=255).contains(&shards), "{shards}");
    assert_eq!(index.shards.each().map(|shard| shard.len()).sum::<usize>(), 100_000);
    assert!((0..100_000).all(|number| number_of(&index, number.into()) == Some(number)));
}

#[test]
fn what_is_reserved_is_not_split_later() {
    let index = index(50_000);
    index.reserve(50_000);
    let shards = index.shards.each().count();
    fill(&index, 0, 50_000);
    assert_eq!(index.shards.each().count(), shards);
}

#[test]
fn keys_are_found_part_by_part_while_shards_are_split() {
    let index = index(40_000);
    fill(&index, 0, 20_000);
    let (parts, mut keys) = (index.parts(), Vec::new());
    for part in 0..parts {
        if part == parts / 3 {
            fill(&index, 20_000, 20_000);
            assert!(index.shards.each().count() > 64, "some are split");
        }
        let first = keys.len();
        index.keys_of(part, parts, &mut keys);
        assert!(keys.len() > first, "part {part} of {parts} is empty");
    }
    keys.sort_unstable();
    let found = keys.len();
    keys.dedup();
    assert_eq!(found, keys.len(), "a key was found twice");
    assert!((0..20_000).all(|key| keys.binary_search(&hash(key)).is_ok()));
}
