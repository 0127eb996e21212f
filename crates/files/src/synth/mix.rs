//! Which type each tensor of a file gets.
//!
//! The mixes are llama.cpp's (`src/llama-quant.cpp`): the output, or the embedding where it serves
//! as output, in Q6_K; some of `attn_v` and `ffn_down` in more bits than the rest.

use bursar_kernels::quant::Dtype;

use crate::config::ModelConfig;
use crate::error::FileError;
use crate::role::{LayerRole, Role, Shape};

/// A type for all matrices, or a mix of types. Vectors are always F32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mix {
    /// Every matrix in this type, where its rows are whole blocks.
    Plain(Dtype),
    /// Q4_K; `attn_v` of the first four and `ffn_down` of the first eighth of layers in Q5_K.
    Q4KS,
    /// Q4_K; `attn_v` and `ffn_down` in Q6_K in the first and last eighth of layers and in every
    /// third between.
    Q4KM,
    /// Q5_K.
    Q5KS,
    /// Q5_K; more bits where [`Mix::Q4KM`] has them.
    Q5KM,
}

impl Mix {
    /// Every type and mix.
    pub fn all() -> impl Iterator<Item = Mix> {
        let plain = Dtype::ALL.into_iter().map(Mix::Plain);
        plain.chain([Mix::Q4KS, Mix::Q4KM, Mix::Q5KS, Mix::Q5KM])
    }

    /// The usual name: `Q4_K_M`, `BF16`.
    pub fn name(self) -> &'static str {
        match self {
            Mix::Plain(dtype) => dtype.name(),
            Mix::Q4KS => "Q4_K_S",
            Mix::Q4KM => "Q4_K_M",
            Mix::Q5KS => "Q5_K_S",
            Mix::Q5KM => "Q5_K_M",
        }
    }

    /// The mix of this name, in any case.
    ///
    /// # Errors
    /// If there is none; the error lists all.
    pub fn from_name(name: &str) -> Result<Mix, FileError> {
        let found = Mix::all().find(|mix| mix.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| FileError::UnknownName {
            what: "quantisation",
            got: name.chars().take(64).collect(),
            known: Mix::all()
                .map(|mix| mix.name().to_lowercase())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The number under `general.file_type`.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Mix::Plain(Dtype::F32) => 0,
            Mix::Plain(Dtype::F16) => 1,
            Mix::Plain(Dtype::Q4_0) => 2,
            Mix::Plain(Dtype::Q4_1) => 3,
            Mix::Plain(Dtype::Q8_0) => 7,
            Mix::Plain(Dtype::Q5_0) => 8,
            Mix::Plain(Dtype::Q5_1) => 9,
            Mix::Plain(Dtype::Q4K) | Mix::Q4KS => 14,
            Mix::Q4KM => 15,
            Mix::Plain(Dtype::Q5K) | Mix::Q5KS => 16,
            Mix::Q5KM => 17,
            Mix::Plain(Dtype::Q6K) => 18,
            Mix::Plain(Dtype::BF16) => 32,
        }
    }

    /// The type of one tensor.
    pub(super) fn dtype(self, config: &ModelConfig, role: Role, shape: Shape) -> Dtype {
        let Shape::Matrix(_, cols) = shape else {
            return Dtype::F32;
        };
        if matches!(role, Role::PositionEmbedding | Role::TypeEmbedding) {
            return Dtype::F32;
        }
        let base = match self {
            Mix::Plain(dtype) => return fit(dtype, cols),
            Mix::Q4KS | Mix::Q4KM => Dtype::Q4K,
            Mix::Q5KS | Mix::Q5KM => Dtype::Q5K,
        };
        // Without an output tensor the embedding is taken to serve as one, even if the model only
        // embeds.
        let tied = config.tied_output || !config.generates;
        if role == Role::Output || (tied && role == Role::TokenEmbedding) {
            // fit() makes this Q8_0 where rows are no multiple of 256.
            return fit(Dtype::Q6K, cols);
        }
        let layers = config.layers;
        // The mixes count layers from 0, and an eighth rounds down.
        let more = |layer: usize| {
            layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
        };
        let dtype = match (self, role) {
            (Mix::Q4KS, Role::Layer(layer, LayerRole::V)) if layer < 4 => Dtype::Q5K,
            (Mix::Q4KS, Role::Layer(layer, LayerRole::Down)) if layer < layers / 8 => Dtype::Q5K,
            (Mix::Q4KM | Mix::Q5KM, Role::Layer(layer, LayerRole::V | LayerRole::Down))
                if more(layer) =>
            {
                Dtype::Q6K
            }
            _ => base,
        };
        fit(dtype, cols)
    }
}

/// The type itself if rows of `cols` are whole blocks of it, else llama.cpp's replacement.
fn fit(dtype: Dtype, cols: usize) -> Dtype {
    if cols.is_multiple_of(dtype.block_elems()) {
        return dtype;
    }
    let other = match dtype {
        Dtype::Q4K => Dtype::Q5_0,
        Dtype::Q5K => Dtype::Q5_1,
        _ => Dtype::Q8_0,
    };
    if cols.is_multiple_of(other.block_elems()) {
        other
    } else {
        Dtype::F16
    }
}
