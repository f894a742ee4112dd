//! The three containers of checkpoints: what they hold, and which of them may be written.

use crate::format::CONTAINERS;
use crate::mutant::Mutant;

/// What the containers hold, and which of them may be written.
///
/// Two containers are needed: the committed one and one for the next checkpoint. With three, one
/// that cannot be written leaves the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Containers {
    /// The container that holds the committed checkpoint.
    committed: usize,
    /// The number of the checkpoint that each container holds or may hold; 0 if it certainly holds
    /// none.
    numbers: [u64; CONTAINERS],
    /// The highest number that was tried. The number of a failed attempt is not used again.
    last_number: u64,
    /// The container of the last attempt, if that failed: its header may be on the device.
    failed: Option<usize>,
    /// The container of the attempt in progress.
    begun: Option<usize>,
    /// Containers whose header could not be destroyed: they are not written until the next opening.
    out: [bool; CONTAINERS],
    /// How many writes to each container failed.
    errors: [u32; CONTAINERS],
}

/// One attempt to write a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The number of the checkpoint.
    pub(crate) number: u64,
    /// The container that it is written to.
    pub(crate) container: usize,
}

impl Containers {
    /// The containers of a store whose committed checkpoint is in `committed`.
    ///
    /// `numbers` are those of all headers that are valid; 0 for a container that certainly holds no
    /// checkpoint. A header that cannot be read may be an old one: pass 1 for it.
    pub(crate) fn new(committed: usize, numbers: [u64; CONTAINERS]) -> Self {
        let last_number = numbers.into_iter().max().unwrap_or(0);
        Self {
            committed,
            numbers,
            last_number,
            failed: None,
            begun: None,
            out: [false; CONTAINERS],
            errors: [0; CONTAINERS],
        }
    }

    /// The number of the committed checkpoint.
    pub(crate) fn committed_number(&self) -> u64 {
        self.numbers[self.committed]
    }

    /// The highest number that was tried.
    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Uses no number up to this one again: something on the device names it.
    pub(crate) fn skip_to(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    /// The container of the committed checkpoint.
    pub(crate) fn committed_container(&self) -> usize {
        self.committed
    }

    /// The lowest number of all checkpoints that are valid or may be. What each of them calls free
    /// may be discarded.
    pub(crate) fn oldest_number(&self) -> u64 {
        self.numbers.into_iter().filter(|&number| number > 0).min().unwrap_or(0)
    }

    /// The containers that had a write error or left the rotation.
    pub(crate) fn bad(&self) -> [bool; CONTAINERS] {
        std::array::from_fn(|container| self.out[container] || self.errors[container] > 0)
    }

    /// The container whose header has to be destroyed before the next attempt writes anything.
    pub(crate) fn to_destroy(self) -> Option<usize> {
        self.failed
    }

    /// The header of the last attempt is destroyed, durably.
    pub(crate) fn destroyed(&mut self) {
        if let Some(container) = self.failed.take() {
            self.numbers[container] = 0;
        }
    }

    /// The header of the last attempt cannot be destroyed. Its container leaves the rotation,
    /// unless another one has left it before. Returns whether it left.
    pub(crate) fn not_destroyed(&mut self) -> bool {
        let Some(container) = self.failed else { return false };
        self.errors[container] += 1;
        if self.out.contains(&true) {
            return false;
        }
        self.out[container] = true;
        self.failed = None;
        true
    }

    /// Begins the next attempt: a number that was never used, and a container that is neither the
    /// committed one nor out of the rotation. Of several it is the one with the fewest write
    /// errors, then the one with the oldest checkpoint.
    pub(crate) fn begin(&mut self) -> Attempt {
        self.last_number += 1;
        let number = self.last_number;
        let container = self.mutated(number).unwrap_or_else(|| {
            (0..CONTAINERS)
                .filter(|&container| container != self.committed && !self.out[container])
                .min_by_key(|&container| (self.errors[container], self.numbers[container]))
                .unwrap_or(self.committed)
        });
        self.begun = Some(container);
        Attempt { number, container }
    }

    /// The container that a mutation chooses.
    fn mutated(&self, number: u64) -> Option<usize> {
        if Mutant::CommittedContainerOverwritten.is_on() {
            Some(self.committed)
        } else if Mutant::ContainersAlternate.is_on() {
            Some(usize::from(number % 2 == 1))
        } else if Mutant::ContainersRotate.is_on() {
            usize::try_from(number % CONTAINERS as u64).ok()
        } else if Mutant::OldestContainerOverwritten.is_on() {
            let valid = (0..CONTAINERS).filter(|&container| self.numbers[container] > 0);
            valid.min_by_key(|&container| self.numbers[container])
        } else {
            None
        }
    }

    /// The body of an attempt is durable, so the older checkpoint in its container is gone.
    pub(crate) fn body_written(&mut self, attempt: Attempt) {
        self.numbers[attempt.container] = 0;
    }

    /// The header of an attempt is about to be written.
    pub(crate) fn header_submitted(&mut self, attempt: Attempt) {
        self.numbers[attempt.container] = attempt.number;
    }

    /// An attempt failed; `on_write` if a write to the container did.
    pub(crate) fn attempt_failed(&mut self, attempt: Attempt, on_write: bool) {
        self.failed = Some(attempt.container);
        self.begun = None;
        self.errors[attempt.container] += u32::from(on_write);
        if Mutant::FailedNumberReused.is_on() || Mutant::FailedHeaderKeptNumberReused.is_on() {
            self.last_number -= 1;
        }
    }

    /// The device panicked. If an attempt had begun, its header has to be destroyed.
    pub(crate) fn attempt_panicked(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.failed = Some(begun);
        }
    }

