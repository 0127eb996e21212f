//! The events of a generation: written into the request's ring by the engine's thread, read from it
//! into the stream's own buffers, and lent from there. Nothing is allocated for an event on either side.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::ring::{Ring, RingSource};
use super::{Heard, Receiver, Sender, Usage, channel};
use crate::EngineError;
use crate::generate::FinishReason;

/// Something that happened to a generation; texts and alternatives are lent until the next is read.
#[derive(Debug)]
pub enum Event<'a> {
    /// A token was chosen.
    Token {
        /// Text that became certain with it: often that of the token, sometimes none (half a
        /// character, the possible start of a stop string), sometimes of tokens before it too.
        text: &'a str,
        /// The token.
        token: u32,
        /// Its log-probability before temperature and penalties, where asked for.
        logprob: Option<f32>,
        /// The most likely tokens in its place, best first, as many as asked for.
        top: &'a [(u32, f32)],
    },
    /// Text that had been held back and turned out to be part of the answer; comes before `Done`.
    Text(&'a str),
    /// The log-probability of the next token of the prompt, where asked for: one for each, in order,
    /// before the first `Token`.
    PromptToken {
        /// The token.
        token: u32,
        /// Its log-probability given the tokens before it; `None` for the first.
        logprob: Option<f32>,
        /// The most likely tokens in its place, best first; empty for the first.
        top: &'a [(u32, f32)],
    },
    /// The end, as it should be.
    Done {
        /// Why.
        finish: FinishReason,
        /// What it came to.
        usage: Usage,
    },
    /// The end, for another reason.
    Failed(EngineError),
}

/// What an event is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Token = 0,
    Text = 1,
    PromptToken = 2,
}

/// What every event in the ring begins with; its text follows, then its alternatives.
#[derive(Copy, Clone, Debug, PartialEq)]
struct Head {
    kind: Kind,
    token: u32,
    logprob: Option<f32>,
    /// Alternatives to the token.
    top: usize,
    /// Bytes of text.
    text_len: usize,
}

/// Bytes of a head: kind, whether there is a log-probability, alternatives (2), bytes of text (4),
/// token (4), log-probability (4).
const HEAD_LEN: usize = 16;
/// Bytes of an alternative: token (4), log-probability (4).
const TOP_LEN: usize = 8;
/// Bytes of text that a token has as a rule, at most.
const TEXT_LEN: usize = 8;
/// Most bytes that are set aside for what a client has not read: some hundred tokens.
const FIRST_LEN_MAX: usize = 16 << 10;

impl Head {
    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        bytes[0] = self.kind as u8;
        bytes[1] = u8::from(self.logprob.is_some());
        // As many as a byte counts were asked for, and a text is part of one token or a stop string.
        bytes[2..4].copy_from_slice(&(self.top as u16).to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.text_len as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.token.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.logprob.unwrap_or(0.0).to_le_bytes());
        bytes
    }

    fn of(bytes: [u8; HEAD_LEN]) -> Self {
        let [kind, has, a, b, c, d, e, f, g, h, i, j, k, l, m, n] = bytes;
        let logprob = f32::from_le_bytes([k, l, m, n]);
        Self {
            kind: match kind {
                0 => Kind::Token,
                1 => Kind::Text,
                _ => Kind::PromptToken,
            },
            token: u32::from_le_bytes([g, h, i, j]),
            logprob: (has == 1).then_some(logprob),
            top: usize::from(u16::from_le_bytes([a, b])),
            text_len: u32::from_le_bytes([c, d, e, f]) as usize,
        }
    }
}

/// Why a generation ended, and what it came to.
type Done = (FinishReason, Usage);

/// The engine's end of a generation.
pub(crate) type TokenSender = Sender<Ring, Done>;

/// How far a reader may lag before more memory is asked for: all events, if they are few. By default he
/// may not lag at all: memory is asked for with every event, and given back when it has been read.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Lag {
    /// Events that there will be at most: one for each token, those of the prompt among them if they are
    /// told, and one for text that was held back.
    pub(crate) events: usize,
    /// Alternatives to each.
    pub(crate) top: usize,
}

impl Lag {
    /// Bytes of the ring that is made for it.
    fn bytes(self) -> usize {
        let each = HEAD_LEN + TEXT_LEN + TOP_LEN * self.top;
        self.events.saturating_mul(each).min(FIRST_LEN_MAX)
    }
}

