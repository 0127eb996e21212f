//! Which model is meant: a path, a name in the models folder, or a bundled one; and what tells models
//! apart.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bursar_engine::MemoryPlan;
use bursar_files::ModelFile;

use crate::bundled::{self, Bundled};
use crate::config::{Settings, Surroundings};
use crate::failure::Failure;

/// Bytes read of each tensor. Checkpoints of one architecture differ in every tensor, so the
/// beginning of each tells them apart without reading gigabytes.
const DIGEST_TENSOR_BYTES: u64 = 4096;

/// A model that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A file or folder.
    Path(PathBuf),
    /// Part of the program.
    Bundled(Bundled),
}

impl Found {
    /// Opens it.
    pub(crate) fn open(&self) -> Result<ModelFile, Failure> {
        match self {
            Found::Path(path) => Ok(ModelFile::open(path)?),
            Found::Bundled(bundled) => bundled.open(),
        }
    }
}

/// The model called `given`.
pub(crate) fn find(
    given: &Path,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<Found, Failure> {
    if let Some(path) = lookup(given, settings, surroundings) {
        return Ok(path);
    }
    let mut failure = Failure::failed(format!("there is no model {}", given.display()))
        .help("give a .gguf file, or a folder with config.json and .safetensors files");
    if let Some(folder) = settings.models_dir(surroundings) {
        let names = names_in(&folder);
        let there = match names.is_empty() {
            true => "none yet".to_owned(),
            false => names.join(", "),
        };
        failure = failure.help(format!(
            "or a name in {} (there: {there})",
            folder.display()
        ));
    }
    Err(failure)
}

/// The model that `given` names, if there is one: a path, a file or folder of that name (with or
/// without `.gguf`) in the models folder, or a bundled model.
pub(crate) fn lookup(
    given: &Path,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Option<Found> {
    match lookup_path(given, settings, surroundings) {
        Some(path) => Some(Found::Path(path)),
        None => bundled::named(given.to_str()?).map(Found::Bundled),
    }
}

fn lookup_path(given: &Path, settings: &Settings, surroundings: &Surroundings) -> Option<PathBuf> {
    if given.exists() {
        return Some(given.to_owned());
    }
    // A name is one part of a path and no way out of the folder.
    let mut parts = given.components();
    let (Some(std::path::Component::Normal(name)), None) = (parts.next(), parts.next()) else {
        return None;
    };
    in_folder(&settings.models_dir(surroundings)?, name)
}

/// The model of a name in a folder.
pub(crate) fn in_folder(folder: &Path, name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = name.as_ref();
    let mut with_suffix = name.to_owned();
    with_suffix.push(".gguf");
    [folder.join(name), folder.join(with_suffix)]
        .into_iter()
        .find(|path| path.exists())
}

/// Whether what was found is a model rather than any other file: by its name, by the magic number of
/// GGUF, or by what a folder holds.
pub(crate) fn is_model(found: &Found) -> bool {
    let path = match found {
        Found::Path(path) => path,
        Found::Bundled(_) => return true,
    };
    if path.is_dir() {
        return path.join("config.json").is_file() || !names_in(path).is_empty();
    }
    let mut magic = [0; 4];
    let mut read = || fs::File::open(path)?.read_exact(&mut magic);
    has_model_suffix(path) || (path.is_file() && read().is_ok() && magic == *b"GGUF")
}

/// Whether a text that names no existing model was still meant as one.
pub(crate) fn is_meant_as_model(text: &str) -> bool {
    has_model_suffix(Path::new(text)) && !text.contains(char::is_whitespace)
}

fn has_model_suffix(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".gguf", ".safetensors", ".safetensors.index.json"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// Tells models apart: equal digests make equal vectors and answers.
fn digest(file: &ModelFile) -> Result<blake3::Hash, Failure> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}", file.config()).as_bytes());
    let mut buffer = Vec::new();
    for (_, tensor) in file.used() {
        hasher.update(format!("{} {}", tensor.name, tensor.shape()).as_bytes());
        // At most DIGEST_TENSOR_BYTES, so it fits any usize.
        buffer.resize(tensor.bytes.min(DIGEST_TENSOR_BYTES) as usize, 0);
        file.read_at(tensor, 0, &mut buffer)?;
        hasher.update(&buffer);
    }
    Ok(hasher.finalize())
}

/// Tells apart what computes: a model whose matrices are held in another form than its file's makes other
/// vectors.
pub(crate) fn digest_as_held(file: &ModelFile, plan: &MemoryPlan) -> Result<blake3::Hash, Failure> {
    let digest = digest(file)?;
    if !plan.converts() {
        return Ok(digest);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(digest.as_bytes());
    hasher.update(plan.model().options().weights.name().as_bytes());
    Ok(hasher.finalize())
}

/// The models in a folder, by the names under which [`lookup`] finds them, each once.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        match name.strip_suffix(".gguf") {
            Some(stem) => Some(stem.to_owned()),
            None => path.join("config.json").is_file().then_some(name),
        }
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table;

    #[test]
    fn names_are_looked_up_in_the_models_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, "GGUF").expect("a file");
        };
        write("small.gguf");
        write("other/config.json");
        write("notes.txt");
        let given = [(
            &table::MODELS_DIR,
            folder.path().to_string_lossy().into_owned(),
        )];
        let surroundings = Surroundings::default();
        let settings = Settings::resolve(&given, None, &surroundings).expect("settings");
        let find = |name: &str| find(Path::new(name), &settings, &surroundings);
        assert_eq!(
            find("small").expect("found"),
            Found::Path(folder.path().join("small.gguf"))
        );
        assert_eq!(
            find("small.gguf").expect("found"),
            Found::Path(folder.path().join("small.gguf"))
        );
        assert_eq!(
            find("other").expect("found"),
            Found::Path(folder.path().join("other"))
        );
        let failure = format!("{:?}", find("large").expect_err("missing"));
        assert!(failure.contains("other, small"), "{failure}");
        assert!(find("../small").is_err());
        let is_model = |name: &str| is_model(&Found::Path(folder.path().join(name)));
        assert!(is_model("small.gguf"));
        assert!(is_model("other"));
        assert!(is_model(""));
        assert!(is_model("notes.txt"), "the magic number decides");
        // A file of that name comes first.
        if let Some(bundled) = bundled::named("pocket-chat") {
            assert_eq!(find("pocket-chat").expect("found"), Found::Bundled(bundled));
            write("pocket-chat.gguf");
            assert_eq!(
                find("pocket-chat").expect("found"),
                Found::Path(folder.path().join("pocket-chat.gguf"))
            );
        }
    }

    #[test]
    fn prompts_are_not_taken_for_models() {
        assert!(is_meant_as_model("models/qwen.gguf"));
        assert!(is_meant_as_model("model.safetensors"));
        assert!(!is_meant_as_model("What is a .gguf"));
        assert!(!is_meant_as_model("hello"));
    }
}
