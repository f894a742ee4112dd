//! The batches of tests, and their order.

use fastrand::Rng;

use super::Suite;
use crate::programs::Program;

/// Maximum number of tests of a batch: enough that tests run concurrently, and few enough that a
/// batch takes less than minutes.
const MAX_TESTS: usize = 64;

/// Tests that one process runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch<'a> {
    pub(super) program: &'a Program,
    pub(super) tests: Vec<&'a str>,
    /// Counted from 1.
    pub(super) round: u64,
}

/// The batches of all rounds. Every round has every test in one batch.
#[derive(Debug)]
pub(super) struct Schedule<'a> {
    suites: &'a [Suite],
    random: Rng,
    rounds: u64,
    begun: u64,
    waiting: Vec<Batch<'a>>,
}

impl<'a> Schedule<'a> {
    pub(super) fn new(suites: &'a [Suite], seed: u64, rounds: u64) -> Self {
        Self { suites, random: Rng::with_seed(seed), rounds, begun: 0, waiting: Vec::new() }
    }

    pub(super) fn rounds_begun(&self) -> u64 {
        self.begun
    }

    fn begin_round(&mut self) {
        self.begun += 1;
        for Suite { program, tests } in self.suites {
            let mut tests: Vec<_> = tests.iter().map(String::as_str).collect();
            self.random.shuffle(&mut tests);
            while !tests.is_empty() {
                // Some batches have many tests, and some have one.
                let len = self.random.usize(1..=tests.len().min(MAX_TESTS));
                let rest = tests.split_off(len);
                self.waiting.push(Batch { program, tests, round: self.begun });
                tests = rest;
            }
        }
        self.random.shuffle(&mut self.waiting);
    }
}

impl<'a> Iterator for Schedule<'a> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        if self.waiting.is_empty() && self.begun < self.rounds {
            self.begin_round();
        }
        self.waiting.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites() -> Vec<Suite> {
        let suite = |(name, count): (&str, usize)| Suite {
            program: Program::named(name),
            tests: (0..count).map(|test| format!("test_{test}")).collect(),
        };
        [("a.one", 1), ("a.many", 200), ("b.none", 0), ("b.seven", 7)].map(suite).into()
    }

    #[test]
    fn every_test_runs_once_a_round() {
        let suites = suites();
        let mut all: Vec<_> = suites
            .iter()
            .flat_map(|suite| suite.tests.iter().map(|test| (&*suite.program.name, &**test)))
            .collect();
        all.sort_unstable();
        let batches: Vec<_> = Schedule::new(&suites, 1, 3).collect();
        for round in 1..=3 {
            let of_round = batches.iter().filter(|batch| batch.round == round);
            let mut ran: Vec<_> = of_round
                .flat_map(|batch| batch.tests.iter().map(|&test| (&*batch.program.name, test)))
                .collect();
            ran.sort_unstable();
            assert_eq!(ran, all);
        }
        assert!(batches.iter().all(|batch| (1..=3).contains(&batch.round)));
        assert!(batches.iter().all(|batch| (1..=MAX_TESTS).contains(&batch.tests.len())));
    }

    #[test]
    fn a_seed_gives_the_same_batches_and_another_one_others() {
        let suites = suites();
        let batches = |seed| Schedule::new(&suites, seed, 2).collect::<Vec<_>>();
        assert_eq!(batches(1), batches(1));
        assert_ne!(batches(1), batches(2));
        let orders =
            |seed| batches(seed).into_iter().map(|batch| batch.program).collect::<Vec<_>>();
        assert_ne!(orders(1), orders(2), "programs are shuffled too");
    }
}
