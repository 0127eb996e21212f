//! How long work has stalled for lack of memory: the kernel's pressure stall information.
//!
//! Format: Linux `Documentation/accounting/psi.rst`.

/// Stalls of one kind.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Stall {
    /// Share of the last 10 seconds in percent.
    pub avg10_percent: f64,
    /// Share of the last 60 seconds in percent.
    pub avg60_percent: f64,
    /// Share of the last 300 seconds in percent.
    pub avg300_percent: f64,
    /// All stalls so far in microseconds.
    pub total_us: u64,
}

/// Stalls for lack of memory.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one task stalled.
    pub some: Stall,
    /// All tasks stalled at once; not given by every kernel.
    pub full: Option<Stall>,
}

impl Pressure {
    /// Reads `/proc/pressure/memory` or a cgroup's `memory.pressure`; `None` without a `some` line.
    pub(crate) fn parse(text: &str) -> Option<Pressure> {
        let stall = |kind: &str| {
            text.lines()
                .find_map(|line| Stall::parse(line.strip_prefix(kind)?.strip_prefix(' ')?))
        };
        Some(Pressure {
            some: stall("some")?,
            full: stall("full"),
        })
    }
}

impl Stall {
    fn parse(fields: &str) -> Option<Stall> {
        let field = |name: &str| {
            fields
                .split_ascii_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let percent = |name| {
            field(name)?
                .parse::<f64>()
                .ok()
                .filter(|share| share.is_finite())
        };
        Some(Stall {
            avg10_percent: percent("avg10")?,
            avg60_percent: percent("avg60")?,
            avg300_percent: percent("avg300")?,
            total_us: field("total")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read() {
        let pressure = Pressure::parse(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\n\
             full avg10=0.50 avg60=0.00 avg300=0.00 total=678\n",
        )
        .unwrap();
        assert_eq!(pressure.some.avg10_percent, 1.5);
        assert_eq!(pressure.some.avg60_percent, 0.25);
        assert_eq!(pressure.some.total_us, 12345);
        assert_eq!(pressure.full.map(|full| full.total_us), Some(678));
    }

    #[test]
    fn a_missing_or_strange_line_is_none() {
        let only_some =
            Pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").unwrap();
        assert_eq!(only_some.full, None);
        for strange in [
            "",
            "some",
            "full avg10=0.00 avg60=0.00 avg300=0.00 total=0",
            "some avg10=x avg60=0.00 avg300=0.00 total=0",
            "some avg10=NaN avg60=0.00 avg300=0.00 total=0",
            "some avg10=0.00 avg60=0.00 total=0",
        ] {
            assert_eq!(Pressure::parse(strange), None, "{strange}");
        }
    }
}
