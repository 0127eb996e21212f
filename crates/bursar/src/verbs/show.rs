//! `bursar show MODEL`: what a model file holds, from its header alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bursar_files::gguf::Value;
use bursar_files::{EmbeddingSpec, ModelFile, Pooling, RopeScaling, TensorInfo, TokenizerSource};
use bursar_kernels::quant::Dtype;
use bursar_memory::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings};
use crate::failure::Failure;
use crate::model;
use crate::output::{Align, Out, Table, grouped};
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A model: a file, a folder, or a name in the models folder
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// Where names are looked up.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[&table::MODELS_DIR];
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let file = model::find(&arguments.model, &settings, &shared.surroundings)?.open()?;
    let tokenizer = TokenizerSummary::of(&file)?;
    let mut out = Out::new();
    if arguments.json {
        out.json(&as_json(&file, &tokenizer, arguments.tensors))?;
    } else {
        print(&file, &tokenizer, arguments.tensors, &mut out)?;
    }
    out.flush()
}

/// What kind of tokenizer a file carries.
#[derive(Debug, Default)]
struct TokenizerSummary {
    /// `gpt2`, `llama`, `bert`; for tokenizer.json its model's type.
    kind: String,
    /// The pre-tokenizer's name (GGUF).
    pre: Option<String>,
    /// Entries of the vocabulary, added tokens included.
    tokens: Option<u64>,
}

impl TokenizerSummary {
    fn of(file: &ModelFile) -> Result<Option<TokenizerSummary>, Failure> {
        if let Some(header) = file.gguf() {
            let text = |key: &str| match header.settings.get(key) {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            };
            let tokens = match header.settings.get("tokenizer.ggml.tokens") {
                Some(Value::Array(array)) => Some(array.count),
                _ => None,
            };
            let kind = text("tokenizer.ggml.model");
            let pre = text("tokenizer.ggml.pre");
            return Ok(kind.map(|kind| TokenizerSummary { kind, pre, tokens }));
        }
        let TokenizerSource::Json { tokenizer, .. } = file.tokenizer_source()? else {
            return Ok(None);
        };
        let outline: TokenizerOutline = serde_json::from_slice(&tokenizer).map_err(|error| {
            Failure::failed(format!(
                "{}: tokenizer.json: {error}",
                file.path().display()
            ))
        })?;
        let vocabulary = outline.model.vocab;
        let base = match &vocabulary {
            Json::Object(map) => map.len(),
            Json::Array(list) => list.len(),
            _ => 0,
        };
        // Added tokens may repeat entries of the vocabulary.
        let added = outline
            .added_tokens
            .iter()
            .filter(|added| match &vocabulary {
                Json::Object(map) => !map.contains_key(&added.content),
                _ => false,
            });
        let kind = outline.model.kind.unwrap_or_else(|| "unknown".into());
        let tokens = Some((base + added.count()) as u64);
        Ok(Some(TokenizerSummary {
            kind,
            pre: None,
            tokens,
        }))
    }
}

/// The parts of tokenizer.json that are shown.
#[derive(Deserialize)]
struct TokenizerOutline {
    model: ModelOutline,
    #[serde(default)]
    added_tokens: Vec<AddedOutline>,
}

#[derive(Deserialize)]
struct ModelOutline {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    vocab: Json,
}

#[derive(Deserialize)]
struct AddedOutline {
    content: String,
}

/// Tensors of one stored type.
#[derive(Copy, Clone, Debug, Default)]
struct Share {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

/// By type, the type with the most bytes first.
fn shares(file: &ModelFile) -> Vec<(Dtype, Share)> {
    let mut by_name: BTreeMap<&'static str, (Dtype, Share)> = BTreeMap::new();
    for tensor in file.tensors() {
        let (_, share) = by_name
            .entry(tensor.dtype.name())
            .or_insert((tensor.dtype, Share::default()));
        share.tensors += 1;
        share.parameters += parameters(tensor);
        share.bytes += tensor.bytes;
    }
    let mut shares: Vec<_> = by_name.into_values().collect();
    shares.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes));
    shares
}

