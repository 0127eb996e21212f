//! What a round came to: figures from what became of each request.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::clock::Spread;
use super::super::sheet::Sheet;
use super::drive::{Done, Outcome};
use super::target::Endpoint;

/// Who is sent later than this was not sent on time.
const LATE: Duration = Duration::from_millis(10);
/// Different failures that are told.
const FAILURES_TOLD: usize = 5;

/// Of a hundred, so many are no slower.
const PERCENTILES: [(u32, &str); 4] = [(50, "p50"), (90, "p90"), (95, "p95"), (99, "p99")];

/// A figure of one round.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    name: String,
    unit: &'static str,
    words: &'static str,
    /// NaN where nothing was measured.
    value: f64,
}

/// What one round came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    pub(super) figures: Vec<Figure>,
    /// What failed requests were told, with how many.
    failures: BTreeMap<String, u64>,
    /// Answers whose tokens the server counted, and those whose pieces were counted here.
    counted_by_usage: u64,
    counted_by_pieces: u64,
    /// Wished for in answers that came whole, and got.
    wished_tokens: u64,
    got_tokens: u64,
}

/// The value that `percent` of a hundred do not pass, of values in ascending order (the nearest rank).
pub(super) fn percentile(sorted: &[Duration], percent: u32) -> Option<Duration> {
    let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Done {
    fn output(&self) -> u64 {
        self.output_tokens.unwrap_or(self.pieces)
    }
}

/// The figures of a round; `timed` where requests arrive when they do.
pub(super) fn round(
    all: &[Done],
    endpoint: Endpoint,
    timed: bool,
    memory_peak_bytes: Option<u64>,
) -> Round {
    let mut round = Round::default();
    let seconds = all
        .iter()
        .map(|done| done.ended)
        .max()
        .unwrap_or_default()
        .as_secs_f64();
    let count = |outcome: fn(&Outcome) -> bool| {
        all.iter().filter(|done| outcome(&done.outcome)).count() as u64
    };
    let whole: Vec<&Done> = all
        .iter()
        .filter(|done| done.outcome == Outcome::Whole)
        .collect();
    for done in all {
        if let Outcome::Failed(why) = &done.outcome {
            *round.failures.entry(why.clone()).or_default() += 1;
        }
    }
    if endpoint.streams() {
        round.counted_by_usage = whole
            .iter()
            .filter(|done| done.output_tokens.is_some())
            .count() as u64;
        round.counted_by_pieces = whole.len() as u64 - round.counted_by_usage;
        round.wished_tokens = whole.iter().map(|done| done.wished_tokens as u64).sum();
        round.got_tokens = whole.iter().map(|done| done.output()).sum();
    }
    let mut add = |name: &str, unit, words, value: f64| {
        round.figures.push(Figure {
            name: name.to_owned(),
            unit,
            words,
            value,
        });
    };
    let rate = |count: u64| {
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            f64::NAN
        }
    };
    add(
        "requests_per_second",
        "requests/s",
        "answered to their end",
        rate(whole.len() as u64),
    );
    let input = whole
        .iter()
        .map(|done| done.prompt_tokens)
        .sum::<Option<u64>>();
    let input = input.filter(|_| !whole.is_empty());
    let words = "of prompts of those";
    add(
        "input_tokens_per_second",
        "tokens/s",
        words,
        input.map_or(f64::NAN, rate),
    );
    if endpoint.streams() {
        // What those got who went away was made, too.
        let output = all.iter().map(Done::output).sum();
        add(
            "output_tokens_per_second",
            "tokens/s",
            "of all answers",
            rate(output),
        );
    }
    let mut spread = |name: &str, words, mut times: Vec<Duration>| {
        times.sort_unstable();
        for (percent, label) in PERCENTILES {
            let milliseconds = percentile(&times, percent).map(|time| time.as_secs_f64() * 1e3);
            let name = format!("{name}_{label}_ms");
            add(&name, "ms", words, milliseconds.unwrap_or(f64::NAN));
        }
    };
    if endpoint.streams() {
        let times = all.iter().filter_map(|done| done.first);
        spread(
            "first_token",
            "from arrival to the first piece",
            times.collect(),
        );
        let times = all.iter().flat_map(|done| &done.gaps).copied();
        spread("inter_token", "from one piece to the next", times.collect());
    }
    let times = whole.iter().map(|done| done.whole);
    spread("end_to_end", "from arrival to the end", times.collect());
    let words = "answered to their end";
    add("requests_whole", "requests", words, whole.len() as f64);
    let refused = count(|outcome| *outcome == Outcome::Refused);
    add(
        "requests_refused",
        "requests",
        "told 429 or 503 for good",
        refused as f64,
    );
    let cancelled = count(|outcome| *outcome == Outcome::Cancelled);
    add(
        "requests_cancelled",
        "requests",
        "left by the client, as they were to be",
        cancelled as f64,
    );
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    add(
        "requests_failed",
        "requests",
        "for other reasons",
        failed as f64,
    );
    let refusals: u32 = all.iter().map(|done| done.refusals).sum();
    add(
        "refusals",
        "answers",
        "429 or 503, those that were tried again included",
        refusals.into(),
    );
    let with_time: u32 = all.iter().map(|done| done.refusals_with_time).sum();
    add(
        "refusals_with_retry_after",
        "answers",
        "of them, with a time to come back",
        with_time.into(),
    );
    if timed {
        let late = all.iter().filter(|done| done.late > LATE).count();
        add(
            "late_starts",
            "requests",
            "sent more than 10 ms after their arrival",
            late as f64,
        );
        let latest = all.iter().map(|done| done.late).max().unwrap_or_default();
        add(
            "late_start_most_ms",
            "ms",
            "the latest; counted in its times",
            latest.as_secs_f64() * 1e3,
        );
    }
    let bytes = memory_peak_bytes.map_or(f64::NAN, |bytes| bytes as f64);
    add(
        "memory_peak_bytes",
        "B",
        "most that was ever resident of the server",
        bytes,
    );
    round
}

