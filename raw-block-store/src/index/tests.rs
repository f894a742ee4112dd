use super::*;

/// Nothing is under way.
const NOTHING: u64 = u64::MAX;

fn entry(key: u8, sequence: u64) -> ObjectEntry {
    ObjectEntry { key_hash: [key; 16], sequence: sequence.into(), ..ObjectEntry::NONE }
}

fn slot_of(index: &Index, key: u8) -> Option<u64> {
    index.find(&[key; 16]).map(|located| located.slot)
}

fn place(slot: u64, sequence: u64) -> Option<Place> {
    Some(Place { slot, sequence })
}

#[test]
fn the_newest_put_of_a_key_wins_in_whatever_order_they_complete() {
    let index = Index::new(4).unwrap();
    assert_eq!(index.publish(0, entry(1, 10)), None);
    assert_eq!(index.publish(1, entry(1, 12)), place(0, 10), "the older copy dies");
    assert_eq!(index.publish(2, entry(1, 11)), place(2, 11), "the late one dies");
    assert_eq!(slot_of(&index, 1), Some(1));
    assert_eq!(index.len(), 1);
    assert!(!index.entry(0).is_live() && !index.entry(2).is_live());
}

#[test]
fn a_deletion_is_not_undone_by_an_older_put_that_completes_late() {
    let index = Index::new(4).unwrap();
    assert_eq!(index.publish(0, entry(1, 10)), None);
    assert_eq!(index.delete(&[1; 16], 20, 15), place(0, 10));
    assert_eq!(index.publish(1, entry(1, 15)), place(1, 15));
    assert_eq!(slot_of(&index, 1), None);
    assert_eq!(index.publish(2, entry(1, 21)), None, "a newer put is no late one");
    assert_eq!(slot_of(&index, 1), Some(2));
}

#[test]
fn an_eviction_is_not_undone_by_an_older_put_that_completes_late() {
    let index = Index::new(4).unwrap();
    assert_eq!(index.publish(0, entry(1, 20)), None);
    assert_eq!(index.evict(0, 15), place(0, 20));
    assert_eq!(index.publish(1, entry(1, 15)), place(1, 15));
    assert_eq!(slot_of(&index, 1), None);
    assert_eq!(index.evict(0, NOTHING), None, "there is nothing any more");
}

#[test]
fn what_is_gone_is_remembered_only_while_older_changes_are_under_way() {
    let index = Index::new(4).unwrap();
    assert_eq!(index.delete(&[1; 16], 20, 15), None);
    assert_eq!(index.publish(0, entry(1, 15)), place(0, 15));
    // Any other deletion, later, forgets it.
    assert_eq!(index.delete(&[2; 16], 30, 30), None);
    assert_eq!(index.publish(0, entry(1, 15)), None);
}

#[test]
fn a_key_that_is_gone_twice_is_remembered_for_the_later_time() {
    let index = Index::new(4).unwrap();
    index.delete(&[1; 16], 20, 10);
    index.delete(&[1; 16], 30, 10);
    // The first of the two is forgotten, the second is not.
    index.delete(&[2; 16], 31, 20);
    assert_eq!(index.publish(0, entry(1, 25)), place(0, 25));
}

#[test]
fn a_late_deletion_leaves_a_newer_put_alone() {
    let index = Index::new(4).unwrap();
    assert_eq!(index.publish(0, entry(1, 10)), None);
    assert_eq!(index.delete(&[1; 16], 5, NOTHING), None);
    assert_eq!(slot_of(&index, 1), Some(0));
}

#[test]
fn keys_do_not_disturb_each_other_in_however_many_shards() {
    for slots in [300, 3000, 100_000] {
        let index = Index::new(slots).unwrap();
        for key in 0..=255 {
            assert_eq!(index.publish(key.into(), entry(key, 1 + u64::from(key))), None);
        }
        assert_eq!(index.delete(&[7; 16], 1000, NOTHING), place(7, 8));
        for key in (0..=255).filter(|&key| key != 7) {
            assert_eq!(slot_of(&index, key), Some(key.into()));
        }
        assert_eq!(index.len(), 255);
    }
}

fn located(slot: u64, entry: ObjectEntry) -> Located {
    Located { slot, entry }
}

#[test]
fn a_batch_finds_what_is_found_one_by_one() {
    let index = Index::new(100_000).unwrap();
    let batch: Vec<_> =
        (0..=199).map(|key| located(key.into(), entry(key, 1 + u64::from(key)))).collect();
    let mut retired = Vec::new();
    index.publish_many(&batch, &mut retired);
    assert_eq!(retired, []);
    let hashes: Vec<_> = (0..=255).rev().map(|key| [key; 16]).collect();
    let mut found = Vec::new();
    index.find_many(&hashes, &mut found);
    let one_by_one: Vec<_> = hashes.iter().map(|hash| index.find(hash)).collect();
    assert_eq!(found, one_by_one);
    assert_eq!(found.iter().flatten().count(), 200);
}

#[test]
fn keys_are_told_apart_whose_hashes_are_alike_in_what_places_them() {
    let index = Index::new(100).unwrap();
    let hash = |last| [[1; 8], [last; 8]].concat().try_into().unwrap();
    let alike = |last| ObjectEntry { key_hash: hash(last), ..entry(0, 1 + u64::from(last)) };
    let batch: Vec<_> = (0..20).map(|last| located(last.into(), alike(last))).collect();
    index.publish_many(&batch, &mut Vec::new());
    let mut found = Vec::new();
    index.find_many(&(0..21).map(hash).collect::<Vec<_>>(), &mut found);
    let expected: Vec<_> = batch.into_iter().map(Some).chain([None]).collect();
    assert_eq!(found, expected);
}

#[test]
fn in_a_batch_too_the_newest_put_of_a_key_wins() {
    let index = Index::new(4).unwrap();
    let batch = [located(0, entry(1, 10)), located(1, entry(1, 12)), located(2, entry(1, 11))];
    let mut retired = Vec::new();
    index.publish_many(&batch, &mut retired);
    assert_eq!(retired, [batch[0].place(), batch[2].place()]);
    assert_eq!(slot_of(&index, 1), Some(1));
}

#[test]
fn batches_that_lock_the_same_shards_do_not_wait_for_each_other_for_ever() {
    let index = Index::new(100_000).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let index = &index;
            scope.spawn(move || {
                for round in 0..500_u64 {
                    let mut keys: Vec<u8> = (thread * 50..thread * 50 + 50).collect();
                    if thread % 2 == 0 {
                        keys.reverse();
                    }
                    let new =
                        |key: &u8| located(u64::from(*key) * 2 + round % 2, entry(*key, round + 1));
                    let batch: Vec<_> = keys.iter().map(new).collect();
                    index.publish_many(&batch, &mut Vec::new());
                    let (mut found, hashes): (_, Vec<_>) =
                        (Vec::new(), keys.iter().map(|key| [*key; 16]).collect());
                    index.find_many(&hashes, &mut found);
                    assert_eq!(found, batch.into_iter().map(Some).collect::<Vec<_>>());
                }
            });
        }
    });
}
