//! Asking: as many clients as there are, each takes the next request, waits until it arrives, asks, and
//! writes down what came when. All times are from when a request was to arrive, not from when a client got
//! round to it: a server that makes its clients wait would look quicker for that.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mix::{Extent, Mix, Wish, Wishes};
use super::target::{ANSWER_BYTES_MAX, Target, said};
use crate::failure::Failure;
use crate::http::{Answer, Connection, next_event};

/// Stack of a client.
const STACK_BYTES: usize = 256 << 10;
/// How often who waits looks at how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// How long a client that asks when it is free waits after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest time that a client waits because a server says so.
const RETRY_SECONDS_MAX: u64 = 120;
/// Seconds that a client waits if the server does not say how many.
const RETRY_SECONDS: u64 = 1;

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// Answered to its end.
    Whole,
    /// Not now: 429 or 503.
    Refused,
    /// The client went away, as it was to.
    Cancelled,
    /// Anything else, in words.
    Failed(String),
}

/// What became of a request. Times are from when it was to arrive.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// How late it was sent.
    pub(super) late: Duration,
    /// Until the first piece of the answer.
    pub(super) first: Option<Duration>,
    /// Between each piece and the next.
    pub(super) gaps: Vec<Duration>,
    /// Until the end.
    pub(super) whole: Duration,
    /// When it ended, from the start of the round.
    pub(super) ended: Duration,
    /// As the server counts them.
    pub(super) prompt_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    /// Pieces of the answer with something in them.
    pub(super) pieces: u64,
    /// Wished for.
    pub(super) wished_tokens: usize,
    /// Times that the server said not now.
    pub(super) refusals: u32,
    /// How many of those said when.
    pub(super) refusals_with_time: u32,
}

/// How requests are sent.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pace {
    /// Clients: requests that are under way at once, at most.
    pub(super) clients: usize,
    /// How often a client that is told to come back comes back.
    pub(super) retries: u32,
    /// How long nothing may come.
    pub(super) patience: Duration,
}

/// Sends all requests of a round; `seen` gets each as it ends, and `None` now and then.
///
/// # Errors
/// Where clients cannot be started, or `seen` wants no more.
pub(super) fn round(
    target: &Target,
    mix: &Mix,
    extent: Extent,
    seed: u64,
    pace: Pace,
    mut seen: impl FnMut(Option<Done>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let queue = Queue {
        wishes: Mutex::new(Some(mix.wishes(extent, seed))),
        // Some time to get all clients going.
        begun: Instant::now() + LOOK,
        until: extent.duration.filter(|_| !mix.is_timed()),
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..pace.clients {
            let (sender, queue) = (sender.clone(), &queue);
            let client = std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .name(format!("client {number}"))
                .spawn_scoped(scope, move || client(target, queue, pace, &sender));
            if let Err(error) = client {
                queue.close();
                let message = format!("cannot start client {number}: {error}");
                return Err(Failure::failed(message).help("measure with fewer clients at once"));
            }
        }
        drop(sender);
        loop {
            let done = match receiver.recv_timeout(LOOK) {
                Ok(done) => Some(done),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if let Err(failure) = seen(done) {
                queue.close();
                return Err(failure);
            }
        }
    })
}

/// What clients take requests from.
struct Queue<'a> {
    /// `None` when there are to be no more.
    wishes: Mutex<Option<Wishes<'a>>>,
    begun: Instant,
    /// For how long, where requests have no times.
    until: Option<Duration>,
}

