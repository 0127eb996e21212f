//! The text that Prometheus reads: families, each begun once with its help and kind, and their values.

use std::fmt::{Display, Write};

/// Lines of one metric after another.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a metric.
    pub(super) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of it.
    pub(super) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let begin = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{begin}{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric with one value.
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// One model's values of a histogram: `buckets` with their bounds, the last without, are added up as
    /// Prometheus wants them.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        model: &str,
        buckets: impl Iterator<Item = (Option<f64>, u64)>,
        sum: f64,
    ) {
        let mut count = 0;
        let bucket = format!("{name}_bucket");
        for (bound, more) in buckets {
            count += more;
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
            self.value(&bucket, &[("model", model), ("le", &bound)], count);
        }
        self.value(&format!("{name}_sum"), &[("model", model)], sum);
        self.value(&format!("{name}_count"), &[("model", model)], count);
    }

    /// What has been written.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.value("m", &[("a", "x\"\\\n"), ("b", "")], 1.5);
        assert_eq!(page.into_text(), "m{a=\"x\\\"\\\\\\n\",b=\"\"} 1.5\n");
    }

    #[test]
    fn histograms_add_up() {
        let mut page = Page::default();
        let buckets = [(Some(0.001), 1), (Some(0.004), 2), (None, 1)];
        page.histogram("age_seconds", "m", buckets.into_iter(), 5.007);
        let text = page.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "age_seconds_bucket{model=\"m\",le=\"0.001\"} 1",
                "age_seconds_bucket{model=\"m\",le=\"0.004\"} 3",
                "age_seconds_bucket{model=\"m\",le=\"+Inf\"} 4",
                "age_seconds_sum{model=\"m\"} 5.007",
                "age_seconds_count{model=\"m\"} 4",
            ]
        );
    }
}
