//! The answers to one request, several perhaps, as they come from the engine: collected into one
//! body, or passed on event by event.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use bursar_engine::{EngineError, Event, FinishReason, TokenStream, Usage};
use futures_core::Stream;
use serde_json::Value;
use tokio::time::{Instant, Interval};

use crate::app::InFlight;
use crate::body;
use crate::charge::Charge;
use crate::error::ApiError;
use crate::phase::Ended;

/// A stream that has nothing to say says so this often, so that nobody between thinks it dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Most events in one write.
const EVENTS_PER_WRITE: usize = 64;

/// A token with its likelihoods.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The token.
    pub(crate) token: u32,
    /// Its log-probability.
    pub(crate) logprob: Option<f32>,
    /// The most likely ones in its place.
    pub(crate) top: Vec<(u32, f32)>,
}

/// A part of an answer, or all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piece {
    /// Its text.
    pub(crate) text: String,
    /// Tokens of the prompt, where they were asked for.
    pub(crate) prompt: Vec<Told>,
    /// Its tokens, where their likelihoods were asked for.
    pub(crate) tokens: Vec<Told>,
    /// Why it ends with this part.
    pub(crate) finish: Option<FinishReason>,
}

impl Piece {
    fn bytes(&self) -> usize {
        let told = |list: &[Told]| -> usize {
            // As a tree of JSON values, which is what becomes of it.
            list.iter().map(|told| 1024 * (1 + told.top.len())).sum()
        };
        // Text is held as it is, and again within the body.
        2 * self.text.len() + told(&self.prompt) + told(&self.tokens)
    }

    fn append(&mut self, more: Piece) {
        self.text.push_str(&more.text);
        self.prompt.extend(more.prompt);
        self.tokens.extend(more.tokens);
        self.finish = self.finish.or(more.finish);
    }
}

/// How answers look.
pub(crate) trait Shape: Send + Unpin + 'static {
    /// What a stream says of an answer before its first part.
    fn opening(&mut self, choice: usize) -> Option<Value>;
    /// A part within a stream.
    fn part(&mut self, choice: usize, piece: Piece) -> Value;
    /// The last event of a stream whose usage was asked for.
    fn usage(&mut self, usage: Usage) -> Value;
    /// All answers in one body.
    fn whole(&mut self, answers: Vec<Piece>, usage: Usage) -> Value;
    /// Whether parts without text are worth telling because of their likelihoods.
    fn tells_tokens(&self) -> bool;
}

/// The engine's streams of one request.
pub(crate) struct Answers {
    streams: Vec<Option<TokenStream>>,
    /// Where to look first: every answer gets its turn.
    next: usize,
    /// Answers per prompt: its tokens count once.
    n: usize,
    usage: Usage,
    /// Body and answers; goes back when the last byte has been handed over.
    charge: Charge,
    in_flight: InFlight,
}

impl Answers {
    /// Streams in the order of their choices, `n` for each prompt.
    pub(crate) fn new(
        streams: Vec<TokenStream>,
        n: usize,
        charge: Charge,
        in_flight: InFlight,
    ) -> Answers {
        Answers {
            streams: streams.into_iter().map(Some).collect(),
            next: 0,
            n,
            usage: Usage::default(),
            charge,
            in_flight,
        }
    }

