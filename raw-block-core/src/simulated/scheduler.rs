//! A deterministic scheduler: it runs one thread at a time, in an order that a seed gives.

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// After this many attempts in a row that stalled, the threads are deadlocked.
const MAX_STALLED: u32 = 1000;

/// One in this many waits with a limit reaches it.
const TIMEOUT_ODDS: u32 = 64;

/// Runs each function on its own thread under a deterministic scheduler.
///
/// One thread runs at a time. Where it waits for a [`SimulatedDevice`](super::SimulatedDevice) or
/// takes a lock of this workspace, the seed chooses the thread that runs next. The same seed gives
/// the same interleaving, so a seed replays a race.
///
/// A thread waits for an op that a [`DeviceFault`](super::DeviceFault) holds as it waits for a
/// lock. Between these points a thread must not wait for another one.
///
/// Threads that these functions start, such as that of [tickets](crate::Ticket), run under the
/// scheduler too.
///
/// Returns when all functions have returned and these threads have ended.
///
/// # Panics
/// With the panic of a function, after the others have returned; and when no thread can run.
///
/// # Examples
/// ```
/// use raw_block_core::simulated::{SimulatedDevice, run_interleaved};
/// use raw_block_core::{Dispatcher, Geometry, WriteAt};
///
/// let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512)?, 7)?;
/// let device = Dispatcher::new(simulated.backend())?;
/// let write = |byte: u8| {
///     let device = &device;
///     move || device.write_buffers(&[WriteAt::new(0, &[byte; 512])]).all().unwrap()
/// };
/// // The seed alone decides which of them writes last.
/// run_interleaved(7, vec![Box::new(write(1)), Box::new(write(2))]);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
pub fn run_interleaved(seed: u64, functions: Vec<Box<dyn FnOnce() + Send + '_>>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    // Some seeds switch threads at almost every point, some rarely.
    let stays = rng.u32(1..16);
    let state = State { rng, stays, threads: Vec::new(), added: 0, now: 0, running: 0, stalled: 0 };
    let scheduler = Arc::new(Scheduler { state: Mutex::new(state), ended: Condvar::new() });
    let places: Vec<_> = functions.iter().map(|_| scheduler.add()).collect();
    let results: Vec<_> = thread::scope(|scope| {
        let start = |(place, function)| scope.spawn(move || Place::run(place, function));
        let started: Vec<_> = places.into_iter().zip(functions).map(start).collect();
        started.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let left = scheduler.ended.wait_while(scheduler.lock(), |state| !state.threads.is_empty());
    drop(left);
    for result in results {
        // The panic of the scheduler itself, or that of the function.
        result.and_then(|ended| ended).unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// Starts a thread. If a scheduler runs the calling thread, it runs the new one too.
pub(crate) fn spawn(
    builder: thread::Builder,
    function: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let Some(mine) = MINE.with_borrow(Clone::clone) else { return builder.spawn(function) };
    let place = mine.scheduler.add();
    builder.spawn(move || {
        place.run(function).unwrap_or_else(|panic| resume_unwind(panic));
    })
}

struct Scheduler {
    state: Mutex<State>,
    /// Signalled when the last thread has ended.
    ended: Condvar,
}

/// The place of a thread under a scheduler. The thread leaves the scheduler when it is dropped.
struct Place {
    scheduler: Arc<Scheduler>,
    index: usize,
    /// Signalled when the thread is to run.
    signal: Arc<Condvar>,
}

struct State {
    rng: fastrand::Rng,
    /// A thread that can go on keeps running in `stays` of `stays + 1` cases.
    stays: u32,
    /// The threads that have not ended.
    threads: Vec<Thread>,
    /// How many threads were added.
    added: usize,
    /// How many scheduling points have passed.
    now: u64,
    /// The index of the thread that runs.
    running: usize,
    /// How many times in a row the chosen thread could not go on.
    stalled: u32,
}

/// A thread that has not ended.
struct Thread {
    index: usize,
    signal: Arc<Condvar>,
    /// The scheduling point before which it sleeps, unless all others sleep too. Long sleeps find
    /// more races: the other threads do more between two steps of this one.
    wakes: u64,
}

/// The longest sleep of a thread, as a power of two of scheduling points.
const LONGEST_SLEEP: u32 = 7;

thread_local! {
    /// The place of this thread.
    static MINE: RefCell<Option<Arc<Place>>> = const { RefCell::new(None) };
}

/// Whether a scheduler runs this thread.
pub(crate) fn is_running() -> bool {
    MINE.with_borrow(Option::is_some)
}

/// A scheduling point: another thread may run first.
pub(crate) fn yield_now() {
    with_mine(|mine| {
        let mut state = mine.scheduler.lock();
        state.stalled = 0;
        state.now += 1;
        let stays = state.stays;
        if state.rng.u32(..=stays) == 0 {
            let wakes = state.now + (1 << state.rng.u32(..=LONGEST_SLEEP));
            let me = state.threads.iter_mut().find(|thread| thread.index == mine.index);
            me.into_iter().for_each(|thread| thread.wakes = wakes);
            mine.switch(state);
        }
    });
}

/// Lets another thread run, because this one cannot go on before another has acted.
pub(crate) fn wait() {
    with_mine(|mine| {
        let mut state = mine.scheduler.lock();
        state.stalled += 1;
        state.now += 1;
        if state.stalled > MAX_STALLED {
            drop(state);
            panic!("deadlock: no thread under the scheduler can go on");
        }
        mine.switch(state);
    });
}

/// As [`wait`], for a limited time. Returns whether the limit is reached: the seed decides, and it
/// is at the latest when no other thread can go on.
pub(crate) fn wait_timeout() -> bool {
    let mut timed_out = false;
    with_mine(|mine| {
        let mut state = mine.scheduler.lock();
        state.stalled += 1;
        state.now += 1;
        timed_out = state.stalled > MAX_STALLED / 2 || state.rng.u32(..TIMEOUT_ODDS) == 0;
        if timed_out {
            state.stalled = 0;
        } else {
            mine.switch(state);
        }
    });
    timed_out
}

fn with_mine(act: impl FnOnce(&Place)) {
    let mine = MINE.with_borrow(Clone::clone);
    if let Some(mine) = mine {
        act(&mine);
    }
}

impl State {
    /// Chooses a thread that has not ended: one that does not sleep, if there is one.
    fn choose(&mut self) -> &Thread {
        let awake = |thread: &&Thread| thread.wakes <= self.now;
        let chosen = match self.threads.iter().filter(awake).count() {
            0 => self.rng.usize(..self.threads.len()),
            count => {
                let chosen = self.rng.usize(..count);
                let awake = |(_, thread): &(usize, &Thread)| thread.wakes <= self.now;
                let mut awake = self.threads.iter().enumerate().filter(awake);
                awake.nth(chosen).map_or(0, |(position, _)| position)
            }
        };
        self.running = self.threads[chosen].index;
        &self.threads[chosen]
    }
}

impl Scheduler {
    /// Adds a thread, which is about to start.
    fn add(self: &Arc<Self>) -> Place {
        let mut state = self.lock();
        let (index, signal) = (state.added, Arc::new(Condvar::new()));
        state.added += 1;
        state.stalled = 0;
        state.threads.push(Thread { index, signal: Arc::clone(&signal), wakes: 0 });
        Place { scheduler: Arc::clone(self), index, signal }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Runs the function of this thread when it is chosen.
    fn run(self, function: impl FnOnce()) -> thread::Result<()> {
        let place = Arc::new(self);
        MINE.set(Some(Arc::clone(&place)));
        drop(place.wait_to_run(place.scheduler.lock()));
        let ended = catch_unwind(AssertUnwindSafe(function));
        MINE.set(None);
        ended
    }

    /// Lets another thread run, unless this one is chosen.
    fn switch(&self, mut state: MutexGuard<'_, State>) {
        let next = state.choose();
        if next.index != self.index {
            let signal = Arc::clone(&next.signal);
            // The next thread would wake only to wait for the lock.
            drop(state);
            signal.notify_one();
            drop(self.wait_to_run(self.scheduler.lock()));
        }
    }

    fn wait_to_run<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waits = |state: &mut State| state.running != self.index;
        self.signal.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        state.stalled = 0;
        state.threads.retain(|thread| thread.index != self.index);
        if state.threads.is_empty() {
            self.scheduler.ended.notify_all();
        } else if state.running == self.index {
            state.choose().signal.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync;

    /// The order in which two threads add to a list that each locks again and again.
    fn order(seed: u64) -> Vec<u8> {
        let list = Mutex::new(Vec::new());
        let add = |me: u8| {
            let list = &list;
            move || (0..20).for_each(|_| sync::lock(list).push(me))
        };
        run_interleaved(seed, vec![Box::new(add(0)), Box::new(add(1))]);
        list.into_inner().unwrap()
    }

    #[test]
    fn the_seed_chooses_the_thread_that_runs() {
        assert!((0..20).all(|seed| order(seed) == order(seed)));
        assert!((1..20).any(|seed| order(seed) != order(0)));
    }

    #[test]
    fn started_threads_run_under_the_scheduler_too() {
        let order = |seed: u64| {
            let list = Arc::new(Mutex::new(Vec::new()));
            let add =
                |me: u8, list: &Mutex<Vec<u8>>| (0..20).for_each(|_| sync::lock(list).push(me));
            let started = Arc::clone(&list);
            let start = || {
                sync::spawn(thread::Builder::new(), move || add(1, &started)).unwrap();
                add(0, &list);
            };
            run_interleaved(seed, vec![Box::new(start)]);
            // The thread has left the list.
            Arc::into_inner(list).unwrap().into_inner().unwrap()
        };
        for seed in 0..20 {
            assert_eq!(order(seed), order(seed));
            assert_eq!(order(seed).len(), 40);
        }
        assert!((1..20).any(|seed| order(seed) != order(0)));
    }

    #[test]
    fn a_wait_for_a_signal_lets_its_sender_run() {
        let (ready, signal) = (Mutex::new(false), Condvar::new());
        let wait = || {
            let mut guard = sync::lock(&ready);
            while !*guard {
                guard = sync::wait(&signal, &ready, guard);
            }
        };
        for seed in 0..20 {
            *ready.lock().unwrap() = false;
            run_interleaved(seed, vec![Box::new(wait), Box::new(|| *sync::lock(&ready) = true)]);
        }
    }

    #[test]
    fn a_wait_with_a_limit_ends_when_no_other_thread_can_go_on() {
        let (never, signal) = (Mutex::new(()), Condvar::new());
        let wait = || {
            let mut guard = sync::lock(&never);
            loop {
                let limit = std::time::Duration::MAX;
                let (now, timed_out) = sync::wait_timeout(&signal, &never, guard, limit);
                if timed_out {
                    return;
                }
                guard = now;
            }
        };
        (0..20).for_each(|seed| run_interleaved(seed, vec![Box::new(wait), Box::new(wait)]));
    }

    #[test]
    #[should_panic(expected = "deadlock: no thread under the scheduler can go on")]
    fn threads_that_wait_for_each_other_are_reported() {
        let locks = [Mutex::new(()), Mutex::new(())];
        let both = |first: usize| {
            let locks = &locks;
            move || {
                for _ in 0..1000 {
                    let _first = sync::lock(&locks[first]);
                    let _second = sync::lock(&locks[1 - first]);
                }
            }
        };
        run_interleaved(3, vec![Box::new(both(0)), Box::new(both(1))]);
    }
}
