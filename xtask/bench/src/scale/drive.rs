//! A model of the inside of a drive: pages in erase blocks, and garbage collection.

use std::collections::HashMap;

/// No page.
const NONE: u32 = u32::MAX;
/// Erase blocks that are free at least after each write, in addition to one for each stream.
const RESERVE: usize = 3;

/// A drive that maps each page of its addresses to a page of the medium. When it needs a free erase
/// block, it collects the one with the fewest valid pages.
#[derive(Debug)]
pub(super) struct Drive {
    pages_per_block: u32,
    /// The page of the medium, by address.
    places: Vec<u32>,
    /// The address of each valid page of the medium.
    addresses: Vec<u32>,
    valid: Vec<u32>,
    full: Vec<bool>,
    free: Vec<u32>,
    heads: HashMap<Stream, Head>,
    host: u64,
    medium: u64,
}

/// A stream. Its pages share erase blocks only with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream {
    /// Writes without a placement handle.
    Unplaced,
    Placed(u16),
    /// Pages that garbage collection moves.
    Moved,
}

/// The erase block that a stream fills.
#[derive(Clone, Copy, Debug)]
struct Head {
    block: u32,
    next: u32,
}

impl Drive {
    /// Creates a drive of `pages` addresses, with erase blocks of `pages_per_block`, and with
    /// `spare` times as many pages in addition.
    pub(super) fn new(pages: u32, pages_per_block: u32, spare: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let blocks = (f64::from(pages) * (1.0 + spare) / f64::from(pages_per_block)) as u32 + 2;
        Self {
            pages_per_block,
            places: vec![NONE; pages as usize],
            addresses: vec![NONE; blocks as usize * pages_per_block as usize],
            valid: vec![0; blocks as usize],
            full: vec![false; blocks as usize],
            free: (0..blocks).collect(),
            heads: HashMap::new(),
            host: 0,
            medium: 0,
        }
    }

    /// The host writes a page, through a placement handle if it has one.
    pub(super) fn write(&mut self, address: u32, placement: Option<u16>) {
        self.discard(address);
        self.host += 1;
        self.program(address, placement.map_or(Stream::Unplaced, Stream::Placed));
        while self.free.len() < RESERVE + self.heads.len() {
            self.collect();
        }
    }

    /// The host discards a page.
    pub(super) fn discard(&mut self, address: u32) {
        let place = std::mem::replace(&mut self.places[address as usize], NONE);
        if place != NONE {
            self.addresses[place as usize] = NONE;
            self.valid[(place / self.pages_per_block) as usize] -= 1;
        }
    }

    /// Pages that the host wrote, and pages that were written to the medium.
    pub(super) fn written(&self) -> (u64, u64) {
        (self.host, self.medium)
    }

    fn program(&mut self, address: u32, stream: Stream) {
        let head = match self.heads.get(&stream) {
            Some(head) if head.next < self.pages_per_block => *head,
            last => {
                if let Some(last) = last {
                    self.full[last.block as usize] = true;
                }
                Head { block: self.free.pop().expect("the reserve is large enough"), next: 0 }
            }
        };
        let place = head.block * self.pages_per_block + head.next;
        self.heads.insert(stream, Head { next: head.next + 1, ..head });
        self.addresses[place as usize] = address;
        self.places[address as usize] = place;
        self.valid[head.block as usize] += 1;
        self.medium += 1;
    }

    /// Collects the full erase block with the fewest valid pages.
    fn collect(&mut self) {
        let full = (0..).zip(&self.valid).zip(&self.full).filter(|(_, full)| **full);
        let fewest = full.min_by_key(|((_, valid), _)| **valid).map(|((block, _), _)| block);
        let block: u32 = fewest.expect("some erase block is full, because few are free");
        self.full[block as usize] = false;
        let first = block * self.pages_per_block;
        for place in first..first + self.pages_per_block {
            let address = self.addresses[place as usize];
            if address != NONE {
                self.discard(address);
                self.program(address, Stream::Moved);
            }
        }
        self.free.push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u32 = 32_768;
    const USED: u32 = PAGES / 100 * 89;
    const SEGMENT: u32 = 512;

    /// A drive whose used addresses were written once, with its counters at that moment.
    fn used() -> (Drive, (u64, u64)) {
        let mut drive = Drive::new(PAGES, 128, 0.07);
        (0..USED).for_each(|page| drive.write(page, None));
        let written = drive.written();
        (drive, written)
    }

    fn amplification(drive: &Drive, before: (u64, u64)) -> f64 {
        let (host, medium) = drive.written();
        (medium - before.1) as f64 / (host - before.0) as f64
    }

    /// Two kinds of segments, one of which lives four times as long.
    fn two_kinds(placed: bool) -> f64 {
        let (mut drive, before) = used();
        let mut random = fastrand::Rng::with_seed(1);
        let segments = USED / SEGMENT;
        let mut next = [0, 0];
        let mut open = [(0, SEGMENT), (0, SEGMENT)];
        while drive.written().0 - before.0 < u64::from(5 * USED) {
            let kind = u16::from(random.f32() < 0.2);
            let (segment, page) = &mut open[usize::from(kind)];
            if *page == SEGMENT {
                *segment =
                    next[usize::from(kind)] % (segments / 2) + u32::from(kind) * (segments / 2);
                next[usize::from(kind)] += 1;
                *page = 0;
            }
            for page in *page..*page + 4 {
                drive.write(*segment * SEGMENT + page, placed.then_some(kind));
            }
            *page += 4;
        }
        amplification(&drive, before)
    }

    #[test]
    fn slots_reused_one_by_one_cost_three_times_their_bytes() {
        let (mut drive, before) = used();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..4 * (USED / 4) {
            let slot = random.u32(..USED / 4);
            (4 * slot..4 * slot + 4).for_each(|page| drive.write(page, None));
        }
        let found = amplification(&drive, before);
        assert!((2.8..3.4).contains(&found), "{found}");
    }

    #[test]
    fn segments_of_one_age_cost_nothing_more() {
        let (mut drive, before) = used();
        for _ in 0..5 {
            (0..USED).for_each(|page| drive.write(page, None));
        }
        assert!(amplification(&drive, before) < 1.01);
    }

    #[test]
    fn segments_of_two_ages_cost_more_unless_each_has_its_handle() {
        let (mixed, placed) = (two_kinds(false), two_kinds(true));
        assert!((1.05..1.4).contains(&mixed), "{mixed}");
        assert!(placed < 1.05, "{placed}");
    }

    #[test]
    fn discarded_pages_are_not_moved() {
        let mut drive = Drive::new(1024, 16, 0.07);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let page = random.u32(..512);
            drive.write(page, None);
            drive.discard(page);
        }
        assert_eq!(drive.written(), (20_000, 20_000));
    }
}