impl Queue<'_> {
    /// The next request, and when it is to arrive.
    fn next(&self) -> Option<(Wish, Instant)> {
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().max(self.begun);
        if self.until.is_some_and(|until| now - self.begun >= until) {
            *wishes = None;
        }
        let wish = wishes.as_mut()?.next()?;
        let at = wish.at.map_or(now, |at| self.begun + at);
        Some((wish, at))
    }

    fn close(&self) {
        *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn client(target: &Target, queue: &Queue<'_>, pace: Pace, sender: &mpsc::Sender<Done>) {
    let mut connection = Connection::new(&target.site, target.key.as_deref(), pace.patience);
    while let Some((wish, at)) = queue.next() {
        let prompt = target.words.prompt(&wish.prompt);
        let body = target.body(&prompt, wish.output_tokens);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let mut done = Done {
            outcome: Outcome::Whole,
            late: at.elapsed(),
            first: None,
            gaps: Vec::new(),
            whole: Duration::ZERO,
            ended: Duration::ZERO,
            prompt_tokens: None,
            output_tokens: None,
            pieces: 0,
            wished_tokens: wish.output_tokens,
            refusals: 0,
            refusals_with_time: 0,
        };
        ask(&mut connection, target, &body, (&wish, at), pace, &mut done);
        done.whole = at.elapsed();
        done.ended = queue.begun.elapsed();
        let failed = matches!(done.outcome, Outcome::Failed(_));
        if sender.send(done).is_err() {
            return;
        }
        if failed && wish.at.is_none() {
            // Who fails at once would else ask a server that is gone thousands of times a second.
            std::thread::sleep(PAUSE);
        }
    }
}

/// Asks until there is an answer, or no more patience.
fn ask(
    connection: &mut Connection,
    target: &Target,
    body: &str,
    (wish, at): (&Wish, Instant),
    pace: Pace,
    done: &mut Done,
) {
    loop {
        let endpoint = target.endpoint();
        let mut answer = match connection.send("POST", endpoint.path(), Some(body)) {
            Ok(answer) => answer,
            Err(error) => {
                done.outcome = Outcome::Failed(error.to_string());
                return;
            }
        };
        match answer.status {
            200 => {
                let read = match endpoint.streams() {
                    true => stream(&mut answer, wish, at, done),
                    false => whole(answer, done),
                };
                done.outcome = read.unwrap_or_else(|error| Outcome::Failed(error.to_string()));
                return;
            }
            429 | 503 => {
                let seconds = answer.retry_after;
                done.outcome = Outcome::Refused;
                done.refusals += 1;
                done.refusals_with_time += u32::from(seconds.is_some());
                // Reads it, so that the connection can be used again.
                let _ = answer.text(ANSWER_BYTES_MAX);
                if done.refusals > pace.retries {
                    return;
                }
                let seconds = seconds.unwrap_or(RETRY_SECONDS).min(RETRY_SECONDS_MAX);
                std::thread::sleep(Duration::from_secs(seconds));
            }
            status => {
                let text = answer.text(ANSWER_BYTES_MAX).unwrap_or_default();
                let value = serde_json::from_str(&text).unwrap_or(Value::Null);
                done.outcome = Outcome::Failed(said(status, &value));
                return;
            }
        }
    }
}

/// Reads an answer that comes at once.
fn whole(answer: Answer<'_>, done: &mut Done) -> std::io::Result<Outcome> {
    let text = answer.text(ANSWER_BYTES_MAX)?;
    let value: Value = serde_json::from_str(&text)?;
    done.prompt_tokens = value["usage"]["prompt_tokens"].as_u64();
    let vectors = value["data"]
        .as_array()
        .is_some_and(|data| !data.is_empty());
    Ok(match vectors {
        true => Outcome::Whole,
        false => Outcome::Failed("the answer has no vector".to_owned()),
    })
}

/// Reads an answer that comes piece by piece.
fn stream(
    answer: &mut Answer<'_>,
    wish: &Wish,
    at: Instant,
    done: &mut Done,
) -> std::io::Result<Outcome> {
    let mut last: Option<Instant> = None;
    while let Some(data) = next_event(answer)? {
        let now = Instant::now();
        if data == "[DONE]" {
            // What ends a chunked answer, so that the connection can be used again.
            next_event(answer)?;
            return Ok(Outcome::Whole);
        }
        let event: Value = serde_json::from_str(&data)?;
        if event.get("error").is_some_and(|error| !error.is_null()) {
            return Ok(Outcome::Failed(said(200, &event)));
        }
        let usage = &event["usage"];
        done.prompt_tokens = usage["prompt_tokens"].as_u64().or(done.prompt_tokens);
        done.output_tokens = usage["completion_tokens"].as_u64().or(done.output_tokens);
        if !has_text(&event) {
            continue;
        }
        done.pieces += 1;
        match last.replace(now) {
            None => done.first = Some(now.saturating_duration_since(at)),
            Some(last) => done.gaps.push(now - last),
        }
        if wish
            .cancel_after
            .is_some_and(|after| done.pieces >= after as u64)
        {
            return Ok(Outcome::Cancelled);
        }
    }
    Ok(Outcome::Failed("the stream ended before [DONE]".to_owned()))
}

/// Whether an event brings something of the answer.
fn has_text(event: &Value) -> bool {
    let choices = event["choices"].as_array().into_iter().flatten();
    let mut texts = choices.flat_map(|choice| {
        let delta = &choice["delta"];
        // Reasoning, as several servers call it.
        [
            &choice["text"],
            &delta["content"],
            &delta["reasoning_content"],
            &delta["reasoning"],
        ]
    });
    texts.any(|text| text.as_str().is_some_and(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_a_piece_of_an_answer() {
        let check = |choice: Value, expected| {
            assert_eq!(
                has_text(&json!({ "choices": [choice] })),
                expected,
                "{choice}"
            );
        };
        check(json!({ "text": "a" }), true);
        check(json!({ "text": "" }), false);
        check(json!({ "delta": { "content": "a" } }), true);
        check(
            json!({ "delta": { "role": "assistant", "content": "" } }),
            false,
        );
        check(json!({ "delta": { "reasoning_content": "a" } }), true);
        check(json!({ "delta": {}, "finish_reason": "stop" }), false);
        assert!(!has_text(&json!({ "choices": [], "usage": {} })));
    }
}
