//! Prometheus's text format, read as strictly as it is written down: a page that breaks a rule panics with
//! the line.

use std::collections::{BTreeMap, HashSet};

/// A metric with all its values.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One value.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Reads a page: each family begins with its help and its kind, comes once, and holds only values of its own.
pub(crate) fn parse(text: &str) -> Vec<Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: Vec<Family> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let begun = families.iter().any(|family| family.name == name);
            assert!(!begun, "{name} begins twice");
            let next = lines.next().unwrap_or_default();
            let kind = next.strip_prefix(&format!("# TYPE {name} "));
            let kind = kind.unwrap_or_else(|| panic!("no type after {line}"));
            assert!(is_name(name), "{line}");
            families.push(Family {
                name: name.to_owned(),
                kind: kind.to_owned(),
                help: help.to_owned(),
                samples: Vec::new(),
            });
            continue;
        }
        let sample = sample(line);
        let family = families.last_mut().unwrap_or_else(|| panic!("{line}"));
        let rest = sample.name.strip_prefix(&family.name);
        let known = match (family.kind.as_str(), rest) {
            ("histogram", rest) => matches!(rest, Some("_bucket" | "_sum" | "_count")),
            ("summary", rest) => matches!(rest, Some("" | "_sum" | "_count")),
            (_, rest) => rest == Some(""),
        };
        assert!(known, "{} has the value {line}", family.name);
        family.samples.push(sample);
    }
    families.iter().for_each(check);
    families
}

/// What each kind of metric keeps.
fn check(family: &Family) {
    let Family {
        name,
        kind,
        help,
        samples,
    } = family;
    assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
    let mut seen = HashSet::new();
    for sample in samples {
        let place = format!("{}{:?}", sample.name, sample.labels);
        assert!(seen.insert(place.clone()), "{place} comes twice");
        assert!(sample.value.is_finite(), "{place} is {}", sample.value);
    }
    assert_eq!(
        name.ends_with("_total"),
        kind == "counter",
        "{name}: {kind}"
    );
    let not_base = ["ms", "us", "milliseconds", "kib", "mib", "percent"];
    let word = name.split('_').find(|word| not_base.contains(word));
    assert_eq!(word, None, "{name} is in no base unit");
    match kind.as_str() {
        "gauge" => {}
        "counter" => assert!(samples.iter().all(|sample| sample.value >= 0.0), "{name}"),
        "summary" => {
            let plain = samples.iter().filter(|sample| sample.name == *name);
            plain.for_each(|sample| assert!(sample.labels.contains_key("quantile"), "{name}"));
        }
        "histogram" => check_histogram(name, samples),
        other => panic!("{name} is a {other}"),
    }
}

/// Labels of a value but for the bound.
type Labels<'a> = Vec<(&'a String, &'a String)>;

fn check_histogram(name: &str, samples: &[Sample]) {
    let mut buckets: BTreeMap<Labels<'_>, Vec<(f64, f64)>> = BTreeMap::new();
    let of = |sample: &'_ Sample, suffix| sample.name == format!("{name}{suffix}");
    for sample in samples.iter().filter(|sample| of(sample, "_bucket")) {
        let others = sample.labels.iter().filter(|(label, _)| *label != "le");
        let bound = number(&sample.labels["le"]);
        let bucket = (bound, sample.value);
        buckets.entry(others.collect()).or_default().push(bucket);
    }
    for (labels, buckets) in buckets {
        for pair in buckets.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{name}: bounds {pair:?}");
            assert!(pair[0].1 <= pair[1].1, "{name}: does not add up {pair:?}");
        }
        let last = buckets.last().copied().unwrap_or_default();
        assert_eq!(last.0, f64::INFINITY, "{name}{labels:?}");
        let end = |suffix| {
            let same = |sample: &&Sample| {
                of(sample, suffix) && sample.labels.iter().collect::<Vec<_>>() == labels
            };
            let found = samples.iter().find(same);
            found.unwrap_or_else(|| panic!("{name}{suffix}{labels:?} is missing"))
        };
        assert_eq!(end("_count").value, last.1, "{name}{labels:?}");
        assert!(end("_sum").value >= 0.0, "{name}{labels:?}");
    }
}

fn sample(line: &str) -> Sample {
    let broken = || -> ! { panic!("not a value: {line}") };
    let end = line.find(['{', ' ']).unwrap_or_else(|| broken());
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| broken());
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (text, after) = quoted(after).unwrap_or_else(|| broken());
            let before = labels.insert(label.to_owned(), text);
            assert!(before.is_none(), "{label} comes twice: {line}");
            rest = after;
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| broken());
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| broken());
    Sample {
        name: name.to_owned(),
        labels,
        value: number(value),
    }
}

/// A text up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((out, &text[at + 1..])),
            (_, '\\') => out.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            (_, other) => out.push(other),
        }
    }
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        other => other
            .parse()
            .unwrap_or_else(|_| panic!("no number: {text}")),
    }
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
