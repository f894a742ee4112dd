//! A deterministic scheduler: it runs one thread at a time, in an order that a seed gives.

use std::cell::RefCell;
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
/// Returns when all functions have returned.
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
pub fn run_interleaved(seed: u64, mut functions: Vec<Box<dyn FnOnce() + Send + '_>>) {
    if functions.len() == 1 {
        return functions.remove(0)();
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let threads: Vec<_> = (0..functions.len()).map(|index| Thread { index, wakes: 0 }).collect();
    // Some seeds switch threads at almost every point, some rarely.
    let stays = rng.u32(1..16);
    let scheduler = Arc::new(Scheduler {
        signals: threads.iter().map(|_| Condvar::new()).collect(),
        state: Mutex::new(State { rng, stays, threads, now: 0, running: 0, stalled: 0 }),
    });
    let results: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = functions
            .into_iter()
            .enumerate()
            .map(|(me, function)| {
                let scheduler = Arc::clone(&scheduler);
                scope.spawn(move || scheduler.run(me, function))
            })
            .collect();
        started.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for result in results {
        // The panic of the scheduler itself, or that of the function.
        result.and_then(|ended| ended).unwrap_or_else(|panic| resume_unwind(panic));
    }
}

struct Scheduler {
    state: Mutex<State>,
    /// For each thread, signalled when it is to run.
    signals: Box<[Condvar]>,
}

struct State {
    rng: fastrand::Rng,
    /// A thread that can go on keeps running in `stays` of `stays + 1` cases.
    stays: u32,
    /// The threads that have not ended.
    threads: Vec<Thread>,
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
    /// The scheduling point before which it sleeps, unless all others sleep too. Long sleeps find
    /// more races: the other threads do more between two steps of this one.
    wakes: u64,
}

/// The longest sleep of a thread, as a power of two of scheduling points.
const LONGEST_SLEEP: u32 = 7;

thread_local! {
    /// The scheduler of this thread, and its index there.
    static MINE: RefCell<Option<(Arc<Scheduler>, usize)>> = const { RefCell::new(None) };
}

/// Whether a scheduler runs this thread.
pub(crate) fn is_running() -> bool {
    MINE.with_borrow(Option::is_some)
}

/// A scheduling point: another thread may run first.
pub(crate) fn yield_now() {
    with_mine(|scheduler, me| {
        let mut state = scheduler.lock();
        state.stalled = 0;
        state.now += 1;
        let stays = state.stays;
        if state.rng.u32(..=stays) == 0 {
            let wakes = state.now + (1 << state.rng.u32(..=LONGEST_SLEEP));
            state
                .threads
                .iter_mut()
                .filter(|thread| thread.index == me)
                .for_each(|thread| thread.wakes = wakes);
            let next = state.choose();
            scheduler.switch(state, me, next);
        }
    });
}

/// Lets another thread run, because this one cannot go on before another has acted.
pub(crate) fn wait() {
    with_mine(|scheduler, me| {
        let mut state = scheduler.lock();
        state.stalled += 1;
        state.now += 1;
        if state.stalled > MAX_STALLED {
            drop(state);
            panic!("deadlock: no thread under the scheduler can go on");
        }
        let next = state.choose();
        scheduler.switch(state, me, next);
    });
}

/// As [`wait`], for a limited time. Returns whether the limit is reached: the seed decides, and it
/// is at the latest when no other thread can go on.
pub(crate) fn wait_timeout() -> bool {
    let mut timed_out = false;
    with_mine(|scheduler, me| {
        let mut state = scheduler.lock();
        state.stalled += 1;
        state.now += 1;
        timed_out = state.stalled > MAX_STALLED / 2 || state.rng.u32(..TIMEOUT_ODDS) == 0;
        if timed_out {
            state.stalled = 0;
        } else {
            let next = state.choose();
            scheduler.switch(state, me, next);
        }
    });
    timed_out
}

fn with_mine(act: impl FnOnce(&Scheduler, usize)) {
    let mine = MINE.with_borrow(Clone::clone);
    if let Some((scheduler, me)) = mine {
        act(&scheduler, me);
    }
}

impl State {
    /// Chooses a thread that has not ended: one that does not sleep, if there is one.
    fn choose(&mut self) -> usize {
        let awake = self.threads.iter().filter(|thread| thread.wakes <= self.now);
        let awake: Vec<_> = awake.map(|thread| thread.index).collect();
        match awake.len() {
            0 => self.threads[self.rng.usize(..self.threads.len())].index,
            awake_len => awake[self.rng.usize(..awake_len)],
        }
    }
}

impl Scheduler {
    fn run(
        self: Arc<Self>,
        me: usize,
        function: Box<dyn FnOnce() + Send + '_>,
    ) -> thread::Result<()> {
        MINE.set(Some((Arc::clone(&self), me)));
        let state = self.lock();
        drop(self.wait_to_run(state, me));
        let ended = catch_unwind(AssertUnwindSafe(function));
        MINE.set(None);
        let mut state = self.lock();
        state.stalled = 0;
        state.threads.retain(|thread| thread.index != me);
        if !state.threads.is_empty() {
            state.running = state.choose();
            self.signals[state.running].notify_one();
        }
        ended
    }

    fn switch(&self, mut state: MutexGuard<'_, State>, me: usize, next: usize) {
        if next != me {
            state.running = next;
            // The next thread would wake only to wait for the lock.
            drop(state);
            self.signals[next].notify_one();
            drop(self.wait_to_run(self.lock(), me));
        }
    }

    fn wait_to_run<'a>(&'a self, state: MutexGuard<'a, State>, me: usize) -> MutexGuard<'a, State> {
        self.signals[me]
            .wait_while(state, |state| state.running != me)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
