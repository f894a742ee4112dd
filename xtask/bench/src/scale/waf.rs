//! Write amplification inside a drive.

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use raw_block_store::{EvictionPolicy, OpenOptions};

use super::device::SparseDevice;
use super::drive::Drive;
use super::keys::{Distribution, Keys};
use super::numbers::bytes;
use super::payload::BLOCK;
use super::reference::{Lru, Reference};
use super::subject::{BATCH, Client, Counts, make, segment_size};
use super::table::{Table, ratio, size};

/// Keys, for each object that the store holds.
const KEYS_PER_OBJECT: u64 = 10;
/// The percentage of requests for a key that is never requested again.
const NEW: u64 = 30;

/// The arguments of `waf`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Size of the store
    #[arg(long, default_value = "4GiB", value_parser = bytes)]
    size: u64,

    /// Size of an erase block of the drive: a power of two
    #[arg(long, default_value = "4MiB", value_parser = bytes)]
    erase_block: u64,

    /// The additional space of the drive, in percent of its addresses
    #[arg(long, default_value_t = 7.0)]
    spare: f64,

    /// The part of the addresses that the store uses, in percent
    #[arg(long, default_value_t = 89, value_parser = clap::value_parser!(u64).range(1..=100))]
    used: u64,

    /// Bytes of an object
    #[arg(long, default_value = "64KiB", value_parser = bytes)]
    object_size: u64,

    /// How often the store is filled; the second half is measured
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=1000))]
    fills: u64,

    /// How often each key is requested: `uniform`, or `zipf:` and the exponent
    #[arg(long, default_value = "zipf:1.0")]
    keys: Distribution,
}

/// The layouts to compare.
const CASES: [(&str, Case); 6] = [
    ("single slots, any evicted", Case::Slots { lru: false }),
    ("single slots, LRU", Case::Slots { lru: true }),
    ("segments", Case::Segments { placement: false, discard: false }),
    ("segments, discard", Case::Segments { placement: false, discard: true }),
    ("segments, placement", Case::Segments { placement: true, discard: false }),
    ("segments, placement and discard", Case::Segments { placement: true, discard: true }),
];

#[derive(Clone, Copy, Debug)]
enum Case {
    /// A model of a store of single slots.
    Slots { lru: bool },
    /// The store.
    Segments { placement: bool, discard: bool },
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut table =
        Table::new(["store", "drive", "per byte put", "written", "moved", "hit rate", "fills"]);
    for (title, case) in CASES {
        eprintln!("waf: {title}");
        let found = match case {
            Case::Slots { lru } => slots(options, lru)?,
            Case::Segments { placement, discard } => segmented(options, placement, discard)?,
        };
        table.row(
            title,
            [
                &*format!("{:.2}", found.drive),
                &format!("{:.2}", found.drive * found.counts.written_per_put()),
                &format!("{:.2}", found.counts.written_per_put()),
                &format!("{:.2}", found.counts.moved_per_put()),
                &format!("{:.3}", found.hit_rate),
                &format!("{:.1}", found.counts.put_bytes as f64 / options.size as f64),
            ],
        );
    }
    table.print(&format!(
        "waf: pages that the drive writes for each page that it gets, and bytes for each byte put; erase blocks of {}, \
         {} % spare, {} % of the addresses used, segments of {}, objects of {}, {} keys",
        size(options.erase_block),
        options.spare,
        options.used,
        size(segment_size(options.size)),
        size(options.object_size),
        options.keys
    ));
    Ok(())
}

struct Found {
    /// Pages that the drive wrote for each page that it received.
    drive: f64,
    counts: Counts,
    hit_rate: f64,
}

impl Options {
    fn drive(&self) -> Result<Drive> {
        let pages = u32::try_from(self.size / BLOCK as u64 * 100 / self.used)?;
        let per_block = u32::try_from(self.erase_block / BLOCK as u64)?.max(1);
        Ok(Drive::new(pages, per_block, self.spare / 100.0))
    }

    fn objects(&self) -> u64 {
        self.size / self.object_size
    }

    fn requests(&self) -> Requests {
        Requests {
            keys: Keys::new(self.keys, self.objects() * KEYS_PER_OBJECT),
            random: fastrand::Rng::with_seed(1),
            next_new: 1 << 40,
        }
    }
}

struct Requests {
    keys: Keys,
    random: fastrand::Rng,
    next_new: u64,
}

