//! The share of a device that holds payloads, with objects of several sizes.

use std::ops::Range;

use anyhow::Result;
use clap::Args;
use raw_block_core::AlignedBuf;
use raw_block_store::{EvictionPolicy, Put, Store};

use super::device::SparseDevice;
use super::numbers::bytes;
use super::payload::payload;
use super::subject::{Counts, make, options, segment_size};
use super::table::{Table, percent, ratio, size};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Objects of 16 MiB waste a large part of smaller segments.
const SMALLEST_SEGMENT: u64 = 64 * MIB;
/// The number of samples of the shares while the device is filled once.
const SAMPLES: u64 = 200;

/// The arguments of `mix`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Size of the device in memory
    #[arg(long, default_value = "64GiB", value_parser = bytes)]
    size: u64,

    /// How often the device is filled; the last time is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    fills: u64,
}

impl Options {
    /// The size of segments: large enough for the largest objects.
    fn segment_size(&self) -> u64 {
        segment_size(self.size).max(SMALLEST_SEGMENT)
    }
}

/// The sizes of objects.
#[derive(Clone, Copy, Debug)]
enum Sizes {
    One(u64),
    /// Three sizes, each with its weight.
    Three([(u64, u32); 3]),
    /// The logarithm has a normal distribution, in this range.
    LogNormal {
        least: u64,
        most: u64,
    },
}

/// A mix of objects.
struct Mix {
    title: &'static str,
    sizes: Sizes,
    batch: usize,
    /// The percentage of puts with the key of an older object, and another size.
    overwrites: u32,
}

const HYBRID: Sizes = Sizes::Three([(MIB, 60), (9 * MIB / 2, 30), (96 * KIB, 10)]);
const ANY: Sizes = Sizes::LogNormal { least: 4 * KIB, most: 16 * MIB };
const MIXES: [Mix; 7] = [
    Mix { title: "2 MiB", sizes: Sizes::One(2 * MIB), batch: 8, overwrites: 0 },
    Mix { title: "1 MiB, 4.5 MiB, 96 KiB", sizes: HYBRID, batch: 8, overwrites: 0 },
    Mix { title: "log-normal, 4 KiB to 16 MiB", sizes: ANY, batch: 8, overwrites: 0 },
    Mix { title: "64 KiB in batches", sizes: Sizes::One(64 * KIB), batch: 32, overwrites: 0 },
    Mix { title: "16 KiB in batches", sizes: Sizes::One(16 * KIB), batch: 32, overwrites: 0 },
    Mix { title: "4 KiB in batches", sizes: Sizes::One(4 * KIB), batch: 32, overwrites: 0 },
    Mix { title: "hybrid, a tenth overwritten", sizes: HYBRID, batch: 8, overwrites: 10 },
];

