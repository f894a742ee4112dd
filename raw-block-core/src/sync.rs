//! Threads, locks and condition variables that the scheduler of a simulation
//! (`simulated::run_interleaved`) can interleave.
//!
//! For the crates of this workspace only, and not a public interface. Without the feature
//! `simulated` these are the calls of the standard library.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[cfg(feature = "simulated")]
use crate::simulated::scheduler;

/// Starts a thread. If the calling thread runs under the scheduler, the new one does too. There no
/// thread may wait in [`JoinHandle::join`]: the scheduler does not know of it.
///
/// # Errors
/// When the system starts no further thread.
pub fn spawn(
    builder: thread::Builder,
    function: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    #[cfg(feature = "simulated")]
    return scheduler::spawn(builder, function);
    #[cfg(not(feature = "simulated"))]
    builder.spawn(function)
}

/// Locks a mutex. Under the scheduler another thread may run first. Ignores poisoning.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(feature = "simulated")]
    if scheduler::is_running() {
        scheduler::yield_now();
        loop {
            match mutex.try_lock() {
                Ok(guard) => return guard,
                Err(std::sync::TryLockError::Poisoned(error)) => return error.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => scheduler::wait(),
            }
        }
    }
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Releases the guard, waits for a signal, and locks the mutex again. May wake without a signal.
pub fn wait<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulated")]
    if scheduler::is_running() {
        drop(guard);
        scheduler::wait();
        return lock(mutex);
    }
    let _ = mutex;
    signal.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// As [`wait`], for at most this long. Returns whether the time has passed; under the scheduler the
/// seed decides, and it has passed at the latest when no other thread can go on.
pub fn wait_timeout<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> (MutexGuard<'a, T>, bool) {
    #[cfg(feature = "simulated")]
    if scheduler::is_running() {
        drop(guard);
        let timed_out = scheduler::wait_timeout();
        return (lock(mutex), timed_out);
    }
    let _ = mutex;
    let (guard, result) =
        signal.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
    (guard, result.timed_out())
}

/// As [`wait`], for at most this long. Under the scheduler it only lets another thread run.
pub fn wait_for<'a, T>(
    signal: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    #[cfg(feature = "simulated")]
    if scheduler::is_running() {
        drop(guard);
        return lock(mutex);
    }
    let _ = mutex;
    signal.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}
