//! The report of a guest: the output of its test programs, and lines that begin with `@vm`.

use std::fmt;

/// The prefix with which a test says that it cannot run (`raw_block_core::conformance::Skipped`).
const SKIPPED: &str = "skipped: ";

/// Counts of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The report of a guest, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// The failures.
    pub(crate) failures: Vec<String>,
    /// Whether the guest has reported its end.
    pub(crate) has_ended: bool,
    program: Option<Program>,
}

/// The running test program.
#[derive(Debug)]
struct Program {
    name: String,
    /// The running test.
    test: Option<Test>,
    before: Tally,
    /// The program's own counts of tests that passed (or were skipped) and failed.
    result: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Test {
    name: String,
    is_skipped: bool,
}

impl Report {
    /// Reads the next line, without its end.
    pub(crate) fn take(&mut self, line: &str) {
        if let Some(event) = line.strip_prefix("@vm ") {
            let (word, rest) = event.split_once(' ').unwrap_or((event, ""));
            match word {
                "begins" => self.begin(rest),
                "ended" => self.end(rest),
                "trouble" => self.fail(rest),
                "done" => self.has_ended = true,
                _ => {}
            }
        } else if let Some(result) = line.strip_prefix("test result: ") {
            if let Some(program) = &mut self.program {
                program.result = counts(result);
            }
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        {
            if let Some(program) = &mut self.program {
                program.test = Some(Test { name: name.to_owned(), is_skipped: false });
            }
            self.result(result);
        } else {
            self.result(line);
        }
    }

    /// Adds the report of another guest.
    pub(crate) fn add(&mut self, other: Self) {
        self.tally.passed += other.tally.passed;
        self.tally.failed += other.tally.failed;
        self.tally.skipped += other.tally.skipped;
        self.failures.extend(other.failures);
    }

    /// Counts the running test as failed, because its program or its guest died.
    pub(crate) fn fail(&mut self, how: &str) {
        self.tally.failed += 1;
        let program = self.program.as_mut();
        let test = program
            .and_then(|program| Some(format!("{}, {}: ", program.name, program.test.take()?.name)));
        self.failures.push(test.unwrap_or_default() + how);
    }

    /// Parses the result of a test. It follows the name, or is a line by itself if the test printed
    /// something.
    fn result(&mut self, line: &str) {
        let Some(program) = &mut self.program else { return };
        let Some(test) = &mut program.test else { return };
        match line {
            "ok" if test.is_skipped => self.tally.skipped += 1,
            "ok" => self.tally.passed += 1,
            "FAILED" => {
                self.tally.failed += 1;
                self.failures.push(format!("{}, {}", program.name, test.name));
            }
            // An ignored test is not counted.
            ignored if ignored.starts_with("ignored") => {}
            other => {
                test.is_skipped |= other.starts_with(SKIPPED);
                return;
            }
        }
        program.test = None;
    }

    fn begin(&mut self, name: &str) {
        let before = self.tally;
        self.program = Some(Program { name: name.to_owned(), test: None, before, result: None });
    }

    fn end(&mut self, status: &str) {
        let how = match status {
            "0" | "101" => format!("it ended with status {status}"),
            // Shells and timeout(1) add 128 to the number of a signal.
            "137" => {
                "it was killed: it took longer than --test-timeout, or the guest ran out of memory"
                    .to_owned()
            }
            other => format!("it failed with status {other}"),
        };
        let Some(Program { name, test, before, result }) = &self.program else {
            return self.fail(&format!("a program ended without a beginning: {how}"));
        };
        let Tally { passed, failed, skipped } = self.tally;
        let counted = (passed + skipped - before.passed - before.skipped, failed - before.failed);
        // The counts of this report must be those of the program.
        if test.is_some() {
            self.fail(&how);
        } else if *result != Some(counted) || (status == "0") != (counted.1 == 0) {
            self.fail(&format!("{name}: {how}, and its results do not add up"));
        }
        self.program = None;
    }
}

/// Parses the counts of passed and failed tests, from a line such as `ok. 3 passed; 0 failed; 1
/// ignored`.
fn counts(result: &str) -> Option<(u32, u32)> {
    let number = |what: &str| {
        let before = result.split_once(what)?.0;
        before.rsplit([' ', ';']).next()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        let mut report = Report::default();
        for line in text.lines() {
            report.take(line);
        }
        report
    }

    fn tally(passed: u32, failed: u32, skipped: u32) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn tests_are_counted_by_what_came_of_them() {
        let report = report(
            "@vm kernel 6.12\n@vm begins posix.vm_one\n\nrunning 5 tests\ntest a ... ok\n\
             test b::c ... skipped: there is no drive\nok\ntest d ... said something\nFAILED\n\
             test e ... ignored, run by hand\ntest f - should panic ... ok\n\nfailures:\n\n\
             ---- d stdout ----\nok\n\ntest result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured\n\
             @vm ended 101\n@vm done",
        );
        assert_eq!(report.tally, tally(2, 1, 1));
        assert_eq!(report.failures, ["posix.vm_one, d"]);
        assert!(report.has_ended);
    }

    #[test]
    fn a_program_that_is_killed_fails_in_the_test_that_ran() {
        let report =
            report("@vm begins posix.vm_one\ntest a ... ok\ntest b ... \n@vm ended 137\n@vm done");
        assert_eq!(report.tally, tally(1, 1, 0));
        assert!(report.failures[0].starts_with("posix.vm_one, b: it was killed"), "{report:?}");
    }

    #[test]
    fn a_program_that_dies_between_tests_fails() {
        for text in [
            "@vm begins one\ntest a ... ok\n@vm ended 139",
            "@vm begins one\n@vm ended 127",
            // It exits successfully, and reports nothing.
            "@vm begins one\ntest a ... ok\n@vm ended 0",
        ] {
            let report = report(text);
            assert_eq!(report.tally.failed, 1, "{text}");
            assert!(report.failures[0].starts_with("one: "), "{report:?}");
        }
    }

    #[test]
    fn results_that_do_not_add_up_are_a_failure() {
        let report = report(
            "@vm begins one\ntest a ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored\n@vm ended 0",
        );
        assert_eq!(report.tally, tally(1, 1, 0));
    }

    #[test]
    fn a_program_without_tests_is_no_failure() {
        let report =
            report("@vm begins one\ntest result: ok. 0 passed; 0 failed; 0 ignored\n@vm ended 0");
        assert_eq!(report.tally, tally(0, 0, 0));
    }

    #[test]
    fn trouble_in_the_guest_and_its_death_are_failures() {
        let mut report = report("@vm trouble no module\n@vm begins one\ntest a ... ");
        report.fail("the guest died");
        assert_eq!(report.tally, tally(0, 2, 0));
        assert_eq!(report.failures, ["no module", "one, a: the guest died"]);
        assert!(!report.has_ended);
    }
}
