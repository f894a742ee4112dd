//! Numbers of bytes as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written with a binary unit: `4KiB`, `4k` and `4096` are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(0),
            "k" | "kib" => Some(10),
            "m" | "mib" => Some(20),
            "g" | "gib" => Some(30),
            "t" | "tib" => Some(40),
            _ => None,
        };
        let shift = shift.ok_or_else(|| {
            format!("`{text}` is no size: write bytes, or a whole number with KiB, MiB, GiB or TiB")
        })?;
        let bytes = digits.parse().ok().and_then(|n: u64| n.checked_mul(1 << shift));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self(bytes)),
            _ => Err(format!("`{text}` is no size: write a whole number above 0")),
        }
    }
}

impl fmt::Display for Size {
    /// With the largest unit that divides it, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, shift): &&(&str, u32)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(fits) {
            Some((unit, shift)) => f.pad(&format!("{} {unit}", self.0 >> shift)),
            None => f.pad(&format!("{} B", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4KiB", 4096),
            ("4k", 4096),
            ("4 KiB", 4096),
            ("256K", 256 << 10),
            ("1MiB", 1 << 20),
            ("2T", 2 << 40),
            ("512b", 512),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_text_that_was_given() {
        for text in ["", "KiB", "0", "4KB", "-1", "4.5KiB", "99999999999TiB"] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_unit_that_divides_them() {
        assert_eq!(Size(256 << 10).to_string(), "256 KiB");
        assert_eq!(Size(3 << 20).to_string(), "3 MiB");
        assert_eq!(Size(5000).to_string(), "5000 B");
        assert_eq!(format!("{:>9}", Size(1 << 40)), "    1 TiB");
    }
}