    /// The checkpoint is durable.
    pub(crate) fn commit(&mut self, attempt: Attempt) {
        self.committed = attempt.container;
        self.errors[attempt.container] = 0;
        self.failed = None;
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Containers after a formatting: the first checkpoint is in the first of them.
    fn fresh() -> Containers {
        Containers::new(0, [1, 0, 0])
    }

    fn commit(containers: &mut Containers) -> Attempt {
        let attempt = containers.begin();
        containers.body_written(attempt);
        containers.header_submitted(attempt);
        containers.commit(attempt);
        attempt
    }

    #[test]
    fn checkpoints_go_round_and_never_over_the_committed_one() {
        let mut containers = fresh();
        for number in 2..20 {
            let committed = containers.committed_container();
            let attempt = commit(&mut containers);
            assert_eq!(attempt.number, number);
            assert_ne!(attempt.container, committed);
            assert_eq!(containers.committed_number(), number);
        }
        assert_eq!(containers.oldest_number(), 17, "the oldest of three");
    }

    #[test]
    fn a_failed_number_is_not_used_again_and_its_header_goes_first() {
        let mut containers = fresh();
        let failed = containers.begin();
        containers.body_written(failed);
        containers.header_submitted(failed);
        containers.attempt_failed(failed, false);
        assert_eq!(containers.to_destroy(), Some(failed.container));
        containers.destroyed();
        assert_eq!(containers.to_destroy(), None);
        assert_eq!(containers.begin().number, failed.number + 1);
        assert_eq!(containers.committed_number(), 1);
    }

    #[test]
    fn a_container_that_fails_is_avoided_while_another_works() {
        let mut containers = fresh();
        let bad = containers.begin();
        containers.attempt_failed(bad, true);
        containers.destroyed();
        for _ in 0..10 {
            assert_ne!(commit(&mut containers).container, bad.container);
        }
        assert!(containers.bad()[bad.container]);
    }

    #[test]
    fn one_container_leaves_and_the_second_is_destroyed_by_retries() {
        let mut containers = fresh();
        let first = containers.begin();
        containers.attempt_failed(first, true);
        assert!(containers.not_destroyed());
        assert_eq!(containers.to_destroy(), None);
        let second = containers.begin();
        assert_ne!(second.container, first.container);
        containers.attempt_failed(second, true);
        assert!(!containers.not_destroyed());
        assert_eq!(containers.to_destroy(), Some(second.container));
        containers.destroyed();
        assert_eq!(commit(&mut containers).container, second.container);
    }

    #[test]
    fn a_header_that_may_exist_protects_what_it_names_from_discard() {
        let mut containers = fresh();
        for _ in 0..3 {
            commit(&mut containers);
        }
        assert_eq!(containers.oldest_number(), 2);
        let attempt = containers.begin();
        assert_eq!(
            containers.oldest_number(),
            2,
            "its old header is valid until the body is durable"
        );
        containers.body_written(attempt);
        assert_eq!(containers.oldest_number(), 3);
        containers.header_submitted(attempt);
        containers.attempt_failed(attempt, true);
        assert!(containers.not_destroyed());
        for _ in 0..5 {
            commit(&mut containers);
        }
        assert_eq!(containers.oldest_number(), attempt.number, "it may be valid for ever");
    }
}
