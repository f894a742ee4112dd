use super::*;

#[test]
fn the_newest_put_of_a_key_wins_in_any_order_of_completion() {
    let index = index(4);
    assert_eq!(publish(&index, 0, entry(1, 10)), NEW);
    assert_eq!(publish(&index, 1, entry(1, 12)), replaced(0));
    assert_eq!(publish(&index, 2, entry(1, 11)), SUPERSEDED);
    assert_eq!(index.find(&hash(1)), Some(located(0, 1, entry(1, 12))));
    assert_eq!(index.len(), 1);
    assert_eq!([0, 1, 2].map(|number| is_live(&index, number)), [false, true, false]);
}

#[test]
fn a_late_older_put_does_not_undo_a_deletion() {
    let index = index(4);
    publish(&index, 0, entry(1, 10));
    assert_eq!(index.delete(&hash(1), 20, 15), Some(located(0, 0, entry(1, 10))));
    assert!(!is_live(&index, 0));
    assert_eq!(publish(&index, 1, entry(1, 15)), SUPERSEDED);
    assert_eq!((number_of(&index, 1), index.len()), (None, 0));
    assert_eq!(publish(&index, 2, entry(1, 21)), NEW, "a newer put counts");
    assert_eq!(number_of(&index, 1), Some(2));
}

#[test]
fn a_late_older_put_does_not_undo_a_removal() {
    let index = index(4);
    let damaged = located(0, 0, entry(1, 20));
    index.publish(&damaged);
    assert!(index.remove(&damaged, Some(15)));
    assert_eq!(publish(&index, 1, entry(1, 15)), SUPERSEDED);
    assert_eq!((number_of(&index, 1), index.len()), (None, 0));
    assert!(!index.remove(&damaged, Some(15)), "there is nothing to remove");
}

#[test]
fn only_exactly_the_named_object_is_removed() {
    let index = index(4);
    let old = located(0, 0, entry(1, 10));
    index.publish(&old);
    let new = located(0, 1, entry(1, 11));
    index.publish(&new);
    assert!(!index.remove(&old, None));
    assert!(!index.remove(&located(1, 1, entry(1, 11)), None), "another place");
    assert_eq!(index.find(&hash(1)), Some(new));
    assert!(index.remove(&new, None));
    assert_eq!(publish(&index, 2, entry(1, 9)), NEW, "it was not remembered");
}

#[test]
fn deletions_are_remembered_while_older_changes_are_in_flight() {
    let index = index(4);
    assert_eq!(index.delete(&hash(1), 20, 15), None);
    assert_eq!(publish(&index, 0, entry(1, 15)), SUPERSEDED);
    index.forget_deletions(19);
    assert_eq!(publish(&index, 0, entry(1, 19)), SUPERSEDED);
    index.forget_deletions(20);
    assert_eq!(index.gone.len(), 0);
    assert_eq!(publish(&index, 0, entry(1, 15)), NEW);
}

#[test]
fn a_key_deleted_twice_is_remembered_for_the_later_time() {
    let index = index(4);
    index.delete(&hash(1), 20, 10);
    index.delete(&hash(1), 30, 10);
    index.forget_deletions(20);
    assert_eq!(publish(&index, 0, entry(1, 25)), SUPERSEDED);
    index.delete(&hash(2), 31, 10);
    index.delete(&hash(2), 29, 10);
    assert_eq!(publish(&index, 0, entry(2, 30)), SUPERSEDED, "deletions in any order");
}

#[test]
fn the_memory_of_deletions_is_bounded_by_what_is_in_flight() {
    let index = index(4);
    for sequence in 1..50_000 {
        index.delete(&hash(sequence), sequence, sequence.saturating_sub(100));
    }
    assert!(index.gone.len() <= 1000, "{} are remembered", index.gone.len());
    index.forget_deletions(NOTHING);
    assert_eq!(index.gone.len(), 0);
    assert!(index.gone.memory() < 150_000, "{} bytes", index.gone.memory());
}

#[test]
fn a_late_deletion_leaves_a_newer_put_alone() {
    let index = index(4);
    publish(&index, 0, entry(1, 10));
    assert_eq!(index.delete(&hash(1), 5, NOTHING), None);
    assert_eq!((number_of(&index, 1), index.len()), (Some(0), 1));
}

