//! Model files: GGUF and safetensors readers, a GGUF writer, configs, synthetic models.
//!
//! | module | what lives there |
//! |---|---|
//! | [`ModelFile`] (`model_file`) | an opened model: configuration, tensors, tokenizer source |
//! | [`config`] | what a model is, the same for every format |
//! | `role` | [`Role`]: a tensor's purpose, its name in each format, its shape |
//! | `tensor` | [`TensorInfo`]: where a tensor lies |
//! | [`gguf`] | the GGUF reader and [`gguf::Writer`] |
//! | `safetensors`, `hf` | safetensors and the JSON files of a model directory |
//! | [`synth`] | presets of real architectures with random weights |
//! | `weights` | bytes of tensors by position, [`WeightsReader`] for those who outlive the opened model |
//! | `source`, `strings`, `error` | reading by position, packed strings, [`FileError`] |
//!
//! Nothing here keeps weights in memory, and no file is mapped: a caller reads pieces of tensors
//! into memory that it has reserved.
#![forbid(unsafe_code)]

pub mod config;
mod error;
pub mod gguf;
mod hf;
mod model_file;
mod role;
mod safetensors;
mod source;
mod strings;
pub mod synth;
mod tensor;
mod weights;

pub use config::{
    Activation, Arch, EmbeddingSpec, ModelConfig, Pooling, Rope, RopeScaling, RopeStyle,
};
pub use error::{FileError, io_remedy};
pub use gguf::tokens::GgufTokens;
pub use model_file::{GenerationDefaults, ModelFile, TokenizerSource};
pub use role::{LayerRole, Part, Role};
pub use source::ProgramBytes;
pub use strings::StringTable;
pub use tensor::TensorInfo;
pub use weights::WeightsReader;
