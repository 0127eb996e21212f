//! A server that is measured: what it is asked, in which words, and how its memory is read.

use std::io;
use std::time::Duration;

use bursar_profile::Probe;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::words::Words;
use crate::failure::Failure;
use crate::http::{Connection, Site};

/// How long a question about the server itself may take. A model may have to be loaded for the first.
const PATIENCE: Duration = Duration::from_secs(600);
/// Most bytes of an answer that is no stream.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Words of the prompts by which prompts are measured.
const SAMPLE_WORDS: (usize, usize) = (16, 80);

/// What is asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Endpoint {
    /// Answers to a message
    Chat,
    /// Continuations of a text
    Completions,
    /// Vectors
    Embeddings,
}

impl Endpoint {
    pub(super) fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Embeddings => "/v1/embeddings",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat",
            Endpoint::Completions => "completions",
            Endpoint::Embeddings => "embeddings",
        }
    }

    /// Whether answers come piece by piece.
    pub(super) fn streams(self) -> bool {
        self != Endpoint::Embeddings
    }
}

/// What requests say beside their prompts.
#[derive(Copy, Clone, Debug)]
pub(super) struct Manner {
    pub(super) endpoint: Endpoint,
    /// Whether answers go on to their wished length, past the model's end.
    pub(super) ignore_eos: bool,
    pub(super) temperature: f64,
}

/// Where the most that was resident is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum MemorySource {
    /// From the kernel, of this process.
    Process(u32),
    /// From the server itself.
    Told,
}

/// Whose counts of prompts the lengths of prompts go by.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Measure {
    /// The server's tokenizer says that each word is a token.
    Tokenizer,
    /// Counts in the server's answers.
    Usage,
    /// Nobody's: a word is taken for a token.
    Nobody,
}

/// A server that is measured.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) site: Site,
    pub(super) key: Option<String>,
    pub(super) model: String,
    pub(super) words: Words,
    measure: Measure,
    memory: MemorySource,
    manner: Manner,
}

impl Target {
    /// Finds out what must be known of a server before it is measured; has it load its model.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses what is going to be asked of it.
    pub(super) fn find(
        site: Site,
        key: Option<String>,
        model: Option<&str>,
        manner: Manner,
        memory: MemorySource,
    ) -> Result<Target, Failure> {
        let mut connection = Connection::new(&site, key.as_deref(), PATIENCE);
        let unreachable = |error: io::Error| {
            Failure::failed(format!("cannot ask the server at {}: {error}", site.url())).help(
                "give the address of a server that runs, or none to have one started for the measurement",
            )
        };
        let model = match model {
            Some(model) => model.to_owned(),
            None => first_model(&mut connection, manner.endpoint).map_err(unreachable)?,
        };
        let mut target = Target {
            key: key.clone(),
            model,
            words: Words::all(),
            measure: Measure::Nobody,
            memory,
            manner,
            site: site.clone(),
        };
        // First of all, because a model that has to be loaded is loaded then.
        let sample = |target: &Target, connection: &mut Connection, words: usize| {
            target
                .prompt_tokens(connection, words)
                .map_err(|refused| match refused {
                    Refused::Io(error) => unreachable(error),
                    Refused::Said(said) => Failure::failed(format!("{}: {said}", site.url())),
                })
        };
        let (short, long) = SAMPLE_WORDS;
        sample(&target, &mut connection, short)?;
        let found = target
            .one_token_words(&mut connection)
            .map_err(unreachable)?;
        if let Some(words) = found {
            target.words = words;
            target.measure = Measure::Tokenizer;
        }
        let Some(tokens) = sample(&target, &mut connection, short)? else {
            return Ok(target);
        };
        target.words = match target.measure {
            Measure::Tokenizer => target.words.with_overhead(short, tokens),
            _ => match sample(&target, &mut connection, long)? {
                Some(more) => {
                    target.measure = Measure::Usage;
                    target.words.with_rate((short, tokens), (long, more))
                }
                None => target.words,
            },
        };
        Ok(target)
    }

    /// How prompts got their lengths, in words.
    pub(super) fn measured_by(&self) -> String {
        let rate = self.words.tokens_per_word();
        match self.measure {
            Measure::Tokenizer => "words of one token each, by the server's tokenizer".to_owned(),
            Measure::Usage => {
                format!("words of {rate:.2} tokens on average, by the server's usage")
            }
            Measure::Nobody => "one word for a token: the server counts no tokens".to_owned(),
        }
    }

