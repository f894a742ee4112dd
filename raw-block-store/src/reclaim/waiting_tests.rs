//! Deletes that wait for space, and the reclaims that serve them.

use std::sync::Arc;
use std::thread;

use super::fixture::{BLOCK, Fixture};
use super::make_space;
use crate::options::EvictionPolicy;
use crate::state::space::{Allocation, Space};

/// What a reclaim grants is in flight until the thread of the delete uses it. That thread may be
/// the one that reclaims.
#[test]
fn a_reclaim_does_not_wait_for_the_delete_that_it_serves() {
    let fixture = Fixture::new(12, EvictionPolicy::None);
    assert!((0..1000).any(|key| fixture.put(key, 3 * BLOCK, 1).is_err()));
    // The store is full, and then the segment for tombstones, too.
    loop {
        let mut tombstone = Allocation::default();
        if fixture.state.allocate_tombstones(&mut tombstone).is_err() {
            break;
        }
        fixture.publish_delete(1000, &tombstone);
    }
    let waiting = fixture.state.with_space(Space::ask_for_tombstones);
    let state = Arc::clone(&fixture.state);
    let reclaim = thread::spawn(move || make_space(&state).unwrap());
    while !reclaim.is_finished() {
        // No other thread ends its wait.
        assert!(!fixture.state.is_waited_for(), "the reclaim waits for its own caller");
        thread::yield_now();
    }
    reclaim.join().unwrap();
    let granted = fixture.state.with_space(|space| space.take_granted(waiting)).unwrap();
    assert!(fixture.state.with_space(|space| space.is_exhausted()), "it had a reason to wait");
    fixture.publish_delete(1000, &granted);
}
