//! `bursar run [MODEL] [PROMPT]`: one answer, or a chat on a terminal.
//!
//! - `prompt`: which argument is the model and which the prompt, and what stdin adds.
//! - `sampling`: how tokens are chosen: flags over the model's own defaults.
//! - `chat`: the conversation on a terminal.

mod chat;
mod prompt;
mod sampling;

use std::ops::ControlFlow;
use std::path::PathBuf;

use bursar_engine::{Generated, Generator, LoadOptions, Purpose, StopRules, Vocabulary};
use bursar_memory::{Bytes, Ledger, counting};
use bursar_profile::Probe;
use bursar_tokenizer::Special;
use bursar_tokenizer::chat::{ChatInput, ChatTemplate};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::bundled;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model::Found;
use crate::output::Out;
use crate::prepare;
use crate::progress::Unit;
use crate::verbs::Shared;
use prompt::Asked;
use sampling::SamplingFlags;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A model: a .gguf file, a folder with .safetensors files, or a name in the models folder
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// What to answer; piped stdin is added to it. Without one, a chat begins
    #[arg(value_name = "PROMPT")]
    second: Option<String>,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Most tokens to generate; by default what the context leaves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on past the model's own end of the answer, to --max-tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Print tokens per second and memory on stderr
    #[arg(long)]
    stats: bool,
    /// Print one JSON object with the answer and its figures
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingFlags,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides how one sequence runs.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::CONTEXT,
        &table::BATCH_TOKENS,
        &table::KV_PRESET,
        &table::KV_DTYPE,
        &table::KV_DTYPE_K,
        &table::KV_DTYPE_V,
        &table::KV_MEMORY,
        &table::KV_BLOCK_TOKENS,
        &table::WEIGHTS_DTYPE,
        &table::WEIGHTS_RESIDENCY,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
    ];
}

/// One message of a conversation, as chat templates read it.
#[derive(Clone, Debug, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

/// Answers, or chats.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let asked = prompt::asked(
        arguments.first.as_deref(),
        arguments.second.as_deref(),
        &settings,
        &shared.surroundings,
    )?;
    if asked.prompt.is_none() && arguments.json {
        return Err(
            Failure::usage("--json prints one answer, but there is no prompt")
                .help("give a PROMPT, or pipe one in"),
        );
    }
    let mut session = Session::load(arguments, &asked, &settings, shared)?;
    match asked.prompt {
        Some(prompt) => session.answer(&prompt),
        None => chat::chat(&mut session),
    }
}

/// A loaded model with what was asked of it.
struct Session<'a> {
    arguments: &'a Arguments,
    generator: Generator,
    sampling: bursar_engine::SamplingParams,
    seed: u64,
    ledger: Ledger,
    load_seconds: f64,
    path: PathBuf,
    max_tokens: Option<usize>,
}

