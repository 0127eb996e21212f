//! One generation in flight: its tokens, its blocks, its text so far, and where it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_kv::{BlockKey, BlockTable, PrefixHasher};
use bursar_tokenizer::Detokenizer;

use crate::EngineError;
use crate::chain::Chain;
use crate::generate::FinishReason;
use crate::look::{Made, RequestView, Waits};
use crate::params::GenerateParams;
use crate::reply::{TokenSender, Usage};
use crate::request::GenerateRequest;
use crate::sample::History;
use crate::schedule::{Candidate, Seniority};
use crate::spill::Spilled;
use crate::stop::{StopMatcher, StopRules};
use crate::vocabulary::Vocabulary;
use crate::words::Words;

/// A request that has been checked, on its way to the engine's thread.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Its prompt is among `words`.
    pub(crate) request: GenerateRequest,
    /// The prompt, with room for the answer.
    pub(crate) words: Words,
    /// Most tokens to generate.
    pub(crate) longest: usize,
    pub(crate) arrived: Instant,
    pub(crate) reply: TokenSender,
}

/// A sequence, running or waiting.
pub(crate) struct Sequence {
    /// The prompt, then what was generated.
    tokens: Words,
    prompt: usize,
    /// Most tokens to generate.
    longest: usize,
    arrived: Instant,
    /// How long it had to until it was let in first.
    waited: Option<Duration>,
    pub(crate) params: Arc<GenerateParams>,
    /// What its random numbers are made from.
    pub(crate) seed: u64,
    stop_tokens: Vec<u32>,
    ignore_end: bool,
    logprobs: Option<usize>,
    /// Log-probabilities of the prompt are wanted.
    echo: bool,
    /// Tokens of the prompt whose log-probabilities have been sent.
    echoed: usize,
    seniority: Seniority,
    pub(crate) table: BlockTable,
    /// Keys of its blocks; `None` where nothing is shared.
    chain: Option<Chain>,
    /// Most tokens that were ever stored for it.
    reached: usize,
    /// Tokens of the prompt that did not have to be computed.
    found: usize,
    /// Its blocks on disk, in order.
    pub(crate) spilled: VecDeque<Spilled>,
    detokenizer: Detokenizer,
    matcher: StopMatcher<Vec<String>>,
    reply: TokenSender,
    failed: bool,
    /// It is written down that it had to wait for memory.
    pub(crate) held_up: bool,
}

/// What a step found out about a sequence.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Outcome {
    /// The next token, or the next of the prompt.
    pub(crate) token: u32,
    pub(crate) logprob: Option<f32>,
    /// How many alternatives to it there are: the next in the step's list.
    pub(crate) top: usize,
    /// Whether the token is one of the prompt, whose likelihood was wanted.
    pub(crate) prompt: bool,
}

impl AsMut<BlockTable> for Sequence {
    fn as_mut(&mut self) -> &mut BlockTable {
        &mut self.table
    }
}