impl Sizes {
    fn draw(self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::One(size) => size,
            Self::Three(sizes) => {
                let total: u32 = sizes.iter().map(|(_, weight)| weight).sum();
                let mut drawn = random.u32(..total);
                let found = sizes.into_iter().find(|&(_, weight)| {
                    let hit = drawn < weight;
                    drawn = drawn.wrapping_sub(weight);
                    hit
                });
                found.map_or(sizes[0].0, |(size, _)| size)
            }
            Self::LogNormal { least, most } => {
                // The middle of the range is the mean; its ends are three deviations away. The sum
                // of twelve uniform numbers is nearly normal.
                let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                let (low, high) = ((least as f64).ln(), (most as f64).ln());
                let size = f64::midpoint(low, high) + normal * (high - low) / 6.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a size"
                )]
                let size = size.exp() as u64;
                size.clamp(least, most)
            }
        }
    }

    fn largest(self) -> u64 {
        match self {
            Self::One(size) => size,
            Self::Three(sizes) => sizes.iter().map(|(size, _)| *size).max().unwrap_or(0),
            Self::LogNormal { most, .. } => most,
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut table = Table::new([
        "objects",
        "live",
        "of device",
        "least",
        "of full",
        "least",
        "written",
        "moved",
        "evicted",
        "waits",
    ]);
    for mix in &MIXES {
        eprintln!("mix: {}", mix.title);
        let found = measure(options, mix)?;
        table.row(
            mix.title,
            [
                &*found.objects.to_string(),
                &percent(found.of_device.mean()),
                &percent(found.of_device.least),
                &percent(found.of_full.mean()),
                &percent(found.of_full.least),
                &format!("{:.3}", found.counts.written_per_put()),
                &format!("{:.3}", found.counts.moved_per_put()),
                &format!("{:.2}", ratio(found.counts.evictions, found.counts.puts)),
                &found.counts.waits.to_string(),
            ],
        );
    }
    table.print(&format!(
        "mix: payload as a share of {} in segments of {}, and of its full segments, while objects are put and evicted; \
         bytes written and moved per byte put, evictions per put",
        size(options.size),
        size(options.segment_size())
    ));
    Ok(())
}

/// A share, sampled several times.
struct Share {
    sum: f64,
    count: f64,
    least: f64,
}

impl Share {
    const NONE: Self = Self { sum: 0.0, count: 0.0, least: f64::INFINITY };

    fn add(&mut self, share: f64) {
        self.sum += share;
        self.count += 1.0;
        self.least = self.least.min(share);
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }
}

struct Found {
    objects: u64,
    of_device: Share,
    of_full: Share,
    counts: Counts,
}

fn measure(options: &Options, mix: &Mix) -> Result<Found> {
    let device = SparseDevice::new(options.size, None, 0)?;
    let policy = self::options(EvictionPolicy::Lru);
    let store = make(device.open(), options.segment_size(), &policy)?;
    let mut putter = Putter {
        store: &store,
        memory: payload(usize::try_from(mix.sizes.largest())?)?,
        random: fastrand::Rng::with_seed(1),
        next: 0,
    };
    putter.put(mix, options.size * (options.fills - 1))?;
    let before = Counts::of(&store);
    let (mut of_device, mut of_full) = (Share::NONE, Share::NONE);
    for _ in 0..SAMPLES {
        putter.put(mix, options.size / SAMPLES)?;
        let stats = store.stats();
        of_device.add(ratio(stats.payload_bytes, options.size));
        let full = stats.full_segments * options.segment_size();
        of_full.add(ratio(stats.full_payload_bytes, full));
    }
    let counts = Counts::of(&store).since(&before);
    Ok(Found { objects: store.stats().objects, of_device, of_full, counts })
}

struct Putter<'a> {
    store: &'a Store,
    memory: AlignedBuf,
    random: fastrand::Rng,
    next: u64,
}

impl Putter<'_> {
    /// Puts objects of `bytes` in total.
    fn put(&mut self, mix: &Mix, bytes: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes {
            let mut keys = Vec::new();
            let mut ranges: Vec<Range<usize>> = Vec::new();
            for _ in 0..mix.batch {
                let size = mix.sizes.draw(&mut self.random);
                let overwrites = self.next > 0 && self.random.u32(..100) < mix.overwrites;
                let recent = self.next.min(10_000);
                let key =
                    if overwrites { self.next - 1 - self.random.u64(..recent) } else { self.next };
                self.next += u64::from(!overwrites);
                keys.push(key.to_le_bytes());
                ranges.push(0..usize::try_from(size)?);
                done += size;
            }
            let puts =
                keys.iter().zip(ranges).map(|(key, range)| Put::new(key, &self.memory[range]));
            let puts: Vec<_> = puts.collect();
            self.store.put_many(&puts).all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_drawn_in_their_proportions() {
        let mut random = fastrand::Rng::with_seed(1);
        let drawn: Vec<_> = (0..100_000).map(|_| HYBRID.draw(&mut random)).collect();
        for (size, share) in [(MIB, 0.6), (9 * MIB / 2, 0.3), (96 * KIB, 0.1)] {
            let found = drawn.iter().filter(|&&of| of == size).count() as f64 / 100_000.0;
            assert!((found - share).abs() < 0.01, "{size}: {found}");
        }
        let mut any: Vec<_> = (0..100_000).map(|_| ANY.draw(&mut random)).collect();
        any.sort_unstable();
        assert!(any[0] >= 4 * KIB && any[99_999] <= 16 * MIB);
        assert!((200 * KIB..320 * KIB).contains(&any[50_000]), "{}", any[50_000]);
    }
}
