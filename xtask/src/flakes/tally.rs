//! Counts of runs and failures.

use std::collections::BTreeMap;
use std::fmt;

use super::batch::{Failure, What};
use super::schedule::Batch;

/// Runs and failures so far. Its display lists the failures, the most frequent first.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Runs by program and test. A process counts as a run of its program, without a test.
    runs: BTreeMap<(String, Option<String>), u64>,
    /// Failures by program and test.
    failed: BTreeMap<(String, What), u64>,
}

impl Tally {
    /// Adds a process that has ended.
    pub(super) fn add(&mut self, batch: &Batch<'_>, failures: &[Failure]) {
        let program = &batch.program.name;
        let tests = batch.tests.iter().map(|&test| Some(test.to_owned()));
        for test in tests.chain([None]) {
            *self.runs.entry((program.clone(), test)).or_default() += 1;
        }
        for Failure { what, .. } in failures {
            *self.failed.entry((program.clone(), what.clone())).or_default() += 1;
        }
    }

    /// Number of runs of tests.
    pub(super) fn runs(&self) -> u64 {
        self.runs.iter().filter(|((_, test), _)| test.is_some()).map(|(_, runs)| runs).sum()
    }

    /// Number of tests that failed at least once, and of programs whose processes did.
    pub(super) fn failed(&self) -> usize {
        self.failed.len()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<_> = self.failed.iter().collect();
        all.sort_by_key(|&(_, times)| std::cmp::Reverse(times));
        if !all.is_empty() {
            writeln!(f, "\nfailed:")?;
        }
        for ((program, what), times) in &all {
            let test = if let What::Test(name) = what { Some(name.clone()) } else { None };
            let runs = self.runs.get(&(program.clone(), test)).copied().unwrap_or_default();
            writeln!(f, "{times} of {runs} times  {program}: {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::Program;

    #[test]
    fn it_is_counted_how_often_each_failed() {
        let program = Program::named("package.program");
        let mut tally = Tally::default();
        assert_eq!((tally.to_string().as_str(), tally.failed()), ("", 0));
        let failure = |what: &What| Failure { what: what.clone(), output: String::new() };
        let (two, hung) = (What::Test("two".to_owned()), What::Hung);
        let batch =
            |tests: &[&'static str], round| Batch { program: &program, tests: tests.into(), round };
        tally.add(&batch(&["one", "two"], 1), &[]);
        tally.add(&batch(&["two"], 2), &[failure(&two)]);
        tally.add(&batch(&["one"], 2), &[failure(&hung)]);
        tally.add(&batch(&["two", "one"], 3), &[failure(&two)]);
        assert_eq!((tally.runs(), tally.failed()), (6, 2));
        let report = "\
            \nfailed:\n\
            2 of 3 times  package.program: two\n\
            1 of 4 times  package.program: the process hung\n";
        assert_eq!(tally.to_string(), report);
    }
}