    /// A request's body.
    pub(super) fn body(&self, prompt: &str, output_tokens: usize) -> String {
        let Manner {
            endpoint,
            ignore_eos,
            temperature,
        } = self.manner;
        let mut body = json!({ "model": self.model });
        match endpoint {
            Endpoint::Chat => body["messages"] = json!([{ "role": "user", "content": prompt }]),
            Endpoint::Completions => body["prompt"] = prompt.into(),
            Endpoint::Embeddings => body["input"] = prompt.into(),
        }
        if endpoint.streams() {
            body["max_tokens"] = output_tokens.into();
            body["temperature"] = temperature.into();
            body["stream"] = true.into();
            body["stream_options"] = json!({ "include_usage": true });
            if ignore_eos {
                body["ignore_eos"] = true.into();
            }
        }
        body.to_string()
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.manner.endpoint
    }

    /// The most that was ever resident of the server, in bytes; `None` where nobody tells.
    pub(super) fn memory_peak_bytes(&self) -> Option<u64> {
        match self.memory {
            MemorySource::Process(id) => Probe::default().process_of(id)?.hwm_bytes,
            MemorySource::Told => {
                let mut connection =
                    Connection::new(&self.site, self.key.as_deref(), Duration::from_secs(10));
                let (status, told) = ask(&mut connection, "/memory", None).ok()?;
                told["rss_peak_bytes"].as_u64().filter(|_| status == 200)
            }
        }
    }

    /// Tokens that the server counts in a prompt of so many words, where it says that.
    fn prompt_tokens(
        &self,
        connection: &mut Connection,
        words: usize,
    ) -> Result<Option<usize>, Refused> {
        let mut body: Value = serde_json::from_str(&self.body(&self.words.sample(words), 1))
            .map_err(|error| Refused::Io(error.into()))?;
        if let Some(body) = body.as_object_mut() {
            body.remove("stream");
            body.remove("stream_options");
        }
        let (status, answer) = ask(connection, self.manner.endpoint.path(), Some(&body))?;
        if status != 200 {
            return Err(Refused::Said(said(status, &answer)));
        }
        let tokens = answer["usage"]["prompt_tokens"].as_u64();
        Ok(tokens.and_then(|tokens| usize::try_from(tokens).ok()))
    }

    /// Words that the server's tokenizer makes one token of, if it has one that can be asked.
    fn one_token_words(&self, connection: &mut Connection) -> io::Result<Option<Words>> {
        // vLLM's and Bursar's, llama.cpp's, llama-cpp-python's.
        for (path, field) in [
            ("/tokenize", "prompt"),
            ("/tokenize", "content"),
            ("/extras/tokenize", "input"),
        ] {
            let mut count = |text: &str| -> io::Result<Option<usize>> {
                let body = json!({ "model": self.model, field: text });
                let (status, answer) = ask(connection, path, Some(&body))?;
                let tokens = answer["tokens"].as_array().map(Vec::len);
                Ok(tokens.filter(|tokens| status == 200 && *tokens > 0))
            };
            if count("the")?.is_none() {
                continue;
            }
            let missing = || io::Error::other(format!("{path} counts no longer"));
            return Words::of_one_token(|text| count(text)?.ok_or_else(missing));
        }
        Ok(None)
    }
}

enum Refused {
    Io(io::Error),
    Said(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Io(error)
    }
}

fn ask(connection: &mut Connection, path: &str, body: Option<&Value>) -> io::Result<(u16, Value)> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.map(Value::to_string);
    let answer = connection.send(method, path, body.as_deref())?;
    let status = answer.status;
    let text = answer.text(ANSWER_BYTES_MAX)?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
}

/// The first model that is listed, of those for the endpoint where the list says what they are for.
fn first_model(connection: &mut Connection, endpoint: Endpoint) -> io::Result<String> {
    let (status, list) = ask(connection, "/v1/models", None)?;
    let models = list["data"].as_array().filter(|models| !models.is_empty());
    let Some(models) = models else {
        let error = match status {
            200 => "it lists no model; name one with --model".to_owned(),
            status => said(status, &list),
        };
        return Err(io::Error::other(error));
    };
    let task = if endpoint.streams() {
        "generate"
    } else {
        "embed"
    };
    let fitting = models.iter().find(|model| model["task"] == task);
    let id = fitting
        .or(models.first())
        .and_then(|model| model["id"].as_str());
    Ok(id.unwrap_or_default().to_owned())
}

/// What a server says when it does not do what it is asked.
pub(super) fn said(status: u16, answer: &Value) -> String {
    let message = answer["error"]["message"].as_str();
    let message = message
        .or(answer["error"].as_str())
        .or(answer["message"].as_str());
    let message: String = message
        .unwrap_or("no reason given")
        .chars()
        .take(300)
        .collect();
    format!("{status}: {message}")
}
