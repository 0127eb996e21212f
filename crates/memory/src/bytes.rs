//! Sizes in bytes: the unit that every budget, plan and refusal is written in.
//!
//! [`Bytes`] keeps a byte count from being mistaken for tokens, rows or blocks, and prints the same
//! everywhere. [`MemorySpec`] is what a person writes for a budget: a size or a share of the machine.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

/// A number of bytes.
///
/// Arithmetic panics on overflow, as everywhere in this workspace (release builds keep the checks);
/// for counts that come from outside use the `checked_` methods.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No bytes.
    pub const ZERO: Bytes = Bytes(0);
    /// The largest count that can be written.
    pub const MAX: Bytes = Bytes(u64::MAX);

    /// `n` KiB (1024 bytes each).
    pub const fn kib(n: u64) -> Bytes {
        Bytes(n << 10)
    }

    /// `n` MiB (1024 KiB each).
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n << 20)
    }

    /// `n` GiB (1024 MiB each).
    pub const fn gib(n: u64) -> Bytes {
        Bytes(n << 30)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As a length in this address space, where it fits.
    pub fn to_usize(self) -> Option<usize> {
        usize::try_from(self.0).ok()
    }

    /// Whether there are none.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` past `u64::MAX`.
    pub fn checked_add(self, other: Bytes) -> Option<Bytes> {
        self.0.checked_add(other.0).map(Bytes)
    }

    /// The difference, or `None` below zero.
    pub fn checked_sub(self, other: Bytes) -> Option<Bytes> {
        self.0.checked_sub(other.0).map(Bytes)
    }

    /// `self` times `n`, or `None` past `u64::MAX`.
    pub fn checked_mul(self, n: u64) -> Option<Bytes> {
        self.0.checked_mul(n).map(Bytes)
    }

    /// The sum, at most `u64::MAX`.
    pub fn saturating_add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    pub fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// The next multiple of `unit` (any unit but zero), or `None` past `u64::MAX`.
    pub fn checked_round_up(self, unit: u64) -> Option<Bytes> {
        self.0.checked_next_multiple_of(unit).map(Bytes)
    }

    /// This share of it, rounded down; `percent` outside 0..=100 is clamped.
    pub fn percent(self, percent: f64) -> Bytes {
        let share = percent.clamp(0.0, 100.0) / 100.0;
        // The cast saturates, and a budget of 2^53 bytes and more does not exist.
        Bytes(((self.0 as f64 * share) as u64).min(self.0))
    }
}

impl From<u64> for Bytes {
    fn from(count: u64) -> Bytes {
        Bytes(count)
    }
}

impl From<usize> for Bytes {
    fn from(len: usize) -> Bytes {
        // Lossless: no target has a usize wider than 64 bits.
        Bytes(len as u64)
    }
}

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0 + other.0)
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        self.0 += other.0;
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, other: Bytes) -> Bytes {
        Bytes(self.0 - other.0)
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, other: Bytes) {
        self.0 -= other.0;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes::ZERO, Add::add)
    }
}

const UNITS: [(&str, u64); 6] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl fmt::Display for Bytes {
    /// Binary units with one decimal: `512.0 MiB`; below 1 KiB the exact count: `17 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match UNITS.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) => format!("{:.1} {name}", self.0 as f64 / *unit as f64),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

/// Why a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// No number at the front.
    #[error("'{0}' is not a size: write a number and a unit, such as 512MiB, 2GiB or 1GB")]
    NotANumber(String),
    /// A unit that is not known.
    #[error(
        "'{unit}' in '{text}' is not a unit of size: use B, KiB, MiB, GiB, TiB (1024s) or \
         KB, MB, GB, TB (1000s)"
    )]
    UnknownUnit {
        /// What was read.
        text: String,
        /// The part that is not a unit.
        unit: String,
    },
    /// More than 64 bits hold.
    #[error("'{0}' is more than 64 bits can count")]
    TooLarge(String),
    /// A share outside 0 (excluded) to 100.
    #[error("'{0}' is not a share: write more than 0% and at most 100%")]
    NotAShare(String),
}

impl FromStr for Bytes {
    type Err = BytesError;

