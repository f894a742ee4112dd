//! The distribution of requested keys.

use std::fmt;
use std::str::FromStr;

/// How often each key is requested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Distribution {
    Uniform,
    /// The key of rank n, in proportion to n to the power of minus this.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if (0.01..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(format!("the exponent {exponent:?} is not a number from 0.01 to 10")),
            },
            _ => Err(format!("{text:?} is neither `uniform` nor `zipf:1.0`")),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(exponent) => write!(f, "zipf {exponent}"),
        }
    }
}

/// Draws keys below a number.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    count: u64,
    zipf: Option<Zipf>,
}

impl Keys {
    pub(super) fn new(distribution: Distribution, count: u64) -> Self {
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => Some(Zipf::new(count, exponent)),
        };
        Self { count, zipf }
    }

    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        match &self.zipf {
            None => random.u64(..self.count),
            Some(zipf) => zipf.draw(random) - 1,
        }
    }
}

/// Ranks from 1 by Zipf's law, without a table: rejection-inversion by Hörmann and Derflinger.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    low: f64,
    high: f64,
    accepted: f64,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is positive")]
impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self { count: count as f64, exponent, low: 0.0, high: 0.0, accepted: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.count + 0.5);
        zipf.accepted = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let at = self.high + random.f64() * (self.low - self.high);
            let x = self.inverse(at);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.accepted || at >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as u64;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of the weight, from 1 to `x`.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = (1.0 - self.exponent) * log;
        if power.abs() > 1e-8 { power.exp_m1() / power * log } else { log * (1.0 + power / 2.0) }
    }

    fn inverse(&self, integral: f64) -> f64 {
        let scaled = (integral * (1.0 - self.exponent)).max(-1.0);
        let log = if scaled.abs() > 1e-8 {
            scaled.ln_1p() / scaled * integral
        } else {
            integral * (1.0 - scaled / 2.0)
        };
        log.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_drawn_as_often_as_zipfs_law_says() {
        const DRAWN: u32 = 400_000;
        for exponent in [0.5, 0.8, 1.0, 1.3] {
            let keys = Keys::new(Distribution::Zipf(exponent), 1000);
            let mut random = fastrand::Rng::with_seed(1);
            let mut counts = vec![0_u32; 1000];
            for _ in 0..DRAWN {
                counts[usize::try_from(keys.draw(&mut random)).unwrap()] += 1;
            }
            let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for ranks in [1_u16..=1, 2..=2, 3..=3, 4..=10, 11..=100, 101..=1000] {
                let share: f64 =
                    ranks.clone().map(|rank| f64::from(rank).powf(-exponent) / total).sum();
                let found: u32 = ranks.clone().map(|rank| counts[usize::from(rank) - 1]).sum();
                let found = f64::from(found) / f64::from(DRAWN);
                assert!((found - share).abs() < 0.004, "{exponent} {ranks:?}: {found} {share}");
            }
        }
    }

    #[test]
    fn distributions_are_read_as_they_are_written() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf:0.8".parse(), Ok(Distribution::Zipf(0.8)));
        for wrong in ["zipf", "zipf:", "zipf:-1", "uniform:1", ""] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }
}
