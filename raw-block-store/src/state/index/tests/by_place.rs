use super::*;

fn live(index: &Index, segment: u32) -> Vec<(u32, Entry)> {
    let mut live = Vec::new();
    index.for_each_live(segment, |number, entry| live.push((number, entry)));
    live
}

#[test]
fn live_entries_are_listed_by_number() {
    let index = index(200);
    let numbers = [0, 1, 63, 64, 65, 130, 199];
    for number in numbers {
        publish(&index, number, entry(number.into(), 1 + u64::from(number)));
    }
    index.delete(&hash(64), 1000, NOTHING);
    let expected: Vec<_> = numbers
        .into_iter()
        .filter(|number| *number != 64)
        .map(|number| (number, entry(number.into(), 1 + u64::from(number))))
        .collect();
    assert_eq!(live(&index, 0), expected);
    assert_eq!(live(&index, 1), []);
    let mut words = vec![7];
    index.live_words(0, &mut words);
    assert_eq!(words, [7, 1 << 63 | 0b11, 0b10, 0b100, 1 << 7]);
    assert_eq!(index.live_count(0), 6);
}

#[test]
fn entries_are_copied_dead_or_alive() {
    let index = index(130);
    publish(&index, 62, entry(1, 10));
    publish(&index, 64, entry(1, 11));
    let tombstone = Entry { key_hash: [0; 16], key_len: 0.into(), ..entry(0, 12) };
    index.set_tombstone(Place { segment: 0, number: 65 }, &tombstone);
    let mut copied = [entry(9, 9); 100];
    index.entries(0, 61..161, &mut copied);
    let mut expected = [Entry::EMPTY; 100];
    (expected[1], expected[3], expected[4]) = (entry(1, 10), entry(1, 11), tombstone);
    assert_eq!(copied, expected);
}

#[test]
fn tombstones_are_live_until_they_are_cleared() {
    let index = index(10);
    let place = Place { segment: 2, number: 7 };
    let tombstone = Entry { key_hash: [0; 16], key_len: 0.into(), ..entry(0, 12) };
    index.set_tombstone(place, &tombstone);
    assert_eq!(index.live(place), Some(tombstone));
    assert_eq!((index.len(), live(&index, 2)), (0, vec![(7, tombstone)]));
    index.clear_tombstone(place);
    assert_eq!((index.live(place), live(&index, 2)), (None, vec![]));
}

#[test]
fn a_released_segment_leaves_nothing_to_the_next() {
    let index = index(100);
    let numbers = 0..100;
    for number in numbers.clone() {
        let found = located(1, number, entry(number.into(), 1));
        index.insert_recovered(&found, true);
        index.note_use(found.place, 3);
    }
    for number in numbers.clone() {
        assert!(index.remove(&located(1, number, entry(number.into(), 1)), None));
    }
    let memory = index.memory();
    index.release(1);
    let place = Place { segment: 1, number: 5 };
    assert_eq!((index.live(place), index.live_count(1)), (None, 0));
    index.extend(3, 200).unwrap();
    index.extend(1, 30).unwrap();
    for _ in 0..100 {
        index.release(3);
        index.extend(3, 200).unwrap();
    }
    assert_eq!(index.memory(), memory, "chunks are used again");
    for place in [place, Place { segment: 3, number: 150 }] {
        let mut copied = [entry(9, 9)];
        index.entries(place.segment, place.number..place.number + 1, &mut copied);
        assert_eq!(copied, [Entry::EMPTY]);
        assert!(!index.is_unverified(place) && !index.is_damaged(place));
        assert_eq!(index.stamp(place), Stamp::default());
        let found = located(place.segment, place.number, entry(7, 2));
        index.publish(&found);
        assert_eq!(index.find(&hash(7)), Some(found));
        index.remove(&found, None);
    }
}

#[test]
fn entries_of_no_segment_and_past_the_last_do_not_exist() {
    let index = index(64);
    for place in [(0, 64), (0, u32::MAX), (4, 0), (u32::MAX, 0)] {
        let place = Place { segment: place.0, number: place.1 };
        assert_eq!((index.live(place), index.stamp(place)), (None, Stamp::default()));
        index.note_use(place, 1);
        index.set_verified(place);
        assert!(!index.is_unverified(place));
    }
    assert_eq!((live(&index, 4), index.live_count(9)), (vec![], 0));
}

#[test]
fn uses_are_counted_without_touching_the_entry() {
    let index = index(4);
    let object = located(0, 3, entry(1, u64::MAX / 3));
    index.publish(&object);
    assert_eq!(index.stamp(object.place), Stamp::default());
    for uses in 1..6_u8 {
        index.note_use(object.place, 10 * u16::from(uses));
        let expected = Stamp { used: true, uses: uses.min(3), last_use: 10 * u16::from(uses) };
        assert_eq!(index.stamp(object.place), expected);
    }
    index.change_stamp(object.place, |stamp| Stamp { used: false, uses: 1, ..stamp });
    assert_eq!(index.stamp(object.place), Stamp { used: false, uses: 1, last_use: 50 });
    assert_eq!(index.find(&hash(1)), Some(object));
    assert_eq!(index.live(object.place), Some(object.entry));
}

#[test]
fn a_damaged_object_is_reported_once() {
    let index = index(4);
    let old = located(0, 0, entry(1, 1));
    let object = located(0, 1, entry(1, 2));
    index.publish(&old);
    index.publish(&object);
    assert!(!index.mark_damaged(&old), "it is no longer shown");
    assert!(index.mark_damaged(&object));
    assert!(!index.mark_damaged(&object));
    index.note_use(object.place, 5);
    assert!(index.is_damaged(object.place) && !index.is_damaged(old.place));
    assert_eq!(index.find(&hash(1)), Some(object), "it is not an absent one");
}

#[test]
fn unverified_are_live_objects_that_recovery_found() {
    let index = index(100);
    let objects = [0, 70].map(|number| located(0, number, entry(number.into(), 5)));
    let mut results = Vec::new();
    index.insert_recovered_many(&objects, true, &mut results);
    assert_eq!(results, [Published::Shown { replaced: None }; 2]);
    publish(&index, 1, entry(1, 6));
    assert!(objects.iter().all(|object| index.is_unverified(object.place)));
    assert!(!index.is_unverified(Place { segment: 0, number: 1 }));
    index.set_verified(objects[0].place);
    assert!(!index.is_unverified(objects[0].place) && index.any_unverified(0));
    let to = located(1, 0, entry(70, 5));
    let copy = Move { from: objects[1].place, to, stamp: Stamp::default() };
    index.publish_moves(&[copy], |_, shown| assert!(shown));
    assert!(!index.any_unverified(0), "what is dead needs no verification");
    assert!(!index.any_unverified(1), "a copy was verified");
}