impl<'a> Session<'a> {
    fn load(
        arguments: &'a Arguments,
        asked: &Asked,
        settings: &Settings,
        shared: &Shared,
    ) -> Result<Session<'a>, Failure> {
        let model = match &asked.model {
            Some(model) => model.clone(),
            None => Found::Bundled(bundled::chat()?),
        };
        let file = model.open()?;
        let path = file.path().to_owned();
        prepare::require_generates(&file)?;
        let sampling = arguments.sampling.params(file.generation());
        sampling
            .check()
            .map_err(|error| Failure::usage(error.to_string()))?;
        let settings = settings.with_one_sequence();
        let prepared = prepare::prepare(file, Purpose::Generate, &settings)?;
        prepared.require_fit()?;
        if !arguments.raw {
            // Said before weights are read for minutes.
            template(&prepared.vocabulary)?;
        }
        let ledger = Ledger::new(prepared.budget.bytes);
        let begun = std::time::Instant::now();
        let mut meter = shared
            .progress
            .meter("loading", Unit::Bytes, prepared.file.used_bytes());
        let generator = Generator::load(
            &prepared.file,
            prepared.vocabulary,
            prepared.plan,
            &ledger,
            LoadOptions {
                isa: settings.isa(),
            },
            &mut |done| meter.set(done, String::new),
        )?;
        meter.finish();
        counting::purge();
        let load_seconds = begun.elapsed().as_secs_f64();
        Ok(Session {
            arguments,
            generator,
            sampling,
            seed: arguments.sampling.seed(),
            ledger,
            load_seconds,
            path,
            max_tokens: arguments.max_tokens.map(|most| most as usize),
        })
    }

    /// The tokens of a conversation, in the model's own form; of a model without one, the last
    /// message as it is.
    fn tokens(&self, messages: &[Message]) -> Result<Vec<u32>, Failure> {
        let vocabulary = self.generator.vocabulary();
        let tokenizer = vocabulary.tokenizer();
        let template = match self.arguments.raw {
            true => None,
            false => template(vocabulary)?,
        };
        match template {
            Some(template) => {
                let text = template
                    .render(&ChatInput::new(messages))
                    .map_err(|error| Failure::failed(error.to_string()).help("or give --raw"))?;
                // The template has written the special tokens, the first one included.
                Ok(tokenizer.encode(
                    &text,
                    Special {
                        add: false,
                        parse: true,
                    },
                ))
            }
            None => {
                let text = messages.last().map_or("", |message| &message.content);
                Ok(tokenizer.encode(
                    text,
                    Special {
                        add: true,
                        parse: true,
                    },
                ))
            }
        }
    }

    /// Continues a conversation; `emit` gets text as it comes.
    fn generate(
        &mut self,
        messages: &[Message],
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, Failure> {
        let tokens = self.tokens(messages)?;
        let stop = StopRules {
            strings: self.arguments.stop.clone(),
            tokens: Vec::new(),
            max_tokens: self.max_tokens,
            ignore_end: self.arguments.ignore_eos,
        };
        Ok(self
            .generator
            .generate(&tokens, &self.sampling, self.seed, &stop, emit)?)
    }

    /// The messages before the first of the user.
    fn opening(&self) -> Vec<Message> {
        let system = self.arguments.system.clone();
        system
            .map(|content| Message {
                role: "system",
                content,
            })
            .into_iter()
            .collect()
    }

    /// Answers one prompt on stdout.
    fn answer(&mut self, prompt: &str) -> Result<(), Failure> {
        let mut messages = self.opening();
        messages.push(Message {
            role: "user",
            content: prompt.to_owned(),
        });
        let mut out = Out::new();
        if self.arguments.json {
            let mut text = String::new();
            let generated = self.generate(&messages, &mut |part| {
                text.push_str(part);
                ControlFlow::Continue(())
            })?;
            out.json(&self.as_json(&text, &generated))?;
            return out.flush();
        }
        let mut ends_line = true;
        let mut written = Ok(());
        let generated = self.generate(&messages, &mut |part| {
            ends_line = part.ends_with('\n');
            written = out.text(part).and_then(|()| out.flush());
            if written.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        written?;
        if !ends_line {
            out.line("")?;
        }
        out.flush()?;
        if self.arguments.stats {
            self.print_stats(&generated);
        }
        Ok(())
    }

    fn as_json(&self, text: &str, generated: &Generated) -> serde_json::Value {
        let sampling = &self.sampling;
        let process = Probe::default().process();
        json!({
            "model": self.path.to_string_lossy(),
            "text": text,
            "finish_reason": generated.finish.name(),
            "prompt_tokens": generated.prefill_tokens,
            "completion_tokens": generated.tokens.len(),
            "load_seconds": self.load_seconds,
            "prefill_seconds": generated.prefill_seconds,
            "prefill_tokens_per_second": rate(generated.prefill_tokens, generated.prefill_seconds),
            "decode_seconds": generated.decode_seconds,
            "decode_tokens_per_second": rate(generated.decode_tokens, generated.decode_seconds),
            "temperature": decimal(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": decimal(sampling.top_p),
            "min_p": decimal(sampling.min_p),
            "seed": self.seed,
            "context": self.generator.context(),
            "plan_bytes": self.generator.plan().total().get(),
            "budget_bytes": self.ledger.budget().get(),
            "granted_bytes": self.ledger.granted().get(),
            "rss_bytes": process.map(|process| process.rss_bytes),
            "rss_peak_bytes": process.and_then(|process| process.hwm_bytes),
        })
    }

    fn print_stats(&self, generated: &Generated) {
        let process = Probe::default().process();
        let peak = process.and_then(|process| process.hwm_bytes);
        let peak = peak.map_or("unknown".into(), |peak| Bytes(peak).to_string());
        eprintln!(
            "load     {:.2} s\n\
             prefill  {} tokens in {:.2} s, {:.1} tokens/s\n\
             decode   {} tokens in {:.2} s, {:.1} tokens/s\n\
             memory   {} planned, {peak} at most, {} budget",
            self.load_seconds,
            generated.prefill_tokens,
            generated.prefill_seconds,
            rate(generated.prefill_tokens, generated.prefill_seconds),
            generated.decode_tokens,
            generated.decode_seconds,
            rate(generated.decode_tokens, generated.decode_seconds),
            self.generator.plan().total(),
            self.ledger.budget(),
        );
    }
}

/// The shortest decimal that stands for the value, which is what was typed: 0.7, not 0.69999999.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Tokens per second; 0 where there was nothing to time.
fn rate(tokens: usize, seconds: f64) -> f64 {
    if tokens == 0 || seconds <= 0.0 {
        0.0
    } else {
        tokens as f64 / seconds
    }
}

/// The model's chat template, if it has one; a broken one is said to be so, with the way around it.
fn template(vocabulary: &Vocabulary) -> Result<Option<&ChatTemplate>, Failure> {
    vocabulary.template().map_err(|error| {
        Failure::failed(error.to_string()).help("or give --raw, to continue the prompt as it is")
    })
}
