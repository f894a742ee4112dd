//! The keys of objects and their contents, which follow from a number.

/// Lengths of one object, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) payload: usize,
    pub(super) metadata: usize,
}

/// The distribution of the lengths in a scenario.
#[derive(Clone, Copy, Debug)]
enum Mix {
    Empty,
    Tiny,
    Blocks,
    Small,
    One(usize),
    Large,
    All,
}

/// The lengths in a scenario.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    block: usize,
    largest: usize,
    mix: Mix,
}

impl Sizes {
    /// Every length up to the largest.
    pub(super) fn all(block: u32, largest: usize) -> Self {
        Self { block: block as usize, largest, mix: Mix::All }
    }

    /// Objects of which as many as possible fit into a segment.
    pub(super) fn tiny(block: u32) -> Self {
        Self { block: block as usize, largest: block as usize, mix: Mix::Empty }
    }

    /// Objects of half a segment and more.
    pub(super) fn large(block: u32, largest: usize) -> Self {
        Self { block: block as usize, largest, mix: Mix::Large }
    }

    /// Objects with payloads of several blocks.
    pub(super) fn blocks(block: u32, largest: usize) -> Self {
        Self { block: block as usize, largest, mix: Mix::Blocks }
    }

    pub(super) fn draw(random: &mut fastrand::Rng, block: u32, largest: usize) -> Self {
        let all = Self::all(block, largest);
        let mix = match random.u8(..8) {
            0 => Mix::Tiny,
            1 | 2 => Mix::Small,
            3 => Mix::One(all.payload(random)),
            4 => Mix::Large,
            _ => Mix::All,
        };
        Self { mix, ..all }
    }

    pub(super) fn lengths(&self, random: &mut fastrand::Rng) -> Lengths {
        if matches!(self.mix, Mix::Empty) {
            return Lengths { payload: self.payload(random), metadata: 0 };
        }
        let limit = self.block / 2;
        let metadata = [0, 0, 8, 60, limit / 2, limit][random.usize(..6)];
        Lengths { payload: self.payload(random), metadata }
    }

    fn payload(&self, random: &mut fastrand::Rng) -> usize {
        let len = match self.mix {
            Mix::Empty => [0, 0, 0, 8][random.usize(..4)],
            Mix::Blocks => self.block * random.usize(1..5),
            Mix::Tiny => random.usize(1..120),
            Mix::Small => random.usize(1..=2 * self.block),
            Mix::One(len) => len,
            Mix::Large => random.usize(self.largest / 2..=self.largest),
            Mix::All => match random.u8(..10) {
                0 => random.usize(0..3),
                1 | 2 => random.usize(1..self.block),
                3..=5 => self.block * random.usize(1..=4),
                6 | 7 => random.usize(self.block..=5 * self.block),
                8 => random.usize(1..=self.largest),
                _ => random.usize(self.largest / 2..=self.largest),
            },
        };
        len.min(self.largest)
    }
}

/// The payload of an object.
pub(super) fn payload(number: u64, len: usize) -> Vec<u8> {
    bytes(number, number, len)
}

/// The metadata of an object.
pub(super) fn metadata(number: u64, len: usize) -> Vec<u8> {
    bytes(number, !number, len)
}

fn bytes(number: u64, seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let prefix = len.min(NUMBER_LEN);
    bytes[..prefix].copy_from_slice(&number.to_le_bytes()[..prefix]);
    bytes
}

/// A payload of at least this length begins with the number of its object.
pub(super) const NUMBER_LEN: usize = 8;

/// The name of a key: of 8 bytes, of one, or long.
pub(super) fn name(key: usize) -> Vec<u8> {
    let mut name = key.to_le_bytes().to_vec();
    match key % 8 {
        3 if key < 256 => name.truncate(1),
        5 => name.resize(70, 0xa5),
        _ => {}
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_have_different_names() {
        let names: HashSet<_> = (0..1000).map(name).collect();
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn lengths_stay_within_their_limits() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let sizes = Sizes::draw(&mut random, 512, 5000);
            let Lengths { payload, metadata } = sizes.lengths(&mut random);
            assert!(payload <= 5000 && metadata <= 256);
        }
    }
}