/// Both ends of a generation's events; those that wait to be read lie in memory of `source`.
pub(crate) fn tokens(source: RingSource, lag: Lag) -> (TokenSender, TokenStream) {
    let (sender, receiver) = channel(Ring::new(lag.bytes(), source));
    let stream = TokenStream {
        receiver,
        desk: Desk::default(),
    };
    (sender, stream)
}

impl TokenSender {
    /// Tells of a token; gives the bytes that were copied for it.
    pub(crate) fn token(
        &self,
        text: &str,
        token: u32,
        logprob: Option<f32>,
        top: &[(u32, f32)],
    ) -> usize {
        self.event(Kind::Token, text, token, logprob, top)
    }

    /// Tells of text that belongs to no token any more.
    pub(crate) fn text(&self, text: &str) -> usize {
        self.event(Kind::Text, text, 0, None, &[])
    }

    /// Tells of a token of the prompt.
    pub(crate) fn prompt_token(
        &self,
        token: u32,
        logprob: Option<f32>,
        top: &[(u32, f32)],
    ) -> usize {
        self.event(Kind::PromptToken, "", token, logprob, top)
    }

    fn event(
        &self,
        kind: Kind,
        text: &str,
        token: u32,
        logprob: Option<f32>,
        top: &[(u32, f32)],
    ) -> usize {
        let head = Head {
            kind,
            token,
            logprob,
            top: top.len(),
            text_len: text.len(),
        };
        let bytes = HEAD_LEN + text.len() + TOP_LEN * top.len();
        self.push(|ring| {
            ring.make_room(bytes)?;
            ring.write(&head.to_bytes());
            ring.write(text.as_bytes());
            for (token, logprob) in top {
                ring.write(&token.to_le_bytes());
                ring.write(&logprob.to_le_bytes());
            }
            Ok(())
        });
        bytes
    }

    /// Tells of the end, as it should be.
    pub(crate) fn done(&self, finish: FinishReason, usage: Usage) {
        self.end(Ok((finish, usage)));
    }

    /// Tells of the end, for another reason.
    pub(crate) fn fail(&self, error: EngineError) {
        self.end(Err(error));
    }
}

/// The client's end of a generation. Dropping it cancels the request and frees its memory before
/// the engine's next step.
#[derive(Debug)]
pub struct TokenStream {
    receiver: Receiver<Ring, Done>,
    desk: Desk,
}

/// Where an event lies while it is read; kept from one to the next.
#[derive(Debug, Default)]
struct Desk {
    text: Vec<u8>,
    top: Vec<(u32, f32)>,
}

impl Desk {
    /// Takes the oldest event off the ring.
    fn take(&mut self, ring: &mut Ring) -> Option<Head> {
        if ring.len() == 0 {
            return None;
        }
        let mut head = [0; HEAD_LEN];
        ring.read(&mut head);
        let head = Head::of(head);
        self.text.resize(head.text_len, 0);
        ring.read(&mut self.text);
        self.top.clear();
        for _ in 0..head.top {
            let mut pair = [0; TOP_LEN];
            ring.read(&mut pair);
            let [a, b, c, d, e, f, g, h] = pair;
            let token = u32::from_le_bytes([a, b, c, d]);
            self.top.push((token, f32::from_le_bytes([e, f, g, h])));
        }
        ring.settle();
        Some(head)
    }

    /// What was taken, lent.
    fn event(&self, heard: Heard<Head, Done>) -> Event<'_> {
        // It was text when it was written.
        let text = std::str::from_utf8(&self.text).unwrap_or_default();
        match heard {
            Heard::Item(head) => {
                let (token, logprob, top) = (head.token, head.logprob, self.top.as_slice());
                match head.kind {
                    Kind::Token => Event::Token {
                        text,
                        token,
                        logprob,
                        top,
                    },
                    Kind::Text => Event::Text(text),
                    Kind::PromptToken => Event::PromptToken {
                        token,
                        logprob,
                        top,
                    },
                }
            }
            Heard::End(Ok((finish, usage))) => Event::Done { finish, usage },
            Heard::End(Err(error)) => Event::Failed(error),
        }
    }
}

