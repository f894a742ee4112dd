//! Runs scenarios on several threads until there were enough cuts or violations.

use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::focus::Focus;
use super::processors;
use super::run;
use super::scenario::ScenarioId;
use super::templates::Templates;

/// When a search ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) cuts: u64,
    /// Seed of the first scenario.
    pub(super) seed: u64,
    pub(super) threads: u32,
    /// The maximum number of cuts of the first incarnation of a scenario, and of the second.
    pub(super) places: u64,
    pub(super) violations: usize,
    /// Only scenarios with this focus.
    pub(super) focus: Option<Focus>,
}

/// The result of a search.
pub(super) struct Report {
    pub(super) cuts: u64,
    pub(super) violations: Vec<(ScenarioId, String)>,
}

/// A scenario that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(40);

struct Search<'a> {
    templates: &'a Templates,
    budget: Budget,
    cuts: AtomicU64,
    next_seed: AtomicU64,
    violations: Mutex<Vec<(ScenarioId, String)>>,
    /// The scenario of each thread, and when it began.
    running: Vec<Mutex<Option<(ScenarioId, Instant)>>>,
    bar: ProgressBar,
}

/// Runs scenarios: each with the first cut at every place in turn, and one recovery with the
/// second.
pub(super) fn search(templates: &Templates, budget: Budget, shown: bool) -> Report {
    let search = Search {
        templates,
        budget,
        cuts: AtomicU64::new(0),
        next_seed: AtomicU64::new(budget.seed),
        violations: Mutex::new(Vec::new()),
        running: (0..budget.threads).map(|_| Mutex::new(None)).collect(),
        bar: if shown { progress(budget.cuts) } else { ProgressBar::hidden() },
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watchdog = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                thread::park_timeout(Duration::from_secs(1));
                search.running.iter().for_each(|running| search.check_patience(running));
            }
        });
        let search = &search;
        let workers: Vec<_> = search
            .running
            .iter()
            .enumerate()
            .map(|(worker, running)| {
                scope.spawn(move || {
                    processors::stay_on_one(worker);
                    while !search.is_done() {
                        search.next(running);
                    }
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
        done.store(true, Ordering::Relaxed);
        watchdog.thread().unpark();
    });
    search.bar.finish_and_clear();
    let mut violations = search.violations.into_inner().unwrap_or_default();
    violations.sort_unstable();
    Report { cuts: search.cuts.into_inner(), violations }
}

impl Search<'_> {
    fn is_done(&self) -> bool {
        self.cuts.load(Ordering::Relaxed) >= self.budget.cuts
            || lock(&self.violations).len() >= self.budget.violations
    }

    /// Runs the scenarios of the next seed.
    fn next(&self, running: &Mutex<Option<(ScenarioId, Instant)>>) {
        let seed = loop {
            let seed = self.next_seed.fetch_add(1, Ordering::Relaxed);
            if self.budget.focus.is_none_or(|focus| focus == Focus::of_seed(seed)) {
                break seed;
            }
        };
        let run = |cut, again| {
            let id = ScenarioId { seed, cut, again };
            *lock(running) = Some((id, Instant::now()));
            let outcome = run::run(self.templates, id, false);
            *lock(running) = None;
            let cuts = self.cuts.fetch_add(outcome.counts.cuts, Ordering::Relaxed);
            self.bar.set_position(cuts);
            if let Some(violation) = outcome.violation {
                lock(&self.violations).push((id, violation));
            }
            (outcome.counts.effects, outcome.counts.recovery_effects)
        };
        let (effects, _) = run(None, None);
        let cuts = self.places(effects, seed);
        // After one of the cuts, the recovery is cut at every place too.
        let twice = usize::try_from(seed).unwrap_or(0) % cuts.len().max(1);
        for (index, cut) in cuts.into_iter().enumerate() {
            let (_, recovery) = run(Some(cut), None);
            let recovery = if index == twice { recovery } else { 0 };
            for again in self.places(recovery, seed) {
                run(Some(cut), Some(again));
            }
            if self.is_done() {
                return;
            }
        }
    }

    /// The places of the power cuts: all, or a sample of many.
    fn places(&self, effects: u64, seed: u64) -> Vec<u64> {
        let mut places: Vec<_> = (1..=effects).collect();
        if effects > self.budget.places {
            fastrand::Rng::with_seed(seed).shuffle(&mut places);
            places.truncate(usize::try_from(self.budget.places).unwrap_or(usize::MAX));
            places.sort_unstable();
        }
        places
    }

    /// Ends this process if a scenario hangs, because nothing else can end it.
    fn check_patience(&self, running: &Mutex<Option<(ScenarioId, Instant)>>) {
        if let Some((id, began)) = *lock(running)
            && began.elapsed() > PATIENCE
        {
            println!("violation: the scenario hangs\n  again: cargo xtask crash --replay {id}");
            println!("{} cuts, and a scenario hangs", self.cuts.load(Ordering::Relaxed));
            process::exit(1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn progress(cuts: u64) -> ProgressBar {
    let style = "{bar:40} {pos} of {len} cuts, about {eta} left";
    let bar = ProgressBar::new(cuts);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