impl Sequence {
    /// With a `hasher`, its blocks are shared with others that have the same.
    pub(crate) fn new(
        arrival: Arrival,
        order: u64,
        vocabulary: &Vocabulary,
        hasher: Option<PrefixHasher>,
        block_tokens: usize,
    ) -> Self {
        let Arrival {
            request,
            words,
            longest,
            arrived,
            reply,
        } = arrival;
        let StopRules {
            strings,
            tokens: stop_tokens,
            ignore_end,
            ..
        } = request.stop;
        let chain = hasher.map(|hasher| Chain::new(hasher, &words, longest, block_tokens));
        Self {
            chain,
            reached: 0,
            found: 0,
            spilled: VecDeque::new(),
            prompt: words.len(),
            tokens: words,
            longest,
            arrived,
            waited: None,
            params: request.params,
            seed: request.seed,
            stop_tokens,
            ignore_end,
            logprobs: request.logprobs.map(usize::from),
            echo: request.echo_logprobs,
            echoed: 0,
            seniority: Seniority {
                priority: request.priority,
                order,
                overtaken: 0,
            },
            table: BlockTable::new(),
            detokenizer: vocabulary.tokenizer().detokenizer(true),
            matcher: StopMatcher::new(strings),
            reply,
            failed: false,
            held_up: false,
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

    /// As people see it; `waits` says for what, if it does.
    pub(crate) fn view(&self, waits: Option<Waits>) -> RequestView {
        RequestView {
            age: self.arrived.elapsed(),
            prompt_tokens: self.prompt,
            made: Made::Tokens {
                done: self.generated(),
                most: self.longest,
            },
            stored_tokens: self.table.len(),
            blocks: self.table.blocks().len(),
            priority: self.seniority.priority,
            waits,
        }
    }

    /// Whether it ran before, and gave its blocks to others; of one that waits.
    pub(crate) fn displaced(&self) -> bool {
        self.reached > 0
    }

    pub(crate) fn seniority(&self) -> Seniority {
        self.seniority
    }

    /// So many later ones were let in before it.
    pub(crate) fn overtake(&mut self, times: u32) {
        self.seniority.overtaken = self.seniority.overtaken.saturating_add(times);
    }

    /// Makes room for all that it may become, once: when it is let in for the first time; and notes how long it
    /// had to wait for that.
    pub(crate) fn prepare(&mut self, block_tokens: usize, spills: bool) {
        let arrived = self.arrived;
        self.waited.get_or_insert_with(|| arrived.elapsed());
        let most = self.prompt + self.longest;
        if self.reached == 0 && self.table.blocks().is_empty() {
            self.table = BlockTable::with_capacity(most, block_tokens);
            if spills {
                self.spilled.reserve_exact(most.div_ceil(block_tokens));
            }
        }
    }

    /// Most leading tokens that may be found stored instead of computed: one has to be run, and so
    /// have those that log-probabilities are still to be told of.
    pub(crate) fn adoptable(&self) -> usize {
        let most = self.tokens.len() - 1;
        match self.echo && self.echoed < self.prompt {
            true => most.min(self.echoed.saturating_sub(1)),
            false => most,
        }
    }

    /// The key of a full block, if its tokens are known and it is shared at all.
    pub(crate) fn key(&self, index: usize) -> Option<&BlockKey> {
        self.chain.as_ref()?.keys().get(index)
    }

    /// The keys of all full blocks.
    pub(crate) fn keys(&self) -> &[BlockKey] {
        self.chain.as_ref().map_or(&[], Chain::keys)
    }

    /// How many of the prompt's tokens there are to take over from another with the same prompt, and
    /// the key of the last of them that fill no block; `None` where they fill blocks only, or for one
    /// that has to compute them.
    pub(crate) fn rest(&self) -> Option<(usize, &BlockKey)> {
        let most = self.prompt - 1;
        // Once it has generated something, it may have been preempted: then there is more to find.
        let whole = self.echo && self.echoed < self.prompt;
        let rest = self.chain.as_ref()?.rest()?;
        (!whole).then_some((most, rest))
    }

    /// Whether it is likely to run on after its next token.
    pub(crate) fn runs_on(&self) -> bool {
        self.generated() + 1 < self.longest
    }

    /// Tokens of its block at `index` that are on disk.
    pub(crate) fn spilled(&self, index: usize) -> Option<usize> {
        let at = self
            .spilled
            .binary_search_by_key(&index, |s| s.index)
            .ok()?;
        Some(self.spilled[at].tokens)
    }

    /// A block of it was written to disk.
    pub(crate) fn keep(&mut self, block: Spilled) {
        let at = self.spilled.partition_point(|s| s.index < block.index);
        self.spilled.insert(at, block);
    }

    /// Its block at `index` on disk, to be read once.
    pub(crate) fn take_spilled(&mut self, index: usize) -> Option<Spilled> {
        let at = self
            .spilled
            .binary_search_by_key(&index, |s| s.index)
            .ok()?;
        self.spilled.remove(at)
    }

    /// The table covers what was found for it up to here, from `from` on.
    pub(crate) fn adopted(&mut self, from: usize) -> usize {
        let new = self.table.len().min(self.prompt);
        let found = new.saturating_sub(from.max(self.reached));
        self.found += found;
        self.reached = self.reached.max(self.table.len());
        found
    }

    /// It runs `count` tokens up to the table's end; gives how many of them had been computed before.
    pub(crate) fn computed(&mut self, count: usize) -> usize {
        let end = self.table.len();
        let again = self.reached.min(end).saturating_sub(end - count);
        self.reached = self.reached.max(end);
        again
    }

    /// `count` of its tokens from a position on.
    pub(crate) fn slice(&self, position: usize, count: usize) -> &[u32] {
        &self.tokens[position..position + count]
    }

    /// Ends it before its time.
    pub(crate) fn fail(&mut self, error: EngineError) {
        self.failed = true;
        self.reply.fail(error);
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn abandoned(&self) -> bool {
        self.failed || self.reply.abandoned()
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

    /// Tells how likely the prompt's next token was; gives the bytes that were copied for it.
    pub(crate) fn echo(&mut self, found: &Outcome, top: &[(u32, f32)]) -> usize {
        let first = self.echo_first();
        self.echoed += 1;
        first + self.reply.prompt_token(found.token, found.logprob, top)
    }

    /// The prompt's first token follows nothing.
    fn echo_first(&mut self) -> usize {
        if self.echoed > 0 {
            return 0;
        }
        self.echoed = 1;
        self.reply.prompt_token(self.tokens[0], None, &[])
    }

    /// Takes the next token; says whether the sequence has ended with it, and how many bytes were
    /// copied to tell of it.
    pub(crate) fn take(
        &mut self,
        vocabulary: &Vocabulary,
        block_tokens: usize,
        next: &Outcome,
        top: &[(u32, f32)],
    ) -> (bool, usize) {
        let (token, mut copied) = (next.token, 0);
        // A prompt of one token has nothing to echo but itself.
        if self.echo {
            copied += self.echo_first();
        }
        if self.longest == 0 {
            return (true, copied + self.end(FinishReason::Length));
        }
        let ends = vocabulary.is_end(token) && !self.ignore_end;
        if ends || self.stop_tokens.contains(&token) {
            return (true, copied + self.end(FinishReason::Stop));
        }
        self.tokens.push(token);
        if let Some(chain) = &mut self.chain {
            chain.extend(&self.tokens, block_tokens);
        }
        let certain = self.detokenizer.push(vocabulary.tokenizer(), token);
        let (text, found) = self.matcher.push(certain);
        copied += self.reply.token(text, token, next.logprob, top);
        if found {
            self.done(FinishReason::Stop);
            return (true, copied);
        }
        if self.generated() == self.longest {
            return (true, copied + self.end(FinishReason::Length));
        }
        (false, copied)
    }

    /// Ends the text with what was held back, unless that holds a stop string; gives the bytes copied.
    fn end(&mut self, finish: FinishReason) -> usize {
        let (text, found) = self.matcher.finish(self.detokenizer.finish());
        let copied = match text {
            "" => 0,
            text => self.reply.text(text),
        };
        self.done(if found { FinishReason::Stop } else { finish });
        copied
    }

    fn done(&mut self, finish: FinishReason) {
        let usage = Usage {
            prompt_tokens: self.prompt,
            completion_tokens: self.generated(),
            cached_tokens: self.found,
            waited: self.waited,
        };
        self.reply.done(finish, usage);
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
