//! Threads that take turns, so that what they do together is the same every time.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// So often in a row threads are asked in vain whether they can go on.
const PATIENCE: u32 = 1000;

/// One of so many waits with a limit ends because of it.
const TIMEOUT_ODDS: u32 = 64;

/// Runs these functions on threads that take turns: one of them runs at a time, and where it waits for a
/// [`SimulatedDevice`](super::SimulatedDevice), or takes a lock of this workspace that another may hold
/// meanwhile, the seed says which of them goes on. With the same seed they do the same, so what goes wrong
/// between threads is told again by its seed.
///
/// Ops that a [`Fault`](super::Fault) holds are waited for like a lock. Between these points a thread must
/// wait for nothing that another one of them is to do.
///
/// Returns when all are over.
///
/// # Panics
/// With the panic of a function, when the others are over; and when none of them can go on.
///
/// # Examples
/// ```
/// use raw_block_core::simulated::{SimulatedDevice, take_turns};
/// use raw_block_core::{Dispatcher, Geometry, WriteAt};
///
/// let simulated = SimulatedDevice::new(Geometry::new(1 << 20, 512)?, 7)?;
/// let device = Dispatcher::new(simulated.backend())?;
/// let write = |byte: u8| {
///     let device = &device;
///     move || device.write_buffers(&[WriteAt::new(0, &[byte; 512])]).all().unwrap()
/// };
/// // Which of them writes last is a matter of the seed alone.
/// take_turns(7, vec![Box::new(write(1)), Box::new(write(2))]);
/// # Ok::<(), raw_block_core::Error>(())
/// ```
pub fn take_turns(seed: u64, mut functions: Vec<Box<dyn FnOnce() + Send + '_>>) {
    if functions.len() == 1 {
        return functions.remove(0)();
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let left: Vec<_> = (0..functions.len()).map(|index| Left { index, wakes: 0 }).collect();
    // Some rounds change turns at almost every point, some rarely.
    let stays = rng.u32(1..16);
    let turns = Arc::new(Turns {
        signals: left.iter().map(|_| Condvar::new()).collect(),
        state: Mutex::new(State { rng, stays, left, now: 0, turn: 0, vain: 0 }),
    });
    let results: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = functions
            .into_iter()
            .enumerate()
            .map(|(me, function)| {
                let turns = Arc::clone(&turns);
                scope.spawn(move || turns.take_part(me, function))
            })
            .collect();
        started.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for result in results {
        // A thread that could not even end its turn, or the panic that it ended with.
        result.and_then(|ended| ended).unwrap_or_else(|panic| resume_unwind(panic));
    }
}

struct Turns {
    state: Mutex<State>,
    /// One for each thread: it is its turn.
    signals: Box<[Condvar]>,
}

struct State {
    rng: fastrand::Rng,
    /// A thread that can go on does so in `stays` of `stays + 1` cases.
    stays: u32,
    /// The threads that are not over.
    left: Vec<Left>,
    /// How often a thread came to a point where another may go first.
    now: u64,
    /// Whose turn it is.
    turn: usize,
    /// How often in a row a thread could not go on.
    vain: u32,
}

/// A thread that is not over.
struct Left {
    index: usize,
    /// When it may go on, if another one can until then. What a thread is about to do is disturbed best by what
    /// others do in the meantime if that is a lot.
    wakes: u64,
}

/// The longest time for which a thread is passed over, as a power of two.
const LONGEST_SLEEP: u32 = 7;

thread_local! {
    /// The turns that this thread takes part in, and which one it is.
    static MINE: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Whether this thread takes turns with others.
pub(crate) fn are_taken() -> bool {
    MINE.with_borrow(Option::is_some)
}

/// Another thread may go first.
pub(crate) fn pass() {
    with_mine(|turns, me| {
        let mut state = turns.lock();
        state.vain = 0;
        state.now += 1;
        let stays = state.stays;
        if state.rng.u32(..=stays) == 0 {
            let wakes = state.now + (1 << state.rng.u32(..=LONGEST_SLEEP));
            state
                .left
                .iter_mut()
                .filter(|left| left.index == me)
                .for_each(|left| left.wakes = wakes);
            let next = state.choose();
            turns.hand_over(state, me, next);
        }
    });
}

/// This thread cannot go on before another one has done something.
pub(crate) fn wait() {
    with_mine(|turns, me| {
        let mut state = turns.lock();
        state.vain += 1;
        state.now += 1;
        if state.vain > PATIENCE {
            drop(state);
            panic!("none of the threads that take turns can go on");
        }
        let next = state.choose();
        turns.hand_over(state, me, next);
    });
}

/// The same, but for a limited time. Returns whether it is over: chance says so, and it is at the latest when no other
/// thread can go on.
pub(crate) fn wait_at_most() -> bool {
    let mut is_over = false;
    with_mine(|turns, me| {
        let mut state = turns.lock();
        state.vain += 1;
        state.now += 1;
        is_over = state.vain > PATIENCE / 2 || state.rng.u32(..TIMEOUT_ODDS) == 0;
        if is_over {
            state.vain = 0;
        } else {
            let next = state.choose();
            turns.hand_over(state, me, next);
        }
    });
    is_over
}

fn with_mine(act: impl FnOnce(&Turns, usize)) {
    let mine = MINE.with_borrow(Clone::clone);
    if let Some((turns, me)) = mine {
        act(&turns, me);
    }
}

impl State {
    /// One of the threads that are not over, and may go on if there is one that may.
    fn choose(&mut self) -> usize {
        let awake = self.left.iter().filter(|left| left.wakes <= self.now);
        let awake: Vec<_> = awake.map(|left| left.index).collect();
        match awake.len() {
            0 => self.left[self.rng.usize(..self.left.len())].index,
            awake_len => awake[self.rng.usize(..awake_len)],
        }
    }
}

impl Turns {
    fn take_part(
        self: Arc<Self>,
        me: usize,
        function: Box<dyn FnOnce() + Send + '_>,
    ) -> thread::Result<()> {
        MINE.set(Some((Arc::clone(&self), me)));
        let state = self.lock();
        drop(self.wait_for_turn(state, me));
        let ended = catch_unwind(AssertUnwindSafe(function));
        MINE.set(None);
        let mut state = self.lock();
        state.vain = 0;
        state.left.retain(|left| left.index != me);
        if !state.left.is_empty() {
            state.turn = state.choose();
            self.signals[state.turn].notify_one();
        }
        ended
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>, me: usize, next: usize) {
        if next != me {
            state.turn = next;
            self.signals[next].notify_one();
            drop(self.wait_for_turn(state, me));
        }
    }

    fn wait_for_turn<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        me: usize,
    ) -> MutexGuard<'a, State> {
        self.signals[me]
            .wait_while(state, |state| state.turn != me)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting;

    /// The order in which two threads add to a list that each locks again and again.
    fn order(seed: u64) -> Vec<u8> {
        let list = Mutex::new(Vec::new());
        let add = |me: u8| {
            let list = &list;
            move || (0..20).for_each(|_| waiting::lock(list).push(me))
        };
        take_turns(seed, vec![Box::new(add(0)), Box::new(add(1))]);
        list.into_inner().unwrap()
    }

    #[test]
    fn the_seed_says_who_goes_on() {
        assert!((0..20).all(|seed| order(seed) == order(seed)));
        assert!((1..20).any(|seed| order(seed) != order(0)));
    }

    #[test]
    fn a_signal_is_waited_for_without_standing_in_its_way() {
        let (ready, signal) = (Mutex::new(false), Condvar::new());
        let wait = || {
            let mut guard = waiting::lock(&ready);
            while !*guard {
                guard = waiting::wait(&signal, &ready, guard);
            }
        };
        for seed in 0..20 {
            *ready.lock().unwrap() = false;
            take_turns(seed, vec![Box::new(wait), Box::new(|| *waiting::lock(&ready) = true)]);
        }
    }

    #[test]
    fn a_wait_with_a_limit_ends_when_no_other_thread_can_go_on() {
        let (never, signal) = (Mutex::new(()), Condvar::new());
        let wait = || {
            let mut guard = waiting::lock(&never);
            loop {
                let limit = std::time::Duration::MAX;
                let (now, is_over) = waiting::wait_at_most(&signal, &never, guard, limit);
                if is_over {
                    return;
                }
                guard = now;
            }
        };
        (0..20).for_each(|seed| take_turns(seed, vec![Box::new(wait), Box::new(wait)]));
    }

    #[test]
    #[should_panic(expected = "none of the threads that take turns can go on")]
    fn threads_that_wait_for_each_other_are_told() {
        let locks = [Mutex::new(()), Mutex::new(())];
        let both = |first: usize| {
            let locks = &locks;
            move || {
                for _ in 0..1000 {
                    let _first = waiting::lock(&locks[first]);
                    let _second = waiting::lock(&locks[1 - first]);
                }
            }
        };
        take_turns(3, vec![Box::new(both(0)), Box::new(both(1))]);
    }
}
