//! One generation in flight: its tokens, its blocks, its text so far, and where it ends.

use std::sync::Arc;

use bursar_kv::BlockTable;
use bursar_tokenizer::Detokenizer;

use crate::generate::FinishReason;
use crate::handle::GenerateRequest;
use crate::params::GenerateParams;
use crate::reply::{Event, PromptLogprob, Sender, Usage};
use crate::sample::History;
use crate::schedule::{Candidate, Seniority};
use crate::stop::{StopMatcher, StopRules};
use crate::vocabulary::Vocabulary;

/// A request that has been checked, on its way to the engine's thread.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) request: GenerateRequest,
    /// Most tokens to generate.
    pub(crate) longest: usize,
    pub(crate) reply: Sender<Event>,
}

/// A sequence, running or waiting.
pub(crate) struct Sequence {
    /// The prompt, then what was generated.
    tokens: Vec<u32>,
    prompt: usize,
    /// Most tokens to generate.
    longest: usize,
    pub(crate) params: Arc<GenerateParams>,
    stop_tokens: Vec<u32>,
    ignore_end: bool,
    logprobs: Option<usize>,
    /// Log-probabilities of the prompt are wanted.
    echo: bool,
    /// Tokens of the prompt whose log-probabilities have been sent.
    echoed: usize,
    seniority: Seniority,
    pub(crate) table: BlockTable,
    detokenizer: Detokenizer,
    matcher: StopMatcher<Vec<String>>,
    reply: Sender<Event>,
}

/// What a step found out about a sequence.
pub(crate) enum Outcome {
    /// Log-probabilities of the next token of the prompt.
    Prompt(PromptLogprob),
    /// The next token.
    Next {
        token: u32,
        logprob: Option<f32>,
        top: Vec<(u32, f32)>,
    },
}

/// Room for all tokens that there may be is taken at once: no step has to make more, and the bytes are
/// those that were charged.
fn with_room(mut prompt: Vec<u32>, longest: usize) -> Vec<u32> {
    prompt.reserve_exact(longest);
    prompt
}

impl Sequence {
    pub(crate) fn new(arrival: Arrival, order: u64, vocabulary: &Vocabulary) -> Self {
        let Arrival {
            request,
            longest,
            reply,
        } = arrival;
        let StopRules {
            strings,
            tokens: stop_tokens,
            ignore_end,
            ..
        } = request.stop;
        Self {
            prompt: request.prompt.len(),
            tokens: with_room(request.prompt, longest),
            longest,
            params: request.params,
            stop_tokens,
            ignore_end,
            logprobs: request.logprobs.map(usize::from),
            echo: request.echo_logprobs,
            echoed: 0,
            seniority: Seniority {
                priority: request.priority,
                order,
            },
            table: BlockTable::new(),
            detokenizer: vocabulary.tokenizer().detokenizer(true),
            matcher: StopMatcher::new(strings),
            reply,
        }
    }

    /// As the scheduler sees it.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            pending: self.tokens.len() - self.table.len(),
            cached: self.table.len(),
            longest: self.prompt + self.longest,
            seniority: self.seniority,
        }
    }

    pub(crate) fn seniority(&self) -> Seniority {
        self.seniority
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn abandoned(&self) -> bool {
        self.reply.abandoned()
    }

    /// The next `count` tokens to run.
    pub(crate) fn pending(&self, count: usize) -> &[u32] {
        let done = self.table.len();
        &self.tokens[done..done + count]
    }

    /// Whether the logits at a position are of use.
    pub(crate) fn wants(&self, position: usize) -> bool {
        position + 1 == self.tokens.len() || self.echoes(position)
    }

    /// Whether the logits at a position give the log-probability of a prompt token not yet sent.
    fn echoes(&self, position: usize) -> bool {
        // The first token of the prompt follows nothing; it is sent along with the second.
        self.echo && position + 1 < self.prompt && position + 1 >= self.echoed
    }

    /// What the logits at a position are used for.
    pub(crate) fn question(&self, position: usize) -> Question<'_> {
        if self.echoes(position) {
            return Question::Prompt {
                token: self.tokens[position + 1],
                top: self.logprobs.unwrap_or(0),
            };
        }
        let (prompt, generated) = self.tokens.split_at(self.prompt);
        Question::Next {
            history: History { prompt, generated },
            logprobs: self.logprobs,
            may_end: generated.len() >= self.params.min_tokens,
            stop_tokens: &self.stop_tokens,
        }
    }

    /// Sends log-probabilities of the prompt.
    pub(crate) fn echo(&mut self, mut found: Vec<PromptLogprob>) {
        if self.echoed == 0 {
            let first = PromptLogprob {
                token: self.tokens[0],
                logprob: None,
                top: Vec::new(),
            };
            found.insert(0, first);
        }
        self.echoed += found.len();
        self.reply.send(Event::PromptLogprobs(found));
    }

    /// Takes the next token; says whether the sequence has ended with it.
    pub(crate) fn take(
        &mut self,
        vocabulary: &Vocabulary,
        token: u32,
        logprob: Option<f32>,
        top: Vec<(u32, f32)>,
    ) -> bool {
        // A prompt of one token has nothing to echo but itself.
        if self.echo && self.echoed == 0 {
            self.echo(Vec::new());
        }
        if self.longest == 0 {
            self.end(FinishReason::Length);
            return true;
        }
        let ends = vocabulary.is_end(token) && !self.ignore_end;
        if ends || self.stop_tokens.contains(&token) {
            self.end(FinishReason::Stop);
            return true;
        }
        self.tokens.push(token);
        let certain = self.detokenizer.push(vocabulary.tokenizer(), token);
        let (text, found) = self.matcher.push(certain);
        self.reply.send(Event::Token {
            text,
            token,
            logprob,
            top,
        });
        if found {
            self.done(FinishReason::Stop);
            return true;
        }
        if self.generated() == self.longest {
            self.end(FinishReason::Length);
            return true;
        }
        false
    }

    /// Ends the text with what was held back, unless that holds a stop string.
    fn end(&mut self, finish: FinishReason) {
        let (mut text, found) = self.matcher.push(self.detokenizer.finish());
        if !found {
            text.push_str(&self.matcher.finish());
        }
        if !text.is_empty() {
            self.reply.send(Event::Text(text));
        }
        self.done(if found { FinishReason::Stop } else { finish });
    }

    fn done(&mut self, finish: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.prompt,
            completion_tokens: self.generated(),
            cached_tokens: 0,
        };
        self.reply.send(Event::Done { finish, usage });
    }

    /// Tokens generated so far.
    pub(crate) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }
}

/// What is asked of a row of logits.
pub(crate) enum Question<'a> {
    /// How likely a token of the prompt was.
    Prompt { token: u32, top: usize },
    /// Which token comes next.
    Next {
        history: History<'a>,
        /// Log-probabilities are wanted, with so many alternatives.
        logprobs: Option<usize>,
        /// Whether tokens that end the answer may be chosen.
        may_end: bool,
        stop_tokens: &'a [u32],
    },
}