fn parameters(tensor: &TensorInfo) -> u64 {
    // Both fit the file that was checked, and a file is shorter than 2^63 bytes.
    tensor.rows as u64 * tensor.cols as u64
}

fn format_of(file: &ModelFile) -> String {
    file.gguf().map_or("safetensors".to_owned(), |header| {
        format!("GGUF v{}", header.version)
    })
}

/// The licence as the file states it.
fn licence(file: &ModelFile) -> Option<String> {
    let settings = &file.gguf()?.settings;
    let keys = [
        "general.license.name",
        "general.license",
        "general.license.link",
    ];
    keys.iter().find_map(|key| match settings.get(*key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    })
}

fn pooling_name(spec: &EmbeddingSpec) -> &'static str {
    match spec.pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "first token",
        Pooling::Last => "last token",
    }
}

fn rope_words(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "not scaled".to_owned(),
        RopeScaling::Linear { factor } => format!("linear x {factor}"),
        RopeScaling::Llama3 {
            factor, original, ..
        } => {
            format!("llama3 x {factor} from {original}")
        }
        RopeScaling::Yarn {
            factor, original, ..
        } => format!("YaRN x {factor} from {original}"),
    }
}

/// Bytes that keys and values of one token take, in elements of `element_bytes`.
fn kv_bytes_per_token(file: &ModelFile, element_bytes: u64) -> u64 {
    let config = file.config();
    2 * config.layers as u64 * config.kv_dim() as u64 * element_bytes
}

