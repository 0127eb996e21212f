//! OpenAI's API: what its requests may hold, and how its answers look.
//!
//! - `params`: what chats and completions have in common.
//! - `chat`, `completions`: the two ways to have text written.
//! - `embeddings`: texts to vectors.
//! - `input`: texts or token ids, one or many.
//! - `logprobs`: likelihoods in each of the two shapes.
//! - `tokens`: texts to token ids and back.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod input;
mod logprobs;
mod params;
pub(crate) mod tokens;

pub(crate) use logprobs::{Likelihoods, Told};
pub(crate) use params::Params;
