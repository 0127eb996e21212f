//! Recorded requests in the format that Mooncake's traces have: a JSON object per line with `timestamp` in
//! milliseconds, `input_length` and `output_length` in tokens, and `hash_ids`, one for each block of 512
//! tokens of the prompt: where two requests have the same ids from the start, their prompts begin alike.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::mix::{Stretch, Wish, seed_for};
use crate::failure::Failure;

/// Tokens that an id stands for.
const BLOCK_TOKENS: usize = 512;
/// Most requests that are read of a file.
const REQUESTS_MAX: usize = 1 << 20;

/// Requests as they were recorded.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    requests: Vec<Recorded>,
    /// How many times as fast they are sent.
    speedup: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Recorded {
    /// Milliseconds from the start.
    timestamp: f64,
    input_length: usize,
    output_length: usize,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

impl Trace {
    /// Reads one.
    ///
    /// # Errors
    /// Where the file cannot be read, or a line is none of such a trace: says which, and what is wrong.
    pub(super) fn read(path: &Path, speedup: f64) -> Result<Trace, Failure> {
        let unreadable = |error: std::io::Error| Failure::io("read", path, &error);
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut lines = Vec::new();
        for line in BufReader::new(file).lines().take(REQUESTS_MAX) {
            lines.push(line.map_err(unreadable)?);
        }
        Trace::parse(lines.iter().map(String::as_str), speedup).map_err(|why| {
            Failure::failed(format!("{} is no trace of requests: {why}", path.display())).help(
                "each line is a JSON object with timestamp (ms), input_length, output_length (tokens) \
                 and hash_ids (one for each 512 tokens of the prompt)",
            )
        })
    }

    fn parse<'a>(lines: impl Iterator<Item = &'a str>, speedup: f64) -> Result<Trace, String> {
        let mut requests: Vec<Recorded> = Vec::new();
        for (place, line) in lines.enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |why: String| format!("line {}: {why}", place + 1);
            let request: Recorded =
                serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            request.check().map_err(wrong)?;
            requests.push(request);
        }
        if requests.is_empty() {
            return Err("it has no request".to_owned());
        }
        requests.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        Ok(Trace { requests, speedup })
    }

    /// How many requests there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The request at a place. The first is sent at once, whenever it was recorded.
    pub(super) fn wish(&self, number: usize, seed: u64) -> Option<Wish> {
        let request = self.requests.get(number)?;
        let first = self.requests.first()?.timestamp;
        let seconds = (request.timestamp - first) / 1e3 / self.speedup;
        Some(Wish {
            at: Some(Duration::try_from_secs_f64(seconds).ok()?),
            prompt: request.stretches(seed, number as u64),
            // Some recorded answers are empty; one cannot ask for that.
            output_tokens: request.output_length.max(1),
            cancel_after: None,
        })
    }
}

impl Recorded {
    fn check(&self) -> Result<(), String> {
        let (input, ids) = (self.input_length, self.hash_ids.len());
        if !(0.0..1e15).contains(&self.timestamp) {
            return Err(format!("timestamp {} is no time in ms", self.timestamp));
        }
        if input == 0 {
            return Err("input_length must be 1 or more".to_owned());
        }
        // The last block may be cut off, and then may or may not have an id.
        let whole = input / BLOCK_TOKENS;
        if ids != 0 && !(whole..=input.div_ceil(BLOCK_TOKENS)).contains(&ids) {
            return Err(format!(
                "{ids} hash_ids do not fit an input_length of {input}: one for each {BLOCK_TOKENS} tokens"
            ));
        }
        Ok(())
    }

    /// Blocks with an id are the same words wherever the id occurs; the rest is this request's own.
    fn stretches(&self, seed: u64, number: u64) -> Vec<Stretch> {
        let mut left = self.input_length;
        let mut stretches = Vec::with_capacity(self.hash_ids.len() + 1);
        for &id in &self.hash_ids {
            let tokens = left.min(BLOCK_TOKENS);
            left -= tokens;
            stretches.push(Stretch {
                seed: seed_for(seed, "block", id),
                tokens,
            });
        }
        if left > 0 {
            stretches.push(Stretch {
                seed: seed_for(seed, "prompt", number),
                tokens: left,
            });
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Trace, String> {
        Trace::parse(text.lines(), 2.0)
    }

    #[test]
    fn requests_keep_their_times_lengths_and_common_blocks() {
        let text = r#"
            {"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [4, 5, 9]}
            {"timestamp": 1000, "input_length": 1030, "output_length": 3, "hash_ids": [4, 5, 6]}
            {"timestamp": 1000, "input_length": 20, "output_length": 1}
        "#;
        let trace = parse(text).expect("a trace");
        let wish = |number| trace.wish(number, 1).expect("a request");
        assert_eq!(trace.len(), 3);
        assert!(trace.wish(3, 1).is_none());
        let (first, own, last) = (wish(0), wish(1), wish(2));
        let times = [&first, &own, &last].map(|wish| wish.at);
        let expected = [0.0, 0.0, 1.0].map(|seconds| Some(Duration::from_secs_f64(seconds)));
        assert_eq!(times, expected, "twice as fast, from the first on");
        let lengths = |wish: &Wish| {
            wish.prompt
                .iter()
                .map(|part| part.tokens)
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(&first), [512, 512, 6]);
        assert_eq!(lengths(&own), [20]);
        assert_eq!(lengths(&last), [512, 512, 76]);
        assert_eq!(first.prompt[..2], last.prompt[..2]);
        assert_ne!(first.prompt[2].seed, last.prompt[2].seed);
        assert_eq!((first.output_tokens, last.output_tokens), (3, 7));
    }

    #[test]
    fn what_is_no_trace_says_where() {
        let refused = |text: &str, why: &str| {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        };
        refused("", "no request");
        refused("\n{", "line 2");
        refused("{\"timestamp\": 1}", "input_length");
        let line = |ids: &str, input: u32| {
            format!(
                "{{\"timestamp\": 1, \"input_length\": {input}, \"output_length\": 1, \"hash_ids\": {ids}}}"
            )
        };
        refused(
            &line("[1, 2, 3]", 600),
            "3 hash_ids do not fit an input_length of 600",
        );
        refused(&line("[]", 0), "1 or more");
        parse(&line("[1]", 600)).expect("the last block has no id");
    }
}