#[test]
fn a_copy_replaces_exactly_the_object_that_was_read() {
    let index = index(8);
    for key in 0..4 {
        publish(&index, u32::try_from(key).unwrap(), entry(key, 10 + key));
    }
    publish(&index, 4, entry(1, 20));
    index.delete(&hash(2), 21, NOTHING);
    let stamp = Stamp { used: true, uses: 2, last_use: 77 };
    let copy = |key: u64| {
        let number = u32::try_from(key).unwrap();
        let from = Place { segment: 0, number };
        Move { from, to: located(1, number, entry(key, 10 + key)), stamp }
    };
    let elsewhere = Move { from: Place { segment: 0, number: 7 }, ..copy(3) };
    let mut shown = Vec::new();
    index.publish_moves(&[copy(0), copy(1), copy(2), elsewhere], |_, is| shown.push(is));
    assert_eq!(shown, [true, false, false, false]);
    assert_eq!(index.find(&hash(0)), Some(located(1, 0, entry(0, 10))));
    assert_eq!(index.find(&hash(1)), Some(located(0, 4, entry(1, 20))));
    assert_eq!(index.find(&hash(2)), None);
    assert_eq!(index.find(&hash(3)), Some(located(0, 3, entry(3, 13))));
    assert_eq!(index.stamp(Place { segment: 1, number: 0 }), stamp);
    let live = |segment| {
        let mut words = Vec::new();
        index.live_words(segment, &mut words);
        words
    };
    assert_eq!((live(0), live(1), index.len()), (vec![0b11000], vec![1], 3));
}

#[test]
fn a_batch_finds_what_is_found_one_by_one() {
    let index = index(300);
    let batch: Vec<_> =
        (0..200).map(|key| located(0, u32::try_from(key).unwrap(), entry(key, 1 + key))).collect();
    let mut results = Vec::new();
    index.publish_many(&batch, &mut results);
    assert_eq!(results, [Published::Shown { replaced: None }; 200]);
    let hashes: Vec<_> = (0..300).rev().map(hash).collect();
    let mut found = Vec::new();
    index.find_many(&hashes, &mut found);
    let one_by_one: Vec<_> = hashes.iter().map(|hash| index.find(hash)).collect();
    assert_eq!(found, one_by_one);
    assert_eq!(found.iter().flatten().count(), 200);
}

#[test]
fn keys_that_share_half_of_their_hash_are_distinguished() {
    let index = index(100);
    for half in [0..8, 8..16] {
        let alike = |key: u8| {
            let mut hash = [key; 16];
            hash[half.clone()].fill(0xA5);
            Entry { key_hash: hash, ..entry(0, 1 + u64::from(key)) }
        };
        let segment = u32::from(half.start > 0);
        let batch: Vec<_> = (0..80).map(|key| located(segment, key.into(), alike(key))).collect();
        index.publish_many(&batch, &mut Vec::new());
        let hashes: Vec<_> = (0..81).map(|key| alike(key).key_hash).collect();
        let mut found = Vec::new();
        index.find_many(&hashes, &mut found);
        let expected: Vec<_> = batch.into_iter().map(Some).chain([None]).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn in_a_batch_too_the_newest_put_of_a_key_wins() {
    let index = index(4);
    let batch = [12, 10, 13].map(|sequence| entry(1, sequence));
    let batch: Vec<_> = (0..).zip(batch).map(|(number, new)| located(0, number, new)).collect();
    let mut results = Vec::new();
    index.publish_many(&batch, &mut results);
    let expected = [
        Published::Shown { replaced: None },
        Published::Superseded,
        Published::Shown { replaced: Some(batch[0]) },
    ];
    assert_eq!(results, expected);
    assert_eq!((number_of(&index, 1), index.len()), (Some(2), 1));
}

#[test]
fn a_place_that_is_claimed_twice_stays_with_the_first() {
    let index = index(4);
    assert_eq!(publish(&index, 0, entry(1, 10)), NEW);
    assert_eq!(publish(&index, 0, entry(1, 10)), SUPERSEDED);
    assert_eq!(publish(&index, 0, entry(2, 11)), SUPERSEDED);
    assert_eq!((number_of(&index, 1), number_of(&index, 2)), (Some(0), None));
    assert!(is_live(&index, 0));
}
