//! Opening a model directory: finding its weights and putting configuration and tensors together.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::settings::{Settings, parse};
use super::{config, sentence};
use crate::error::{FileError, quoted};
use crate::model_file::{ModelFile, Origin};
use crate::safetensors;
use crate::source::{Source, read_small};
use crate::tensor::TensorIndex;

/// The weights in one file.
const WHOLE: &str = "model.safetensors";
/// The list of shards.
const INDEX: &str = "model.safetensors.index.json";
/// Largest list of shards; real ones have some 100 bytes per tensor.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Most shards.
const SHARDS_MAX: usize = 1024;

/// Joins a path that a file in `root` names, refusing one that leaves the directory.
///
/// Only the words are checked: links inside a directory may lead elsewhere, as those of the
/// download cache do.
pub(crate) fn safe_join(named_in: &Path, root: &Path, name: &str) -> Result<PathBuf, FileError> {
    let stays = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    match stays && !name.contains('\0') {
        true => Ok(root.join(name)),
        false => Err(FileError::config(
            named_in,
            "a file's path",
            quoted(name.as_bytes()),
            "a relative path inside the model's directory",
        )),
    }
}

/// Opens the model in directory `root`; with `weights`, that file of it.
pub(crate) fn open(root: &Path, weights: Option<&Path>) -> Result<ModelFile, FileError> {
    let modules = sentence::modules(root)?;
    // Old sentence-transformers directories keep the transformer one level down.
    let place = match (&modules, weights) {
        (Some(modules), None) => modules.transformer.clone(),
        _ => root.to_owned(),
    };
    let config_path = place.join("config.json");
    let settings = Settings::read(&config_path)?.ok_or_else(|| {
        let want = "config.json beside the weights";
        FileError::malformed(&place, None, "model directory", "no config.json", want)
            .with_remedy("give a .gguf file, or download the whole repository")
    })?;
    let (shards, tensors) = match weights {
        Some(path) => read_shards(vec![path.to_owned()])?,
        None => find_weights(&place)?,
    };

    let arch = config::arch(&settings)?;
    let naming = config::naming(arch, &tensors);
    let name = name(&settings, root)?;
    let context_max = settings.must_size("max_position_embeddings")?;
    let embedding = sentence::embedding(root, modules.as_ref(), arch, &name, context_max)?;
    let config = config::config(&settings, name, naming, &tensors, embedding)?;
    let generation = Settings::read(&place.join("generation_config.json"))?;
    let generation = config::generation(&settings, generation.as_ref())?;
    let chat_template = chat_template(&place)?;
    let path = weights.unwrap_or(root);
    let origin = Origin::Directory { place };
    ModelFile::assemble(
        path,
        shards,
        tensors,
        config,
        naming,
        generation,
        chat_template,
        origin,
    )
}

/// A name for people: the repository's if the directory shows it, else the configuration's.
fn name(settings: &Settings, root: &Path) -> Result<String, FileError> {
    // "." and the like have a name only once resolved.
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let text = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    // The download cache: models--Qwen--Qwen3-Embedding-0.6B/snapshots/<revision>.
    let mut above = full.ancestors().skip(1);
    if let (Some(snapshots), Some(repository)) = (above.next(), above.next())
        && snapshots.ends_with("snapshots")
        && let Some(repository) = text(repository)
        && let Some(name) = repository.strip_prefix("models--")
    {
        return Ok(name.replace("--", "/"));
    }
    // `_name_or_path` often names the checkpoint that training started from, so it comes second.
    let own = settings
        .string("_name_or_path")?
        .filter(|name| !name.is_empty());
    Ok(text(&full)
        .or(own.map(str::to_owned))
        .unwrap_or_else(|| "model".to_owned()))
}

fn find_weights(place: &Path) -> Result<(Vec<Source>, TensorIndex), FileError> {
    let index = place.join(INDEX);
    let whole = place.join(WHOLE);
    if whole.exists() {
        return read_shards(vec![whole]);
    }
    if index.exists() {
        return read_index(place, &index);
    }
    let want = format!("{WHOLE} or {INDEX}");
    Err(
        FileError::malformed(place, None, "model directory", "no weights", want)
            .with_remedy("download the safetensors weights (other formats are not read)"),
    )
}

/// Reads the headers of files that together are the weights.
fn read_shards(paths: Vec<PathBuf>) -> Result<(Vec<Source>, TensorIndex), FileError> {
    let mut shards = Vec::with_capacity(paths.len());
    let mut tensors = TensorIndex::default();
    for path in paths {
        let source = Source::open(&path)?;
        safetensors::read(&source, shards.len(), &mut tensors)?;
        shards.push(source);
    }
    Ok((shards, tensors))
}

/// Reads the shards that the index lists, and checks that each holds what it should.
fn read_index(place: &Path, index: &Path) -> Result<(Vec<Source>, TensorIndex), FileError> {
    let document: Value = parse(index, &read_small(index, INDEX_BYTES_MAX)?)?;
    let wrong = |got: &str, want: &str| FileError::config(index, "weight_map", got, want);
    let map = document.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("nothing", "an object from tensor to file"))?;
    let mut names = Vec::new();
    for file in map.values() {
        let file = file
            .as_str()
            .ok_or_else(|| wrong("no string", "a file's name"))?;
        names.push(file);
    }
    names.sort_unstable();
    names.dedup();
    if names.len() > SHARDS_MAX {
        let want = format!("at most {SHARDS_MAX} files");
        return Err(wrong(&format!("{} files", names.len()), &want));
    }
    let paths = names.iter().map(|name| safe_join(index, place, name));
    let (shards, tensors) = read_shards(paths.collect::<Result<_, _>>()?)?;
    for (tensor, file) in map {
        let there = match tensors.get(tensor) {
            Some(info) => Some(names[info.file]) == file.as_str(),
            None => tensors.unreadable(tensor).is_some(),
        };
        if !there {
            let file = file.as_str().unwrap_or_default();
            return Err(FileError::MissingTensor {
                path: safe_join(index, place, file)?,
                tensor: tensor.clone(),
                remedy: "the shards are incomplete or of different versions: fetch them again",
            });
        }
    }
    Ok((shards, tensors))
}

/// The chat template: a file of its own, or inside `tokenizer_config.json`.
fn chat_template(place: &Path) -> Result<Option<String>, FileError> {
    const BYTES_MAX: u64 = 1 << 20;
    let own = place.join("chat_template.jinja");
    if let Some(bytes) = crate::source::read_small_if_there(&own, BYTES_MAX)? {
        let text = String::from_utf8(bytes);
        return text
            .map(Some)
            .map_err(|e| FileError::malformed(&own, None, "chat template", e, "UTF-8 text"));
    }
    let Some(tokenizer) = Settings::read(&place.join("tokenizer_config.json"))? else {
        return Ok(None);
    };
    match tokenizer.get("chat_template") {
        None => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(named)) => {
            // Several templates by name: the one for plain chats.
            let text = |entry: &Value, key: &str| {
                entry.get(key).and_then(Value::as_str).map(str::to_owned)
            };
            let default = named
                .iter()
                .find(|e| text(e, "name").as_deref() == Some("default"));
            Ok(default.and_then(|entry| text(entry, "template")))
        }
        Some(other) => Err(tokenizer.wrong("chat_template", other, "a string or a list")),
    }
}
