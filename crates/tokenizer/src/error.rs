//! What can be wrong with a tokenizer's description or a chat template, said so that the reader
//! knows which file to fix.

use thiserror::Error;

/// Why a tokenizer could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The JSON text is broken, or a field has the wrong type.
    #[error(
        "tokenizer.json: {context}: {source}; the file is damaged or incomplete: fetch it again"
    )]
    Json {
        /// The part that was being read.
        context: &'static str,
        /// The parser's message with line and column.
        source: serde_json::Error,
    },
    /// The description names a part that this tokenizer does not have.
    ///
    /// Guessing would give silently different token ids, so nothing is guessed.
    #[error(
        "unsupported {part} `{name}`: Bursar cannot reproduce its token ids; \
         use a model with a supported tokenizer"
    )]
    Unsupported {
        /// Kind of part: `normalizer`, `pre-tokenizer`, `GGUF pre-tokenizer`, ...
        part: &'static str,
        /// Its name or description in the file.
        name: String,
    },
    /// A field that must be there is not.
    #[error("tokenizer lacks {what}; the model's files are incomplete")]
    Missing {
        /// The missing field.
        what: String,
    },
    /// A count or an id is larger than this tokenizer stores.
    #[error(
        "tokenizer: {what} is {got}, the limit is {limit}; use a model with a smaller vocabulary"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its value.
        got: u64,
        /// The largest accepted value.
        limit: u64,
    },
    /// Two parts of the description contradict each other.
    #[error("tokenizer: {0}; the file is damaged or was not made for this format")]
    Inconsistent(String),
    /// A regular expression of a pre-tokenizer does not compile.
    #[error(
        "tokenizer: pattern `{pattern}`: {message}; fetch the file again, or use another model"
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The compiler's complaint.
        message: String,
    },
}

impl TokenizerError {
    pub(crate) fn unsupported(part: &'static str, name: impl Into<String>) -> TokenizerError {
        TokenizerError::Unsupported {
            part,
            name: name.into(),
        }
    }

    pub(crate) fn missing(what: impl Into<String>) -> TokenizerError {
        TokenizerError::Missing { what: what.into() }
    }

    pub(crate) fn inconsistent(what: impl Into<String>) -> TokenizerError {
        TokenizerError::Inconsistent(what.into())
    }
}
