//! A device that stalls, fails, and works again.

use std::time::Duration;

use raw_block_core::backend::OpKind;
use raw_block_core::simulated::DeviceFault;
use raw_block_store::{
    AsyncOptions, AsyncStore, Error, ErrorKind, FrontHealth, HealthState, Outcome,
};

use crate::support::{self, Stoppable, block_on, error, found, get, put, until};

fn options() -> AsyncOptions {
    support::options().probe_interval(Duration::from_millis(5)).load_threads(1)
}

fn is_present(store: &AsyncStore) -> bool {
    block_on(store.contains_many([b"key".to_vec()]))[0].result.clone().unwrap()
}

fn assert_refused(store: &AsyncStore, health: FrontHealth) {
    assert_eq!(store.stats().health, health);
    assert!(!is_present(store), "absent as far as a caller can use it");
    let refused = block_on(store.get_many([get(b"key")]));
    assert!(matches!(error(&refused), Error::Unavailable { .. }));
    let refused = block_on(store.put_many([put(b"other", b"1")]));
    assert!(matches!(error(&refused), Error::Unavailable { .. }));
    assert_eq!(refused[0].item.key(), b"other");
    assert!(matches!(block_on(store.flush()), Err(Error::Unavailable { .. })));
    // A completion queue returns the request, and answers what it accepted.
    let queue = store.completions(1).unwrap();
    let refused = queue.submit_get([get(b"key")]).unwrap_err();
    assert!(matches!(refused.error, Error::Unavailable { .. }));
    let id = queue.submit_contains([b"key".to_vec()]).unwrap();
    let mut completions = Vec::new();
    assert_eq!(queue.drain(&mut completions).unwrap(), 1);
    let Outcome::Contains(present) = &completions[0].outcome else { panic!() };
    assert_eq!((completions[0].id, present[0].result.clone().unwrap()), (id, false));
}

#[test]
fn a_device_that_stalls_is_slow_until_it_answers() {
    let stopped = Stoppable::new(&options().slow_after(Duration::from_secs(1)));
    let store = &stopped.store;
    store.store().put(b"key", &[1; 1000]).unwrap();
    stopped.stop(&[OpKind::Read]);
    let stuck = store.get_many([get(b"key")]);
    stopped.wait_for_running(1);
    let waits = store.get_many([get(b"key")]);
    // What waits is turned away when the device is found slow.
    let refused = block_on(waits);
    assert!(error(&refused).to_string().contains("a call has been in progress for 1s"));
    assert_refused(store, FrontHealth::Slow);
    until(|| store.store().stats().health.state == HealthState::Degraded);
    let health = store.store().stats().health;
    assert!(health.reason.contains("in progress for 1s"), "{}", health.reason);
    assert_eq!(store.stats().running, 1, "its memory is the device's");

    stopped.go_on();
    assert_eq!(found(&block_on(stuck)), Some(vec![1; 1000]));
    until(|| store.stats().health == FrontHealth::Healthy);
    until(|| store.store().stats().health.state == HealthState::Healthy);
    assert!(is_present(store));
}

#[test]
fn a_device_that_fails_is_refused_until_it_works() {
    let options = options().failed_after(3);
    let stopped = Stoppable::new(&options);
    let store = &stopped.store;
    store.store().put(b"key", &[1; 1000]).unwrap();
    stopped.device.inject(DeviceFault::fail(OpKind::Read, libc::EIO));
    for _ in 0..3 {
        assert!(is_present(store));
        let failed = block_on(store.get_many([get(b"key")]));
        assert!(matches!(error(&failed), Error::Device { .. }));
    }
    assert_refused(store, FrontHealth::Failed);
    until(|| store.store().stats().health.state == HealthState::Failed);
    let reads = || store.store().dispatcher().stats().errors(ErrorKind::Io);
    let before = reads();
    until(|| reads() > before + 2);
    assert_refused(store, FrontHealth::Failed);

    stopped.go_on();
    until(|| store.stats().health == FrontHealth::Healthy);
    assert!(is_present(store));
    assert_eq!(found(&block_on(store.get_many([get(b"key")]))), Some(vec![1; 1000]));
}

#[test]
fn errors_at_one_place_are_no_failure_of_the_device() {
    let stopped = Stoppable::new(&options().failed_after(1));
    let store = &stopped.store;
    store.store().put(b"key", &[1; 1000]).unwrap();
    stopped.device.inject(DeviceFault::bad_medium(OpKind::Read));
    for _ in 0..3 {
        let failed = block_on(store.get_many([get(b"key")]));
        assert!(failed[0].result.is_err());
    }
    assert_eq!(store.stats().health, FrontHealth::Healthy);
}