fn print(
    file: &ModelFile,
    tokenizer: &Option<TokenizerSummary>,
    tensors: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let config = file.config();
    let total: u64 = file.tensors().map(parameters).sum();
    let mut table = Table::plain(2);
    let mut say = |name: &str, what: String| table.row([name.to_owned(), what]);
    say("name", config.name.clone());
    say("path", file.path().display().to_string());
    say(
        "format",
        format!("{}, {}", format_of(file), Bytes(file.file_bytes())),
    );
    say("architecture", config.arch.name().to_owned());
    say("parameters", grouped(total));
    say("layers", config.layers.to_string());
    say(
        "width",
        format!("{}, feed-forward {}", config.dim, config.ffn_dim),
    );
    say(
        "heads",
        format!(
            "{} of {}, {} for keys and values",
            config.heads, config.head_dim, config.kv_heads
        ),
    );
    say("vocabulary", grouped(config.vocab as u64));
    let window = config
        .sliding_window
        .map(|window| format!(", sliding window {window}"));
    say(
        "context",
        format!(
            "{}{}",
            grouped(config.context_max as u64),
            window.unwrap_or_default()
        ),
    );
    if let Some(rope) = &config.rope {
        say(
            "rotary",
            format!("base {}, {}", rope.theta, rope_words(rope.scaling)),
        );
    }
    if config.causal() {
        say(
            "KV",
            format!("{} per token in f16", Bytes(kv_bytes_per_token(file, 2))),
        );
    }
    say("generates", yes_no(config.generates).to_owned());
    if let Some(spec) = &config.embedding {
        let names: Vec<&str> = spec.prompts.iter().map(|(name, _)| name.as_str()).collect();
        let prompts = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let scaled = if spec.normalize {
            "length 1"
        } else {
            "not normalised"
        };
        say(
            "embeds",
            format!(
                "pooling: {}, {scaled}, up to {} tokens, prompts: {prompts}",
                pooling_name(spec),
                grouped(spec.max_tokens as u64)
            ),
        );
    }
    say(
        "tokenizer",
        match tokenizer {
            Some(TokenizerSummary { kind, pre, tokens }) => {
                let pre = pre.as_ref().map(|pre| format!(", pre-tokenizer {pre}"));
                let tokens = tokens.map(|tokens| format!(", {} tokens", grouped(tokens)));
                format!(
                    "{kind}{}{}",
                    pre.unwrap_or_default(),
                    tokens.unwrap_or_default()
                )
            }
            None => "none".to_owned(),
        },
    );
    say(
        "chat template",
        yes_no(file.chat_template().is_some()).to_owned(),
    );
    if let Some(licence) = licence(file) {
        say("licence", licence);
    }
    out.line(format_args!("{table}\n"))?;

    let mut table = Table::new(&[
        ("TYPE", Align::Left),
        ("TENSORS", Align::Right),
        ("PARAMETERS", Align::Right),
        ("BYTES", Align::Right),
        ("", Align::Right),
    ]);
    for (dtype, share) in shares(file) {
        table.row([
            dtype.name().to_owned(),
            share.tensors.to_string(),
            grouped(share.parameters),
            grouped(share.bytes),
            Bytes(share.bytes).to_string(),
        ]);
    }
    out.line(table)?;

    if tensors {
        out.line("")?;
        let mut table = Table::new(&[
            ("TENSOR", Align::Left),
            ("TYPE", Align::Left),
            ("ROWS", Align::Right),
            ("COLUMNS", Align::Right),
            ("OFFSET", Align::Right),
            ("BYTES", Align::Right),
        ]);
        for tensor in file.tensors() {
            table.row([
                tensor.name.clone(),
                tensor.dtype.name().to_owned(),
                tensor.rows.to_string(),
                tensor.cols.to_string(),
                tensor.offset.to_string(),
                tensor.bytes.to_string(),
            ]);
        }
        out.line(table)?;
    }
    Ok(())
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn as_json(file: &ModelFile, tokenizer: &Option<TokenizerSummary>, tensors: bool) -> Json {
    let config = file.config();
    let types: Vec<Json> = shares(file)
        .into_iter()
        .map(|(dtype, share)| {
            json!({
                "type": dtype.name(),
                "tensors": share.tensors,
                "parameters": share.parameters,
                "bytes": share.bytes,
            })
        })
        .collect();
    let mut value = json!({
        "name": config.name,
        "path": file.path().to_string_lossy(),
        "format": format_of(file),
        "architecture": config.arch.name(),
        "parameters": file.tensors().map(parameters).sum::<u64>(),
        "file_bytes": file.file_bytes(),
        "weights_bytes": file.used_bytes(),
        "layers": config.layers,
        "width": config.dim,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_width": config.head_dim,
        "feed_forward_width": config.ffn_dim,
        "vocabulary": config.vocab,
        "context": config.context_max,
        "sliding_window": config.sliding_window,
        "kv_bytes_per_token_f16": config.causal().then(|| kv_bytes_per_token(file, 2)),
        "tied_output": config.tied_output,
        "generates": config.generates,
        "rotary": config.rope.map(|rope| json!({
            "base": rope.theta,
            "dimensions": rope.dims,
            "scaling": rope_words(rope.scaling),
        })),
        "embedding": config.embedding.as_ref().map(|spec| json!({
            "pooling": pooling_name(spec),
            "normalize": spec.normalize,
            "max_tokens": spec.max_tokens,
            "prompts": spec.prompts.iter().cloned().collect::<BTreeMap<String, String>>(),
            "default_prompt": spec.default_prompt,
        })),
        "tokenizer": tokenizer.as_ref().map(|tokenizer| json!({
            "kind": tokenizer.kind,
            "pre": tokenizer.pre,
            "tokens": tokenizer.tokens,
        })),
        "chat_template": file.chat_template().is_some(),
        "licence": licence(file),
        "types": types,
    });
    if tensors {
        let list = file.tensors().map(|tensor| {
            json!({
                "name": tensor.name,
                "type": tensor.dtype.name(),
                "rows": tensor.rows,
                "columns": tensor.cols,
                "offset": tensor.offset,
                "bytes": tensor.bytes,
            })
        });
        value["tensors"] = list.collect();
    }
    value
}
