use super::*;

fn history(evicts: bool) -> History {
    History::new(None, evicts, false)
}

fn opens(history: &History, found: Found, end: End) -> bool {
    history.clone().check_opening(found, end, 99).is_ok()
}

const fn whole(number: u64) -> Found {
    Found::Whole(Some(number))
}

#[test]
fn a_power_cut_undoes_nothing_that_was_flushed() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.end(1, 2, true);
    history.begin(Some(2), 3, 3);
    history.end(3, 4, false);
    assert!(history.check_get(whole(1), 5).is_ok());
    assert!(history.check_get(whole(2), 5).is_err(), "it failed");
    assert!(history.check_get(whole(2), 3).is_ok(), "it was in flight");
    assert!(opens(&history, Found::Whole(None), End::PowerCut), "nothing was flushed");
    history.flushed(5, u64::MAX);
    assert!(opens(&history, whole(1), End::PowerCut));
    assert!(opens(&history, whole(2), End::PowerCut), "it failed, and may have happened");
    assert!(!opens(&history, Found::Whole(None), End::PowerCut));
    history.begin(Some(3), 6, 6);
    history.end(6, 7, true);
    history.flushed(8, u64::MAX);
    assert!(opens(&history, whole(3), End::PowerCut));
    assert!(!opens(&history, whole(2), End::PowerCut), "it completed before");
}

#[test]
fn either_of_two_concurrent_changes_may_be_the_last() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.begin(Some(2), 2, 2);
    history.end(1, 3, true);
    history.end(2, 4, true);
    history.flushed(5, u64::MAX);
    for found in [whole(1), whole(2)] {
        assert!(history.clone().check_get(found, 6).is_ok());
        assert!(opens(&history, found, End::PowerCut));
    }
    assert!(history.check_get(Found::Whole(None), 6).is_err());
    assert!(!opens(&history, Found::Whole(None), End::PowerCut));
}

#[test]
fn the_later_put_of_a_batch_wins() {
    let mut history = history(false);
    history.begin(Some(1), 2, 1);
    history.begin(Some(2), 3, 1);
    history.begin(Some(3), 4, 1);
    [2, 3, 4].into_iter().for_each(|begun| history.end(begun, 5, begun != 4));
    assert!(history.check_get(whole(1), 6).is_err());
    assert!(history.check_get(whole(2), 6).is_ok());
    assert!(history.check_get(whole(3), 6).is_err(), "it failed");
    assert!(!opens(&history, whole(1), End::Kill));
    assert!(opens(&history, whole(3), End::Kill), "it may have happened");
}

#[test]
fn a_get_fixes_the_order_of_two_changes() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.begin(None, 2, 2);
    history.end(1, 3, true);
    history.end(2, 4, true);
    assert!(history.check_get(whole(1), 5).is_ok());
    assert!(opens(&history, Found::Whole(None), End::PowerCut), "nothing was flushed");
    history.flushed(6, u64::MAX);
    assert!(history.check_get(Found::Whole(None), 7).is_err());
    assert!(!opens(&history, Found::Whole(None), End::PowerCut));
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.end(1, 2, true);
    assert!(opens(&history, Found::Whole(None), End::PowerCut));
    assert!(!opens(&history, Found::Whole(None), End::Kill));
    assert!(opens(&history, whole(1), End::Kill));
}

#[test]
fn a_kill_tears_only_puts_with_an_unknown_outcome() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.end(1, 2, false);
    assert!(!opens(&history, Found::Damaged, End::Kill));
    history.outcome_is_unknown(1);
    assert!(opens(&history, Found::Damaged, End::Kill));
    history.begin(Some(2), 3, 3);
    history.end(3, 4, true);
    assert!(!opens(&history, Found::Damaged, End::Kill), "something newer was acknowledged");
}

#[test]
fn only_what_was_not_flushed_can_be_torn() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.end(1, 2, true);
    assert!(history.check_get(Found::Damaged, 3).is_err());
    assert!(opens(&history, Found::Damaged, End::PowerCut));
    let mut torn = history.clone();
    torn.check_opening(Found::Damaged, End::PowerCut, 4).unwrap();
    assert!(torn.check_get(Found::Damaged, 5).is_ok(), "it stays as it is");
    torn.begin(Some(2), 6, 6);
    torn.end(6, 7, true);
    assert!(torn.check_get(Found::Damaged, 8).is_err(), "it was replaced");
    history.flushed(5, u64::MAX);
    assert!(!opens(&history, Found::Damaged, End::PowerCut));
}

#[test]
fn what_was_misread_may_be_damaged_until_it_is_replaced() {
    let mut history = history(false);
    history.begin(Some(1), 1, 1);
    history.end(1, 2, true);
    history.flushed(3, u64::MAX);
    history.doubt(4);
    for found in [whole(1), Found::Whole(None), Found::Damaged] {
        assert!(opens(&history, found, End::PowerCut));
    }
    history.begin(Some(2), 5, 5);
    history.end(5, 6, true);
    history.flushed(7, u64::MAX);
    assert!(!opens(&history, Found::Damaged, End::PowerCut));
}

#[test]
fn replaced_changes_are_forgotten_and_nothing_else() {
    let mut history = history(false);
    for number in 1..=20 {
        history.begin(Some(number), 2 * number, 2 * number);
        history.end(2 * number, 2 * number + 1, true);
    }
    history.flushed(50, u64::MAX);
    assert_eq!(history.changes.len(), 1);
    assert!(opens(&history, whole(20), End::PowerCut));
    assert!(!opens(&history, whole(19), End::PowerCut));
}

#[test]
fn presence_follows_the_changes_that_may_show() {
    let mut history = history(false);
    assert!(history.check_presence(false, 1).is_ok());
    assert!(history.check_presence(true, 1).is_err());
    history.begin(Some(1), 2, 2);
    assert!(history.check_presence(false, 3).is_ok() && history.check_presence(true, 3).is_ok());
    history.end(2, 4, true);
    assert!(history.check_presence(false, 5).is_err());
    assert!(history.check_presence(true, 5).is_ok());
}
