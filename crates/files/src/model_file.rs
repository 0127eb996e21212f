//! A model as its files describe it, whatever their format: configuration, tensors by role, and
//! where to get the tokenizer. Opening reads headers only, never weights.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bursar_kernels::quant::Dtype;

use crate::config::{ARCHES, ModelConfig};
use crate::error::FileError;
use crate::gguf::{self, tokens::GgufTokens};
use crate::hf;
use crate::role::{LayerRole, Naming, Role, Shape};
use crate::source::{ProgramBytes, Source, read_small, read_small_if_there};
use crate::tensor::{TensorIndex, TensorInfo};
use crate::weights::{self, WeightsReader};

/// Largest `tokenizer.json`; those of 256k-entry vocabularies have some 35 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;

/// An opened model: checked headers, open files, no weights in memory.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    shards: Vec<Source>,
    tensors: TensorIndex,
    config: ModelConfig,
    naming: Naming,
    generation: GenerationDefaults,
    chat_template: Option<String>,
    origin: Origin,
}

/// Where settings and tokenizer come from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The header of the one GGUF file.
    Gguf(gguf::Header),
    /// JSON files in this directory.
    Directory { place: PathBuf },
}

/// How to sample unless told otherwise, and which tokens end a turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Most likely tokens considered.
    pub top_k: Option<u32>,
    /// Probability mass considered.
    pub top_p: Option<f32>,
    /// Least probability considered, relative to the most likely token's.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens that already occurred.
    pub repetition_penalty: Option<f32>,
    /// Whether always to take the most likely token.
    pub greedy: Option<bool>,
    /// Tokens that end a turn, the principal one first.
    pub eos: Vec<u32>,
    /// Token that begins a sequence.
    pub bos: Option<u32>,
    /// Padding token.
    pub pad: Option<u32>,
}

/// The raw material of a tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenizerSource {
    /// From GGUF settings.
    Gguf(Box<GgufTokens>),
    /// From files beside the weights.
    Json {
        /// `tokenizer.json`.
        tokenizer: Vec<u8>,
        /// `tokenizer_config.json`, if there is one.
        config: Option<Vec<u8>>,
    },
}

impl ModelFile {
    /// Opens a `.gguf` file, a `.safetensors` file (with `config.json` beside it), a
    /// `model.safetensors.index.json`, or a directory with one of them.
    ///
    /// Reads and checks headers and configuration: every tensor that the architecture needs is
    /// there, inside its file, with the shape that the configuration gives it.
    ///
    /// # Errors
    /// Whatever is missing, damaged or unsupported, by name and position.
    pub fn open(path: &Path) -> Result<ModelFile, FileError> {
        let meta = std::fs::metadata(path).map_err(|e| FileError::io(path, "open", e))?;
        if meta.is_dir() {
            return match lone_gguf(path)? {
                Some(file) => ModelFile::open_gguf(Source::open(&file)?),
                None => hf::directory::open(path, None),
            };
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if name.ends_with(".safetensors.index.json") {
            hf::directory::open(parent, None)
        } else if name.ends_with(".safetensors") {
            hf::directory::open(parent, Some(path))
        } else {
            // Whatever it is called; the magic number decides.
            ModelFile::open_gguf(Source::open(path)?)
        }
    }

    /// Opens a GGUF file that is part of the program, under this name.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn open_bundled(name: &str, file: ProgramBytes) -> Result<ModelFile, FileError> {
        ModelFile::open_gguf(Source::Program {
            name: PathBuf::from(name),
            file,
        })
    }

    pub(crate) fn open_gguf(source: Source) -> Result<ModelFile, FileError> {
        let (header, tensors) = gguf::read::read(&source, 0)?;
        let config = gguf::config::config(&header, &source, &tensors)?;
        let generation = gguf::config::generation(&header, source.path())?;
        let chat_template = header.long_string(&source, "tokenizer.chat_template")?;
        let path = source.path().to_owned();
        let origin = Origin::Gguf(header);
        let shards = vec![source];
        let naming = Naming::Gguf;
        ModelFile::assemble(
            &path,
            shards,
            tensors,
            config,
            naming,
            generation,
            chat_template,
            origin,
        )
    }

