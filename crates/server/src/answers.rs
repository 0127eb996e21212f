//! The answers to one request, several perhaps, as they come from the engine: collected into one
//! body, or passed on event by event.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use bursar_engine::{EngineError, Event, TokenStream, Usage};
use bursar_memory::PoolError;
use futures_core::Stream;
use tokio::time::{Instant, Interval};

use crate::app::InFlight;
use crate::body;
use crate::charge::Charge;
use crate::error::ApiError;
use crate::form::{Form, Piece};
use crate::openai::Told;
use crate::out::Out;
use crate::phase::Ended;

/// A stream that has nothing to say says so this often, so that nobody between thinks it dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What every stream ends with.
const DONE: &str = "data: [DONE]\n\n";
/// Most events in one write.
const EVENTS_PER_WRITE: usize = 64;

/// The engine's streams of one request.
pub(crate) struct Answers {
    streams: Vec<Option<TokenStream>>,
    /// When the last token of each came.
    heard: Vec<Option<std::time::Instant>>,
    /// Where to look first: every answer gets its turn.
    next: usize,
    /// Answers per prompt: its tokens count once.
    n: usize,
    usage: Usage,
    /// The request; goes back when the last byte has been handed over. Answers are charged by the pool that
    /// their buffers are of.
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
            heard: vec![None; streams.len()],
            streams: streams.into_iter().map(Some).collect(),
            next: 0,
            n,
            usage: Usage::default(),
            charge,
            in_flight,
        }
    }

    /// Has `hear` the next event of any answer, and says which answer it is of; `None` when all have ended.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        hear: impl FnOnce(usize, &Event<'_>) -> Result<(), ApiError>,
    ) -> Poll<Option<Result<(), ApiError>>> {
        let count = self.streams.len();
        let mut open = false;
        for turn in 0..count {
            let choice = (self.next + turn) % count;
            let Some(stream) = &mut self.streams[choice] else {
                continue;
            };
            let event = match stream.poll_recv(context) {
                Poll::Pending => {
                    open = true;
                    continue;
                }
                Poll::Ready(event) => event,
            };
            let ended = match &event {
                None => return Poll::Ready(Some(Err(failed(&EngineError::Stopped)))),
                Some(Event::Failed(error)) => return Poll::Ready(Some(Err(failed(error)))),
                Some(Event::Done { usage, .. }) => Some(*usage),
                Some(Event::Token { .. }) => {
                    time(&mut self.heard, choice, &self.in_flight);
                    None
                }
                Some(_) => None,
            };
            let heard = event.map_or(Ok(()), |event| hear(choice, &event));
            if let Some(usage) = ended {
                self.end(choice, usage);
            }
            self.next = choice + 1;
            return Poll::Ready(Some(heard));
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
        let waited = self.usage.waited.into_iter().chain(usage.waited);
        self.usage.waited = waited.min();
        if self.streams.iter().all(Option::is_none)
            && let Some(served) = self.in_flight.served()
        {
            let after = self.in_flight.begun().elapsed();
            served.timings.answered(after, self.usage);
            self.in_flight.trace().answered(served.id(), self.usage);
        }
    }

    /// All answers in one body, which holds what it takes until it has been handed over.
    pub(crate) async fn collect(
        mut self,
        form: Form,
        ended: Ended,
    ) -> Result<Response<Body>, ApiError> {
        let mut draft = form.draft()?;
        let mut hear = |choice: usize, event: &Event<'_>| -> Result<(), ApiError> {
            match understood(event, |told| draft.tell(choice, told))? {
                Some(piece) => Ok(draft.add(choice, piece)?),
                None => Ok(()),
            }
        };
        let gather = async {
            while let Some(heard) = poll_fn(|context| self.poll(context, &mut hear)).await {
                heard?;
            }
            Ok::<(), ApiError>(())
        };
        tokio::select! {
            done = gather => done?,
            () = ended.wait() => return Err(ApiError::cut_off()),
        }
        let out = draft.finish(self.usage)?;
        Ok(body::json(out, (self.charge, self.in_flight)))
    }

    /// Every part as an event, as soon as there is one.
    pub(crate) fn stream(
        self,
        form: Form,
        include_usage: bool,
        ended: Ended,
    ) -> Result<Response<Body>, ApiError> {
        let mut opening = form.out();
        form.write_opening(&mut opening)?;
        let first = Instant::now() + KEEP_ALIVE;
        let events = Events {
            answers: Some(self),
            form,
            include_usage,
            opening: Some(opening),
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
        Ok(response)
    }
}

