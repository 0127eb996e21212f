//! Durations by name, as figures and as a table.

use std::fmt::{self, Display};

/// How long the spans of one name took, in nanoseconds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SpanSummary {
    /// Their name.
    pub name: &'static str,
    /// How many there were.
    pub count: u64,
    /// All together. What is inside another is counted in both; so is what other threads did meanwhile.
    pub total_ns: u64,
    /// The shortest.
    pub min_ns: u64,
    /// Half of them were no longer, to 1.6 %.
    pub p50_ns: u64,
    /// Of 100, 99 were no longer, to 1.6 %.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl SpanSummary {
    /// The mean.
    pub fn average_ns(&self) -> u64 {
        self.total_ns.checked_div(self.count).unwrap_or(0)
    }
}

/// All names that were seen, the largest total first. `{}` prints a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    spans: Vec<SpanSummary>,
}

impl Summary {
    pub(super) fn new(mut spans: Vec<SpanSummary>) -> Summary {
        spans.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then(a.name.cmp(b.name)));
        Summary { spans }
    }

    /// One after another, the largest total first.
    pub fn spans(&self) -> &[SpanSummary] {
        &self.spans
    }

    /// Those of a name.
    pub fn get(&self, name: &str) -> Option<&SpanSummary> {
        self.spans.iter().find(|span| span.name == name)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.spans.iter().map(|span| span.name.len());
        let width = names.max().unwrap_or(0).max(4);
        let head = ["COUNT", "TOTAL", "AVG", "MIN", "P50", "P99", "MAX"];
        write!(f, "{:width$}", "SPAN")?;
        for word in head {
            write!(f, "  {word:>8}")?;
        }
        writeln!(f)?;
        for span in &self.spans {
            write!(f, "{:width$}  {:>8}", span.name, span.count)?;
            for time in [
                span.total_ns,
                span.average_ns(),
                span.min_ns,
                span.p50_ns,
                span.p99_ns,
                span.max_ns,
            ] {
                write!(f, "  {:>8}", duration_words(time))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Nanoseconds in words of at most eight characters: `812 ns`, `4.20 µs`, `35.1 ms`, `7.00 s`.
pub fn duration_words(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = match value {
        0.0..9.995 => 2,
        9.995..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let words = [0, 999, 1_000, 9_996, 35_149_000, 999_400, 7_000_000_000].map(duration_words);
        assert_eq!(
            words,
            [
                "0 ns", "999 ns", "1.00 µs", "10.0 µs", "35.1 ms", "999 µs", "7.00 s"
            ]
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_name() {
        let span = |name, count, total_ns| SpanSummary {
            name,
            count,
            total_ns,
            min_ns: 1,
            p50_ns: 2_500,
            p99_ns: 3_000_000,
            max_ns: 4_000_000_000,
        };
        let summary = Summary::new(vec![span("b", 4, 1_000), span("a.longer", 2, 9_000)]);
        assert_eq!(summary.spans()[0].name, "a.longer");
        assert_eq!(summary.get("b").expect("there").average_ns(), 250);
        let table = summary.to_string();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(
            rows[0],
            ["SPAN", "COUNT", "TOTAL", "AVG", "MIN", "P50", "P99", "MAX"]
        );
        assert_eq!(
            rows[1],
            [
                "a.longer", "2", "9.00 µs", "4.50 µs", "1 ns", "2.50 µs", "3.00 ms", "4.00 s"
            ]
        );
        assert_eq!(rows.len(), 3);
        let widths = table.lines().map(|line| line.chars().count());
        assert!(
            widths
                .collect::<Vec<_>>()
                .windows(2)
                .all(|pair| pair[0] == pair[1])
        );
    }
}
