//! sentence-transformers' files: which modules follow the model, how they pool, which prompts.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::directory::safe_join;
use super::settings::{Settings, read_value};
use crate::config::{Arch, EmbeddingSpec, Pooling, known_prompts, known_to_append_eos};
use crate::error::FileError;

/// What `modules.json` says.
pub(crate) struct Modules {
    /// Directory of the transformer itself, usually the root.
    pub(crate) transformer: PathBuf,
    pooling: Option<PathBuf>,
    normalize: bool,
}

/// Reads `modules.json`; `None` if there is none.
pub(crate) fn modules(root: &Path) -> Result<Option<Modules>, FileError> {
    let path = root.join("modules.json");
    let Some(document) = read_value(&path)? else {
        return Ok(None);
    };
    let wrong = |got: &str, want: &str| FileError::config(&path, "modules", got, want);
    let list = document
        .as_array()
        .ok_or_else(|| wrong("no list", "a list of modules"))?;
    let mut modules = Modules {
        transformer: root.to_owned(),
        pooling: None,
        normalize: false,
    };
    for module in list {
        let text = |key: &str| module.get(key).and_then(Value::as_str);
        let class = text("type").ok_or_else(|| wrong("a module without type", "a class name"))?;
        let place = safe_join(&path, root, text("path").unwrap_or(""))?;
        match class.rsplit('.').next().unwrap_or(class) {
            "Transformer" => modules.transformer = place,
            "Pooling" => modules.pooling = Some(place),
            "Normalize" => modules.normalize = true,
            other => {
                return Err(FileError::unsupported(
                    &path,
                    "module",
                    other,
                    "Transformer, Pooling, Normalize",
                    "use a model without it",
                ));
            }
        }
    }
    Ok(Some(modules))
}

/// What to do around the transformer to embed; `None` if the model is not meant to.
pub(crate) fn embedding(
    root: &Path,
    modules: Option<&Modules>,
    arch: Arch,
    name: &str,
    context_max: usize,
) -> Result<Option<EmbeddingSpec>, FileError> {
    let known = known_prompts(name);
    let bert = arch == Arch::Bert;
    if modules.is_none() && !bert && known.is_empty() {
        return Ok(None);
    }
    let pooling = match modules.and_then(|m| m.pooling.as_deref()) {
        Some(place) => pooling(&place.join("config.json"))?,
        None => None,
    };
    let pooling = pooling.unwrap_or(if bert { Pooling::Mean } else { Pooling::Last });
    let (mut prompts, default_prompt) = prompts(&root.join("config_sentence_transformers.json"))?;
    if prompts.is_empty() {
        prompts = known;
    }
    Ok(Some(EmbeddingSpec {
        pooling,
        // Without modules, a decoder is one we know by name, and all of those normalise.
        normalize: modules.map_or(!bert, |m| m.normalize),
        prompts,
        default_prompt,
        max_tokens: max_tokens(root, modules)?
            .unwrap_or(usize::MAX)
            .min(context_max),
        append_eos: known_to_append_eos(name),
    }))
}

/// The pooling mode, in the old spelling (one flag per mode) or the new (its name).
fn pooling(path: &Path) -> Result<Option<Pooling>, FileError> {
    let Some(settings) = Settings::read(path)? else {
        return Ok(None);
    };
    const FLAGS: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    let mut modes = Vec::new();
    match settings.get("pooling_mode") {
        Some(Value::String(mode)) => modes.push(mode.as_str()),
        Some(other) => return Err(settings.wrong("pooling_mode", other, "one mode's name")),
        None => {
            for (flag, mode) in FLAGS {
                if settings.truth(flag)?.unwrap_or(false) {
                    modes.push(mode);
                }
            }
        }
    }
    let unsupported = |got: &str| {
        let remedy = "use a model with one of them alone";
        FileError::unsupported(path, "pooling", got, "mean, cls, lasttoken", remedy)
    };
    if settings.truth("include_prompt")? == Some(false) {
        return Err(unsupported("pooling without the prompt's tokens"));
    }
    match modes[..] {
        [] => Ok(None),
        ["mean"] => Ok(Some(Pooling::Mean)),
        ["cls"] => Ok(Some(Pooling::Cls)),
        ["lasttoken"] => Ok(Some(Pooling::Last)),
        _ => Err(unsupported(&modes.join(" + "))),
    }
}

type Prompts = (Vec<(String, String)>, Option<String>);

fn prompts(path: &Path) -> Result<Prompts, FileError> {
    let Some(settings) = Settings::read(path)? else {
        return Ok((Vec::new(), None));
    };
    let mut prompts = Vec::new();
    if let Some(object) = settings.object("prompts")? {
        for (name, prefix) in object.iter() {
            let Some(prefix) = prefix.as_str() else {
                return Err(object.wrong(name, prefix, "a string"));
            };
            prompts.push((name.to_owned(), prefix.to_owned()));
        }
    }
    let default = settings.string("default_prompt_name")?.map(str::to_owned);
    match &default {
        Some(name) if !prompts.iter().any(|(n, _)| n == name) => {
            let want = "the name of one of the prompts";
            Err(FileError::config(path, "default_prompt_name", name, want))
        }
        _ => Ok((prompts, default)),
    }
}

/// The longest text: set for sentence-transformers, else by the tokenizer.
fn max_tokens(root: &Path, modules: Option<&Modules>) -> Result<Option<usize>, FileError> {
    let place = modules.map_or(root, |m| m.transformer.as_path());
    if let Some(settings) = Settings::read(&place.join("sentence_bert_config.json"))?
        && let Some(length) = settings.size("max_seq_length")?
    {
        return Ok(Some(length));
    }
    let Some(tokenizer) = Settings::read(&place.join("tokenizer_config.json"))? else {
        return Ok(None);
    };
    // Where nobody set it, transformers writes 1e30.
    Ok(tokenizer
        .get("model_max_length")
        .and_then(Value::as_u64)
        .and_then(|length| usize::try_from(length).ok()))
}
