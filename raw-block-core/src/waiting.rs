//! Waiting for other threads, where a simulation may say whose turn it is.
//!
//! Not an interface of this crate: it is here for the crates of this workspace. Without the feature
//! `simulated` these are the calls of the standard library.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "simulated")]
use crate::simulated::turns;

/// Locks a mutex. While [turns](crate::simulated::take_turns) are taken another thread may go first.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(feature = "simulated")]
    if turns::are_taken() {
        turns::pass();
        loop {
            match mutex.try_lock() {
                Ok(guard) => return guard,
                Err(std::sync::TryLockError::Poisoned(error)) => return error.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => turns::wait(),
            }
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a signal, or for no reason at all, with this mutex, whose guard is given up meanwhile.
pub fn wait<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulated")]
    if turns::are_taken() {
        drop(guard);
        turns::wait();
        return lock(mutex);
    }
    let _ = mutex;
    signal.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The same for no longer than this. Returns whether the time is over: while turns are taken, chance says so, and it is at
/// the latest when no other thread can go on.
pub fn wait_at_most<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    at_most: Duration,
) -> (MutexGuard<'a, T>, bool) {
    #[cfg(feature = "simulated")]
    if turns::are_taken() {
        drop(guard);
        let is_over = turns::wait_at_most();
        return (lock(mutex), is_over);
    }
    let _ = mutex;
    let (guard, result) =
        signal.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner);
    (guard, result.timed_out())
}

/// The same for no longer than this, which means nothing while turns are taken: there another thread may go first.
pub fn wait_for<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    at_most: Duration,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulated")]
    if turns::are_taken() {
        drop(guard);
        return lock(mutex);
    }
    let _ = mutex;
    signal.wait_timeout(guard, at_most).unwrap_or_else(PoisonError::into_inner).0
}
