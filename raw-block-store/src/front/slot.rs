//! Where a future waits for its result.

use std::mem;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use raw_block_core::sync;

use super::catch;

/// The result of a request, from the worker that has it to the future that awaits it.
#[derive(Debug)]
pub(super) struct Slot<V>(Mutex<State<V>>);

#[derive(Debug)]
enum State<V> {
    /// With the waker of the task that polled last.
    Waiting(Option<Waker>),
    Ready(V),
    /// The future returned the result, or was dropped.
    Taken,
}

impl<V> Slot<V> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Waiting(None)))
    }

    pub(super) fn ready(value: V) -> Self {
        Self(Mutex::new(State::Ready(value)))
    }

    /// Stores the result and wakes the task; drops the result if the future was dropped.
    pub(super) fn send(&self, value: V) {
        let mut state = sync::lock(&self.0);
        if let State::Waiting(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Ready(value);
            drop(state);
            if let Some(waker) = waker {
                catch::logged("a waker", || waker.wake());
            }
        } else {
            drop(state);
            catch::logged("the memory of a request", || drop(value));
        }
    }

    /// The result. After it was returned once, there is none any more.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<V> {
        // Foreign code runs without the lock: cloning a waker, and dropping one.
        let waker = context.waker().clone();
        let mut state = sync::lock(&self.0);
        if let State::Waiting(old) = &mut *state {
            let old = old.replace(waker);
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        match mem::replace(&mut *state, State::Taken) {
            State::Ready(value) => Poll::Ready(value),
            State::Waiting(_) | State::Taken => Poll::Pending,
        }
    }

    /// The future was dropped. A result that is there already is dropped too.
    pub(super) fn abandon(&self) {
        let state = mem::replace(&mut *sync::lock(&self.0), State::Taken);
        drop(state);
    }
}
