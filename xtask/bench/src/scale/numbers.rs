//! Numbers of the reports and of the arguments.

use parse_size::Config;

/// Parses a number of bytes, with or without a binary unit.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    Config::new().with_binary().parse_size(text).map_err(|error| error.to_string())
}

/// The median, or NaN if there are no figures.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns a number that looks random, the same for the same `number` (the finalizer of
/// SplitMix64).
pub(super) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
