//! Which objects of a batch are written, where a key appears more than once.

use crate::state::index::KeyHash;

/// Which of several objects with the same key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duplicates {
    /// The last one, as if they were put one after the other.
    LastWins,
    /// The first one: the others find its key present.
    FirstWins,
}

/// The objects of a batch that are written, and those that another one stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Positions of the objects that are written, in order.
    pub(super) positions: Vec<usize>,
    /// Pairs of an object that is not written and the one that is.
    pub(super) copies: Vec<(usize, usize)>,
}

impl Selection {
    /// Chooses among the objects of a batch that are valid.
    pub(super) fn of(
        hashes: &[KeyHash],
        is_valid: impl Fn(usize) -> bool,
        duplicates: Duplicates,
    ) -> Self {
        let valid = || (0..hashes.len()).filter(|&at| is_valid(at));
        let mut sorted: Vec<usize> = Vec::with_capacity(hashes.len());
        sorted.extend(valid());
        let mut copies = Vec::new();
        if sorted.len() > 1 {
            sorted.sort_unstable_by_key(|&at| (&hashes[at], at));
        }
        if sorted.is_sorted_by(|&a, &b| hashes[a] != hashes[b]) {
            sorted.clear();
            sorted.extend(valid());
            return Self { positions: sorted, copies };
        }
        let mut positions = Vec::with_capacity(sorted.len());
        for same in sorted.chunk_by(|&a, &b| hashes[a] == hashes[b]) {
            let (written, others) = match (duplicates, same) {
                (Duplicates::LastWins, [others @ .., last]) => (*last, others),
                (Duplicates::FirstWins, [first, others @ ..]) => (*first, others),
                (_, []) => continue,
            };
            positions.push(written);
            copies.extend(others.iter().map(|&other| (other, written)));
        }
        positions.sort_unstable();
        Self { positions, copies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(keys: &[u8], duplicates: Duplicates) -> Selection {
        let hashes: Vec<KeyHash> = keys.iter().map(|&key| [key; 16]).collect();
        let mut chosen = Selection::of(&hashes, |at| keys[at] != b'x', duplicates);
        chosen.copies.sort_unstable();
        chosen
    }

    #[test]
    fn of_equal_keys_the_last_or_the_first_is_written() {
        let last = chosen(b"abacaxxc", Duplicates::LastWins);
        assert_eq!(last.positions, [1, 4, 7]);
        assert_eq!(last.copies, [(0, 4), (2, 4), (3, 7)]);
        let first = chosen(b"abacaxxc", Duplicates::FirstWins);
        assert_eq!(first.positions, [0, 1, 3]);
        assert_eq!(first.copies, [(2, 0), (4, 0), (7, 3)]);
    }

    #[test]
    fn different_keys_are_written_in_their_order() {
        let expected = Selection { positions: vec![0, 1, 3], copies: Vec::new() };
        assert_eq!(chosen(b"caxb", Duplicates::LastWins), expected);
        let nothing = Selection { positions: Vec::new(), copies: Vec::new() };
        assert_eq!(chosen(b"xx", Duplicates::FirstWins), nothing);
        assert_eq!(chosen(b"", Duplicates::FirstWins), nothing);
    }
}