impl Requests {
    fn next(&mut self) -> u64 {
        if self.random.u64(..100) < NEW {
            self.next_new += 1;
            return self.next_new;
        }
        self.keys.draw(&mut self.random)
    }
}

/// Pages that the drive wrote for each page that it received, between two moments.
fn amplification(before: (u64, u64), after: (u64, u64)) -> f64 {
    ratio(after.1 - before.1, after.0 - before.0)
}

fn segmented(options: &Options, placement: bool, discard: bool) -> Result<Found> {
    let handles = if placement { 8 } else { 0 };
    let device = SparseDevice::new(options.size, Some(options.drive()?), handles)?;
    let policy = OpenOptions::default().eviction(EvictionPolicy::Lru).discard(discard);
    let store = make(device.open(), segment_size(options.size), &policy)?;
    let mut client = Client::new(&store, usize::try_from(options.object_size)?)?;
    let mut requests = options.requests();
    let half = options.size * options.fills / 2;
    let mut start = None;
    let (mut asked, mut hits) = (0, 0);
    loop {
        let counts = Counts::of(&store);
        if start.is_none() && counts.put_bytes >= half {
            start = Some((counts, device.written_pages()));
            (asked, hits) = (0, 0);
        }
        if counts.put_bytes >= 2 * half {
            let (before, pages) = start.unwrap_or_default();
            let drive = amplification(pages, device.written_pages());
            let counts = counts.since(&before);
            return Ok(Found { drive, counts, hit_rate: ratio(hits, asked) });
        }
        let keys: Vec<_> = (0..BATCH).map(|_| requests.next()).collect();
        let mut missing = Vec::new();
        client.get(&keys, |key, found| {
            asked += 1;
            hits += u64::from(found);
            if !found {
                missing.push(key);
            }
        })?;
        client.put_absent(&missing)?;
    }
}

/// A model of a store of single slots. Each slot has a header block, and is reused when its object
/// is evicted: the least recently used one, or a random one.
fn slots(options: &Options, lru: bool) -> Result<Found> {
    let mut drive = options.drive()?;
    let pages = u32::try_from(1 + options.object_size.div_ceil(BLOCK as u64))?;
    let slots = u32::try_from(options.size / BLOCK as u64)? / pages;
    let mut cache = Lru::new(slots as usize, false);
    let mut slot_of: HashMap<u64, u32> = HashMap::new();
    let mut requests = options.requests();
    let puts = options.size * options.fills / options.object_size;
    let (mut put, mut asked, mut hits, mut before) = (0, 0, 0, (0, 0));
    while put < puts {
        let key = requests.next();
        let slot = if lru {
            asked += 1;
            if cache.get_or_insert(key) {
                hits += 1;
                continue;
            }
            let used = u32::try_from(slot_of.len())?;
            let evicted = cache.evicted().and_then(|key| slot_of.remove(&key));
            slot_of.insert(key, evicted.unwrap_or(used));
            evicted.unwrap_or(used)
        } else if put < slots.into() {
            u32::try_from(put)?
        } else {
            requests.random.u32(..slots)
        };
        (slot * pages..(slot + 1) * pages).for_each(|page| drive.write(page, None));
        put += 1;
        if put == puts / 2 {
            before = drive.written();
            (asked, hits) = (0, 0);
        }
    }
    let put_bytes = (puts - puts / 2) * options.object_size;
    let (host, medium) = drive.written();
    let written_bytes = (host - before.0) * BLOCK as u64;
    let counts = Counts { put_bytes, written_bytes, ..Counts::default() };
    let drive = amplification(before, (host, medium));
    Ok(Found { drive, counts, hit_rate: ratio(hits, asked) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_slots_wear_a_drive() {
        let options = Options {
            size: 64 << 20,
            erase_block: 256 << 10,
            spare: 7.0,
            used: 89,
            object_size: 12 << 10,
            fills: 6,
            keys: Distribution::Zipf(1.0),
        };
        let any = slots(&options, false).unwrap();
        assert!((2.0..4.0).contains(&any.drive), "{}", any.drive);
        let found = slots(&options, true).unwrap();
        assert!((1.0..2.0).contains(&found.drive), "{}", found.drive);
        assert!((found.counts.written_per_put() - 4.0 / 3.0).abs() < 0.01);
        assert!((0.3..0.7).contains(&found.hit_rate), "{}", found.hit_rate);
    }
}