    /// Puts the parts together and checks them against each other.
    #[allow(
        clippy::too_many_arguments,
        reason = "the one place where a model's parts meet"
    )]
    pub(crate) fn assemble(
        path: &Path,
        shards: Vec<Source>,
        tensors: TensorIndex,
        config: ModelConfig,
        naming: Naming,
        generation: GenerationDefaults,
        chat_template: Option<String>,
        origin: Origin,
    ) -> Result<ModelFile, FileError> {
        let path = path.to_owned();
        let model = ModelFile {
            path,
            shards,
            tensors,
            config,
            naming,
            generation,
            chat_template,
            origin,
        };
        model.validate()?;
        Ok(model)
    }

    /// Checks the configuration, every needed tensor's presence, shape and type, and that no
    /// layer has tensors that would be ignored. [`ModelFile::open`] has done so.
    ///
    /// # Errors
    /// The first tensor or setting that is wrong, with what was found and what is wanted.
    pub fn validate(&self) -> Result<(), FileError> {
        // An empty vocabulary here means that the embedding is missing: say that instead.
        self.need(Role::TokenEmbedding)?;
        self.config.check(&self.path)?;
        let mut used = HashSet::new();
        for (role, shape) in self.config.roles() {
            let tensor = self.need(role)?;
            self.check_shape(tensor, shape)?;
            used.insert(tensor.name.as_str());
        }
        let ignored = self
            .tensors
            .iter()
            .filter(|t| !used.contains(t.name.as_str()));
        match ignored.into_iter().find(|t| is_layer_tensor(&t.name)) {
            None => Ok(()),
            // Ignoring a weight would give wrong answers without a word.
            Some(tensor) => Err(FileError::unsupported(
                &self.path,
                format!("a {} model with tensor", self.config.arch.name()),
                &tensor.name,
                ARCHES,
                "use a checkpoint of the plain architecture",
            )),
        }
    }

    fn need(&self, role: Role) -> Result<&TensorInfo, FileError> {
        let name = self
            .naming
            .name(self.config.arch, role)
            .unwrap_or_else(|| format!("{role:?}"));
        if let Some(tensor) = self.tensors.get(&name) {
            return Ok(tensor);
        }
        if let Some(dtype) = self.tensors.unreadable(&name) {
            return Err(FileError::unsupported(
                &self.path,
                format!("type of tensor {name}"),
                dtype,
                "F32, F16, BF16",
                "use a checkpoint in one of these types, or a GGUF file",
            ));
        }
        let fused = matches!(role, Role::Layer(_, LayerRole::Q))
            && self.tensors.iter().any(|t| t.name.contains("qkv"));
        let remedy = match fused {
            true => "Q, K and V are fused into one tensor, which is not supported: split them",
            false => "the file is incomplete, or its configuration is another model's",
        };
        Err(FileError::MissingTensor {
            path: self.path.clone(),
            tensor: name,
            remedy,
        })
    }

    fn check_shape(&self, tensor: &TensorInfo, shape: Shape) -> Result<(), FileError> {
        let error = |want: String| FileError::Shape {
            path: self.path.clone(),
            tensor: tensor.name.clone(),
            got: tensor.shape(),
            want,
        };
        let fits = match shape {
            Shape::Vector(cols) => tensor.rows == 1 && tensor.cols == cols,
            Shape::Matrix(rows, cols) => tensor.rows == rows && tensor.cols == cols,
        };
        if !fits {
            return Err(error(shape.to_string()));
        }
        let plain = matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        match shape {
            Shape::Vector(cols) if !plain => Err(error(format!("{cols} of F32, F16 or BF16"))),
            _ => Ok(()),
        }
    }

    /// The file or directory that was opened; a preset's name for a header without weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture and its sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All tensors in the order of the files, also those that are not used.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor called `name` in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The tensor with a purpose, if the model has one.
    ///
    /// A tied model has no [`Role::Output`]: use [`Role::TokenEmbedding`].
    pub fn find(&self, role: Role) -> Option<&TensorInfo> {
        if role == Role::Output && (self.config.tied_output || !self.config.generates) {
            // Some tied checkpoints carry a copy that transformers ignores, so we do.
            return None;
        }
        self.tensors.get(&self.naming.name(self.config.arch, role)?)
    }

    /// The tensors that running the model needs, in the order in which a step uses them.
    pub fn used(&self) -> impl Iterator<Item = (Role, &TensorInfo)> {
        self.config
            .roles()
            .filter_map(|(role, _)| Some((role, self.find(role)?)))
    }

    /// Bytes that [`ModelFile::used`] tensors take in the files.
    pub fn used_bytes(&self) -> u64 {
        self.used().map(|(_, tensor)| tensor.bytes).sum()
    }

    /// Bytes of all weight files, headers included.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(Source::len).sum()
    }

    /// Bytes of file contents that this keeps in memory: the header of a preset, which has no file
    /// to read it from; nothing otherwise.
    pub fn held_bytes(&self) -> u64 {
        self.shards.iter().map(Source::held_bytes).sum()
    }

    /// Whether weights can be read; false for a header made from a preset.
    pub fn has_data(&self) -> bool {
        self.shards
            .iter()
            .all(|shard| !matches!(shard, Source::Header { .. }))
    }

    /// Reads bytes of a tensor from `offset` within it until `buf` is full. May be called from
    /// several threads at once.
    ///
    /// # Errors
    /// If the range leaves the tensor, if the file cannot be read or has become shorter, or if
    /// there are no weights.
    pub fn read_at(
        &self,
        tensor: &TensorInfo,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), FileError> {
        weights::read_at(&self.shards, tensor, offset, buf)
    }

    /// A reader of the weights that outlives this: the files stay open with it, names and header do
    /// not stay in memory.
    ///
    /// # Errors
    /// If a file cannot be opened once more, or there are no weights.
    pub fn reader(&self) -> Result<WeightsReader, FileError> {
        WeightsReader::new(&self.shards)
    }

    /// Tells the kernel that a part of a tensor will not be read again soon, so that its page
    /// cache can go. Advice: nothing fails, nothing is promised.
    pub fn drop_cache(&self, tensor: &TensorInfo, range: std::ops::Range<u64>) {
        weights::drop_cache(&self.shards, tensor, range);
    }

    /// Reads what a tokenizer is made of. Nothing of it stays in memory here.
    ///
    /// # Errors
    /// If there is none, or if it is damaged.
    pub fn tokenizer_source(&self) -> Result<TokenizerSource, FileError> {
        match &self.origin {
            Origin::Gguf(header) => {
                let tokens = gguf::tokens::read(header, &self.shards[0])?;
                if tokens.tokens.len() > self.config.vocab {
                    return Err(FileError::Config {
                        path: self.path.clone(),
                        key: "tokenizer.ggml.tokens".into(),
                        got: format!("{} tokens", tokens.tokens.len()),
                        want: format!("at most the embedding's {} rows", self.config.vocab),
                    });
                }
                Ok(TokenizerSource::Gguf(Box::new(tokens)))
            }
            Origin::Directory { place } => {
                let tokenizer = place.join("tokenizer.json");
                let config = place.join("tokenizer_config.json");
                Ok(TokenizerSource::Json {
                    tokenizer: read_small(&tokenizer, TOKENIZER_BYTES_MAX)?,
                    config: read_small_if_there(&config, TOKENIZER_BYTES_MAX)?,
                })
            }
        }
    }

    /// The Jinja template that turns a chat into a prompt.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Sampling defaults and the tokens that end a turn.
    pub fn generation(&self) -> &GenerationDefaults {
        &self.generation
    }

    /// The settings of a GGUF file, for listings; `None` for a directory.
    pub fn gguf(&self) -> Option<&gguf::Header> {
        match &self.origin {
            Origin::Gguf(header) => Some(header),
            Origin::Directory { .. } => None,
        }
    }
}

/// Whether a tensor belongs to a layer and matters: old checkpoints store rotary tables that are
/// computed anyway.
fn is_layer_tensor(name: &str) -> bool {
    let harmless = ["rotary_emb.inv_freq", "attn_rot_embd.weight"];
    let layered = name.starts_with("blk.")
        || name.starts_with("layers.")
        || name.starts_with("model.layers.")
        || name.contains("encoder.layer.");
    layered && !harmless.iter().any(|end| name.ends_with(end))
}

/// The GGUF file of a directory that has just one and no safetensors.
fn lone_gguf(directory: &Path) -> Result<Option<PathBuf>, FileError> {
    let entries = std::fs::read_dir(directory).map_err(|e| FileError::io(directory, "list", e))?;
    let mut found = None;
    for entry in entries {
        let path = entry
            .map_err(|e| FileError::io(directory, "list", e))?
            .path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => return Ok(None),
            Some("gguf") if found.is_some() => {
                let got = "several .gguf files";
                return Err(
                    FileError::malformed(directory, None, "model directory", got, "one")
                        .with_remedy("give the path of the file itself"),
                );
            }
            Some("gguf") => found = Some(path),
            _ => {}
        }
    }
    Ok(found)
}