impl TokenStream {
    /// The next event; `None` after the terminal one.
    pub async fn recv(&mut self) -> Option<Event<'_>> {
        let Self { receiver, desk } = self;
        let next = |context: &mut Context<'_>| receiver.poll(context, |ring| desk.take(ring));
        let heard = std::future::poll_fn(next).await;
        heard.map(|heard| self.desk.event(heard))
    }

    /// The next event as a future's poll.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event<'_>>> {
        let Self { receiver, desk } = self;
        let heard = receiver.poll(context, |ring| desk.take(ring));
        heard.map(|heard| heard.map(|heard| self.desk.event(heard)))
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<Event<'_>> {
        let heard = self.receiver.now(|ring| self.desk.take(ring));
        heard.map(|heard| self.desk.event(heard))
    }

    /// The next event, waiting for it on this thread; `None` after the terminal one.
    pub fn recv_blocking(&mut self) -> Option<Event<'_>> {
        self.recv_until(None)
    }

    /// The next event, waiting at most so long on this thread.
    pub fn recv_timeout(&mut self, longest: Duration) -> Option<Event<'_>> {
        self.recv_until(Some(Instant::now() + longest))
    }

    fn recv_until(&mut self, deadline: Option<Instant>) -> Option<Event<'_>> {
        let heard = self.receiver.wait(deadline, |ring| self.desk.take(ring));
        heard.map(|heard| self.desk.event(heard))
    }
}

#[cfg(test)]
mod tests {
    use bursar_memory::{Bytes, Ledger, Lifetime};

    use super::*;

    #[test]
    fn events_arrive_in_order_and_end_once() {
        let (sender, mut stream) = tokens(RingSource::Heap, Lag::default());
        assert!(stream.try_recv().is_none());
        let top = [(7, -0.5), (9, -1.25)];
        sender.prompt_token(3, None, &[]);
        sender.token("né", 7, Some(-0.5), &top);
        sender.text("a");
        let usage = Usage::default();
        sender.done(FinishReason::Stop, usage);
        sender.text("too late");
        drop(sender);
        assert!(matches!(
            stream.recv_blocking(),
            Some(Event::PromptToken {
                token: 3,
                logprob: None,
                top: []
            })
        ));
        match stream.recv_blocking() {
            Some(Event::Token {
                text: "né",
                token: 7,
                logprob: Some(-0.5),
                top: told,
            }) => assert_eq!(told, top),
            other => panic!("{other:?}"),
        }
        assert!(matches!(stream.recv_blocking(), Some(Event::Text("a"))));
        assert!(matches!(stream.recv_blocking(), Some(Event::Done { .. })));
        assert!(stream.recv_blocking().is_none());
    }

    #[test]
    fn a_lost_reader_is_seen() {
        let (sender, stream) = tokens(RingSource::Heap, Lag::default());
        assert!(!sender.abandoned());
        drop(stream);
        assert!(sender.abandoned());
    }

    #[test]
    fn what_nobody_reads_is_charged_until_it_is_read_or_dropped() {
        let ledger = Ledger::new(Bytes::mib(1));
        let account = ledger.root().child("requests", Lifetime::Episodic);
        let lag = Lag { events: 4, top: 0 };
        let (sender, mut stream) = tokens(RingSource::Charged(account), lag);
        let first = ledger.granted();
        assert_eq!(first, Bytes(lag.bytes() as u64));
        let long = "x".repeat(1000);
        for _ in 0..100 {
            sender.token(&long, 1, None, &[]);
        }
        assert!(ledger.granted() > Bytes(100_000));
        for _ in 0..100 {
            assert!(stream.try_recv().is_some());
        }
        assert_eq!(ledger.granted(), first);
        sender.token(&long, 1, None, &[]);
        drop((sender, stream));
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }

    #[test]
    fn a_reader_too_slow_for_the_budget_is_told_and_cut_off() {
        let ledger = Ledger::new(Bytes::kib(64));
        let account = ledger.root().child("requests", Lifetime::Episodic);
        let (sender, mut stream) = tokens(RingSource::Charged(account), Lag::default());
        let long = "x".repeat(1000);
        let mut sent = 0;
        while !sender.abandoned() {
            sender.token(&long, 1, None, &[]);
            sent += 1;
            assert!(sent < 100, "the budget holds no more than 64");
        }
        let mut read = 0;
        loop {
            match stream.try_recv() {
                Some(Event::Token { .. }) => read += 1,
                Some(Event::Failed(EngineError::Refused(_))) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, sent - 1);
        assert!(stream.try_recv().is_none());
    }
}