    /// The next part of any answer; `None` when all have ended.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(usize, Piece), ApiError>>> {
        let count = self.streams.len();
        let mut open = false;
        for turn in 0..count {
            let choice = (self.next + turn) % count;
            let Some(stream) = &mut self.streams[choice] else {
                continue;
            };
            match stream.poll_recv(context) {
                Poll::Pending => open = true,
                Poll::Ready(event) => {
                    self.next = choice + 1;
                    let heard = heard(event);
                    return Poll::Ready(Some(heard.map(|(piece, usage)| {
                        if let Some(usage) = usage {
                            self.end(choice, usage);
                        }
                        (choice, piece)
                    })));
                }
            }
        }
        match open {
            true => Poll::Pending,
            false => Poll::Ready(None),
        }
    }

    /// An answer has ended.
    fn end(&mut self, choice: usize, usage: Usage) {
        self.streams[choice] = None;
        self.usage.completion_tokens += usage.completion_tokens;
        if choice.is_multiple_of(self.n) {
            self.usage.prompt_tokens += usage.prompt_tokens;
            self.usage.cached_tokens += usage.cached_tokens;
        }
    }

    /// All answers in one body, which holds what it takes until it has been handed over.
    pub(crate) async fn collect(
        mut self,
        mut shape: impl Shape,
        ended: Ended,
    ) -> Result<Response<Body>, ApiError> {
        let mut answers = vec![Piece::default(); self.streams.len()];
        let tells = shape.tells_tokens();
        let gather = async {
            while let Some(next) = std::future::poll_fn(|context| self.poll(context)).await {
                let (choice, mut piece) = next?;
                if !tells {
                    piece.tokens = Vec::new();
                }
                self.charge.add(piece.bytes())?;
                answers[choice].append(piece);
            }
            Ok::<(), ApiError>(())
        };
        tokio::select! {
            done = gather => done?,
            () = ended.wait() => return Err(ApiError::cut_off()),
        }
        let text = shape.whole(answers, self.usage).to_string();
        Ok(body::json(text, (self.charge, self.in_flight)))
    }

    /// Every part as an event, as soon as there is one.
    pub(crate) fn stream(
        self,
        mut shape: impl Shape,
        include_usage: bool,
        ended: Ended,
    ) -> Response<Body> {
        let mut opening = String::new();
        for choice in 0..self.streams.len() {
            if let Some(value) = shape.opening(choice) {
                write_event(&mut opening, &value);
            }
        }
        let first = Instant::now() + KEEP_ALIVE;
        let events = Events {
            answers: Some(self),
            shape,
            include_usage,
            opening,
            keep_alive: tokio::time::interval_at(first, KEEP_ALIVE),
            ended: Box::pin(ended.wait()),
        };
        let mut response = Response::new(Body::from_stream(events));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx would hold events back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

/// What an event adds to an answer; with its usage, that is the end of it.
fn heard(event: Option<Event<'_>>) -> Result<(Piece, Option<Usage>), ApiError> {
    let told = |token, logprob, top: &[(u32, f32)]| {
        vec![Told {
            token,
            logprob,
            top: top.to_vec(),
        }]
    };
    let mut piece = Piece::default();
    match event {
        Some(Event::Token {
            text,
            token,
            logprob,
            top,
        }) => {
            piece.text = text.to_owned();
            piece.tokens = told(token, logprob, top);
        }
        Some(Event::Text(text)) => piece.text = text.to_owned(),
        Some(Event::PromptToken {
            token,
            logprob,
            top,
        }) => piece.prompt = told(token, logprob, top),
        Some(Event::Done { finish, usage }) => {
            piece.finish = Some(finish);
            return Ok((piece, Some(usage)));
        }
        Some(Event::Failed(error)) => return Err(failed(&error)),
        None => return Err(failed(&EngineError::Stopped)),
    }
    Ok((piece, None))
}

/// What an engine that gave up means to a client.
pub(crate) fn failed(error: &EngineError) -> ApiError {
    if let Some(refusal) = error.refusal() {
        return ApiError::memory(refusal.clone());
    }
    match error {
        EngineError::Stopped => ApiError::cut_off(),
        other => ApiError::internal(other),
    }
}

/// One event as it is sent: `data: {...}` and an empty line.
fn write_event(out: &mut String, value: &Value) {
    use std::fmt::Write;
    // JSON holds no line breaks, so it is always one line. Writing to a String cannot fail.
    let _ = write!(out, "data: {value}\n\n");
}

/// The body of a stream.
struct Events<S> {
    /// Gone when the end has been said.
    answers: Option<Answers>,
    shape: S,
    include_usage: bool,
    opening: String,
    keep_alive: Interval,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S: Shape> Events<S> {
    /// Writes what there is; true when that was the end.
    fn write(&mut self, context: &mut Context<'_>, out: &mut String) -> bool {
        let Some(answers) = &mut self.answers else {
            return true;
        };
        for _ in 0..EVENTS_PER_WRITE {
            match answers.poll(context) {
                Poll::Pending => {
                    if self.ended.as_mut().poll(context).is_ready() {
                        write_event(out, &ApiError::cut_off().body());
                        return true;
                    }
                    return false;
                }
                Poll::Ready(Some(Ok((choice, piece)))) => {
                    let silent =
                        piece.text.is_empty() && piece.finish.is_none() && piece.prompt.is_empty();
                    if !silent || self.shape.tells_tokens() {
                        write_event(out, &self.shape.part(choice, piece));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    write_event(out, &error.body());
                    return true;
                }
                Poll::Ready(None) => {
                    if self.include_usage {
                        write_event(out, &self.shape.usage(answers.usage));
                    }
                    return true;
                }
            }
        }
        // More is ready: come back after this write.
        context.waker().wake_by_ref();
        false
    }
}

impl<S: Shape> Stream for Events<S> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.answers.is_none() {
            return Poll::Ready(None);
        }
        let mut out = std::mem::take(&mut this.opening);
        if this.write(context, &mut out) {
            // Whatever happened, the stream ends with this.
            out.push_str("data: [DONE]\n\n");
            this.answers = None;
        }
        while this.keep_alive.poll_tick(context).is_ready() {
            if out.is_empty() {
                out.push_str(": still here\n\n");
            }
        }
        match out.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(Some(Ok(Bytes::from(out)))),
        }
    }
}