/// Puts rounds into a sheet: each figure with its median, least and most.
pub(super) fn fill(sheet: &mut Sheet, rounds: &[Round]) {
    let Some(first) = rounds.first() else {
        return;
    };
    for (place, figure) in first.figures.iter().enumerate() {
        let values = rounds.iter().filter_map(|round| round.figures.get(place));
        let measured = values
            .map(|figure| figure.value)
            .filter(|value| !value.is_nan());
        let spread = Spread::of(measured.collect());
        sheet.spread(&figure.name, figure.unit, figure.words, spread);
    }
    let sum = |part: fn(&Round) -> u64| rounds.iter().map(part).sum::<u64>();
    let (usage, pieces) = (sum(|r| r.counted_by_usage), sum(|r| r.counted_by_pieces));
    match (usage, pieces) {
        (0, 0) => {}
        (_, 0) => sheet.remark("tokens of answers are counted by the server (usage)"),
        (0, _) => sheet.remark("the server tells no usage: each piece of an answer is taken for a token"),
        _ => sheet.remark(format!(
            "the server told no usage of {pieces} of {} answers: each of their pieces is taken for a token",
            usage + pieces
        )),
    }
    let (wished, got) = (
        sum(|round| round.wished_tokens),
        sum(|round| round.got_tokens),
    );
    if wished != got {
        sheet.remark(format!(
            "whole answers have {got} tokens, of {wished} that were asked for"
        ));
    }
    let mut failures: BTreeMap<&str, u64> = BTreeMap::new();
    for (why, count) in rounds.iter().flat_map(|round| &round.failures) {
        *failures.entry(why).or_default() += count;
    }
    let mut failures: Vec<(&str, u64)> = failures.into_iter().collect();
    failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (why, count) in failures.iter().take(FAILURES_TOLD) {
        sheet.remark(format!("failed {count} times: {why}"));
    }
    if failures.len() > FAILURES_TOLD {
        let kinds = failures.len() - FAILURES_TOLD;
        sheet.remark(format!("failed for {kinds} other reasons, too"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(times: &[u64]) -> Vec<Duration> {
        times
            .iter()
            .map(|&time| Duration::from_millis(time))
            .collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = ms(&(1..=100).collect::<Vec<u64>>());
        let of = |times: &[Duration], percent| {
            percentile(times, percent).map(|time| time.as_millis() as u64)
        };
        assert_eq!(of(&hundred, 50), Some(50));
        assert_eq!(of(&hundred, 99), Some(99));
        assert_eq!(of(&hundred, 100), Some(100));
        assert_eq!(of(&ms(&[7]), 1), Some(7));
        assert_eq!(of(&ms(&[1, 2, 3]), 50), Some(2));
        assert_eq!(of(&ms(&[1, 2, 3]), 90), Some(3));
        assert_eq!(of(&[], 50), None);
    }

    fn done(outcome: Outcome) -> Done {
        Done {
            outcome,
            late: Duration::from_millis(1),
            first: Some(Duration::from_millis(100)),
            gaps: ms(&[10, 30]),
            whole: Duration::from_millis(140),
            ended: Duration::from_secs(2),
            prompt_tokens: Some(50),
            output_tokens: None,
            pieces: 3,
            wished_tokens: 3,
            refusals: 0,
            refusals_with_time: 0,
        }
    }

    #[test]
    fn a_round_is_summed_up() {
        let refused = Done {
            first: None,
            gaps: Vec::new(),
            prompt_tokens: None,
            pieces: 0,
            refusals: 2,
            refusals_with_time: 1,
            late: Duration::from_millis(400),
            ..done(Outcome::Refused)
        };
        let counted = Done {
            output_tokens: Some(5),
            wished_tokens: 8,
            ..done(Outcome::Whole)
        };
        let all = [
            done(Outcome::Whole),
            counted,
            done(Outcome::Cancelled),
            refused,
            done(Outcome::Failed("500: no".to_owned())),
        ];
        let round = round(&all, Endpoint::Chat, true, None);
        let value = |name: &str| {
            let figure = round.figures.iter().find(|figure| figure.name == name);
            figure.unwrap_or_else(|| panic!("{name}")).value
        };
        assert_eq!(value("requests_per_second"), 1.0);
        assert_eq!(value("input_tokens_per_second"), 50.0);
        assert_eq!(
            value("output_tokens_per_second"),
            7.0,
            "3 + 5 + 3 + 3 in 2 s"
        );
        assert_eq!(value("first_token_p50_ms"), 100.0);
        assert_eq!(value("inter_token_p50_ms"), 10.0);
        assert_eq!(value("inter_token_p99_ms"), 30.0);
        assert_eq!(value("end_to_end_p99_ms"), 140.0);
        let outcomes = ["whole", "refused", "cancelled", "failed"];
        let counts = outcomes.map(|outcome| value(&format!("requests_{outcome}")));
        assert_eq!(counts, [2.0, 1.0, 1.0, 1.0]);
        assert_eq!(
            (value("refusals"), value("refusals_with_retry_after")),
            (2.0, 1.0)
        );
        assert_eq!(
            (value("late_starts"), value("late_start_most_ms")),
            (1.0, 400.0)
        );
        assert!(value("memory_peak_bytes").is_nan(), "nobody told");
        assert_eq!((round.counted_by_usage, round.counted_by_pieces), (1, 1));
        assert_eq!((round.wished_tokens, round.got_tokens), (11, 8));
        assert_eq!(round.failures["500: no"], 1);
    }
}