/// Writes down how long a token of an answer was in coming; `heard` says when the last ones came.
fn time(heard: &mut [Option<std::time::Instant>], choice: usize, in_flight: &InFlight) {
    let Some(served) = in_flight.served() else {
        return;
    };
    let timings = &served.timings;
    let now = std::time::Instant::now();
    let first = heard.iter().all(Option::is_none);
    match heard[choice].replace(now) {
        Some(last) => timings.next_token(now.duration_since(last)),
        None if first => {
            timings.first_token(now.duration_since(in_flight.begun()));
            in_flight.trace().first_token();
        }
        None => {}
    }
}

/// What an event says to a client: its part of the text; likelihoods go to `tell`. `None` of what is only told
/// together with the next part.
fn understood<'a>(
    event: &Event<'a>,
    tell: impl FnOnce(Told<'a>) -> Result<(), PoolError>,
) -> Result<Option<Piece<'a>>, PoolError> {
    let mut piece = Piece::default();
    match *event {
        Event::Token {
            text,
            token,
            logprob,
            top,
        } => {
            tell(Told {
                token,
                logprob,
                top,
            })?;
            piece.text = text;
        }
        Event::Text(text) => piece.text = text,
        Event::PromptToken {
            token,
            logprob,
            top,
        } => {
            tell(Told {
                token,
                logprob,
                top,
            })?;
            return Ok(None);
        }
        Event::Done { finish, .. } => piece.finish = Some(finish),
        // Has been taken care of.
        Event::Failed(_) => return Ok(None),
    }
    Ok(Some(piece))
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

/// The body of a stream.
struct Events {
    /// Gone when the end has been said.
    answers: Option<Answers>,
    form: Form,
    include_usage: bool,
    /// What is said before anything else.
    opening: Option<Out>,
    keep_alive: Interval,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Events {
    /// Writes what there is, whole events only; true when that was the end.
    fn write(&mut self, context: &mut Context<'_>, out: &mut Out) -> Result<bool, ApiError> {
        let Some(answers) = &mut self.answers else {
            return Ok(true);
        };
        for _ in 0..EVENTS_PER_WRITE {
            let form = &mut self.form;
            let written = out.len();
            let heard = answers.poll(context, |choice, event| {
                let Some(piece) = understood(event, |told| form.tell(choice, told))? else {
                    return Ok(());
                };
                let silent = piece.text.is_empty() && piece.finish.is_none();
                if !silent || form.tells() {
                    let part = form.write_part(choice, piece, out);
                    part.inspect_err(|_| out.truncate(written))?;
                }
                Ok(())
            });
            match heard {
                Poll::Pending => {
                    return match self.ended.as_mut().poll(context) {
                        Poll::Ready(()) => Err(ApiError::cut_off()),
                        Poll::Pending => Ok(false),
                    };
                }
                Poll::Ready(Some(heard)) => heard?,
                Poll::Ready(None) => {
                    if self.include_usage {
                        self.form.write_usage(answers.usage, out)?;
                    }
                    return Ok(true);
                }
            }
        }
        // More is ready: come back after this write.
        context.waker().wake_by_ref();
        Ok(false)
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.answers.is_none() {
            return Poll::Ready(None);
        }
        let mut out = this.opening.take().unwrap_or_else(|| this.form.out());
        let last = match this.write(context, &mut out) {
            Ok(false) => None,
            Ok(true) => Some(DONE.into()),
            // JSON holds no line breaks, so it is always one line.
            Err(error) => Some(format!("data: {}\n\n{DONE}", error.body())),
        };
        if let Some(last) = last {
            // Whatever happened, the stream ends with this; even where there is no room for it in the pool, as
            // the events before it have gone, or go with them.
            this.answers = None;
            if out.raw(&last).is_err() {
                return Poll::Ready(Some(Ok(Bytes::from(last))));
            }
        }
        while this.keep_alive.poll_tick(context).is_ready() {
            if out.is_empty() {
                let _ = out.raw(": still here\n\n");
            }
        }
        match out.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(Some(Ok(out.into_bytes()))),
        }
    }
}