    /// Reads `1073741824`, `512MiB`, `1.5 GiB`, `1GB` (1000s), `512M` (1024s, as containers do).
    /// Units in any case; a fraction of a byte is dropped.
    fn from_str(text: &str) -> Result<Bytes, BytesError> {
        let trimmed = text.trim();
        let digits_end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits_end);
        let unit = unit.trim_start();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(fraction) || (number.contains('.') && fraction.is_empty()) {
            return Err(BytesError::NotANumber(text.to_owned()));
        }
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => {
                return Err(BytesError::UnknownUnit {
                    text: text.to_owned(),
                    unit: unit.to_owned(),
                });
            }
        };
        let too_large = || BytesError::TooLarge(text.to_owned());
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let whole = whole.checked_mul(scale).ok_or_else(too_large)?;
        // Digits beyond the twelfth are below one byte for every unit.
        let mut part: u128 = 0;
        let mut below: u128 = 1;
        for digit in fraction.bytes().take(12) {
            part = part * 10 + u128::from(digit - b'0');
            below *= 10;
        }
        let part = u64::try_from(part * u128::from(scale) / below).map_err(|_| too_large())?;
        whole.checked_add(part).map(Bytes).ok_or_else(too_large)
    }
}

/// A budget as a person writes it: a size, or a share of what there is.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum MemorySpec {
    /// So many bytes.
    Bytes(Bytes),
    /// A share in percent, more than 0 and at most 100.
    Percent(f64),
}

impl MemorySpec {
    /// The bytes meant, where a share is of `of`.
    pub fn resolve(self, of: Bytes) -> Bytes {
        match self {
            MemorySpec::Bytes(bytes) => bytes,
            MemorySpec::Percent(percent) => of.percent(percent),
        }
    }
}

impl fmt::Display for MemorySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemorySpec::Bytes(bytes) => bytes.fmt(f),
            MemorySpec::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for MemorySpec {
    type Err = BytesError;

    fn from_str(text: &str) -> Result<MemorySpec, BytesError> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return text.parse().map(MemorySpec::Bytes);
        };
        match number.trim_end().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(MemorySpec::Percent(percent)),
            _ => Err(BytesError::NotAShare(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: u64) {
        assert_eq!(text.parse::<Bytes>(), Ok(Bytes(expected)), "{text}");
    }

    #[test]
    fn sizes_are_read() {
        check("0", 0);
        check("1073741824", 1 << 30);
        check("17 B", 17);
        check("512MiB", 512 << 20);
        check(" 2gib ", 2 << 30);
        check("1GB", 1_000_000_000);
        check("512m", 512 << 20);
        check("1.5 GiB", 3 << 29);
        check("0.1KiB", 102);
        check("1.0000000000000000001KiB", 1024);
        check("18446744073709551615", u64::MAX);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1..5",
            "1.2.3",
            ".5G",
            "5.G",
            "1e9",
            "NaN",
            "1 2",
            "5 parsecs",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        for text in [
            "18446744073709551616",
            "20000000TiB",
            "99999999999999999999999",
        ] {
            assert_eq!(
                text.parse::<Bytes>(),
                Err(BytesError::TooLarge(text.to_owned()))
            );
        }
    }

    #[test]
    fn sizes_are_printed() {
        let shown = |n| Bytes(n).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1024), "1.0 KiB");
        assert_eq!(shown(512 << 20), "512.0 MiB");
        assert_eq!(shown(u64::MAX), "16.0 EiB");
        assert_eq!(format!("{:>9}|", Bytes(17)), "     17 B|");
    }

    #[test]
    fn a_share_is_resolved() {
        assert_eq!("80%".parse(), Ok(MemorySpec::Percent(80.0)));
        assert_eq!("2GiB".parse(), Ok(MemorySpec::Bytes(Bytes::gib(2))));
        for text in ["0%", "101%", "-5%", "%", "NaN%", "inf%"] {
            assert!(text.parse::<MemorySpec>().is_err(), "{text}");
        }
        assert_eq!(
            MemorySpec::Percent(50.0).resolve(Bytes::gib(4)),
            Bytes::gib(2)
        );
        assert_eq!(
            MemorySpec::Percent(100.0).resolve(Bytes(12345)),
            Bytes(12345)
        );
        assert_eq!(MemorySpec::Bytes(Bytes(5)).resolve(Bytes::gib(4)), Bytes(5));
    }
}
