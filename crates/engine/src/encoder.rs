//! From texts to the tokens that an embedding model reads: its prompts, its special tokens, its
//! longest length.

use std::sync::Arc;

use bursar_files::{EmbeddingSpec, ModelConfig, Pooling};

use crate::EngineError;
use crate::embed::EmbedOptions;
use crate::vocabulary::Vocabulary;

/// What a model's texts go through before it sees them. Cheap to share; needs no engine.
pub struct TextEncoder {
    vocabulary: Arc<Vocabulary>,
    spec: EmbeddingSpec,
    longest: usize,
    dimensions: usize,
}

impl TextEncoder {
    /// For the model of `config` with vectors of `dimensions` values and texts of at most `longest`
    /// tokens.
    pub(crate) fn new(
        config: &ModelConfig,
        vocabulary: Arc<Vocabulary>,
        longest: usize,
        dimensions: usize,
    ) -> Self {
        // A decoder without an embedding spec still has a last token; that is what its family
        // embeds with.
        let spec = config.embedding.clone().unwrap_or(EmbeddingSpec {
            pooling: Pooling::Last,
            normalize: true,
            prompts: Vec::new(),
            default_prompt: None,
            max_tokens: config.context_max,
            append_eos: false,
        });
        Self {
            longest: longest.min(spec.max_tokens),
            vocabulary,
            spec,
            dimensions,
        }
    }

    /// Values of a whole vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Most tokens of a text, special ones included.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether the model's vectors are scaled to length 1.
    pub fn normalizes(&self) -> bool {
        self.spec.normalize
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// Checks options before any text is read, and gives the prefix that each text will get.
    ///
    /// # Errors
    /// For a prompt that the model does not have, and dimensions that it cannot be cut to.
    pub fn check(&self, options: &EmbedOptions) -> Result<&str, EngineError> {
        self.check_dimensions(options.dimensions)?;
        let default = self
            .spec
            .default_prompt
            .as_ref()
            .filter(|_| !options.no_prompt);
        let Some(name) = options.prompt_name.as_ref().or(default) else {
            return Ok("");
        };
        self.spec
            .prompt(name)
            .ok_or_else(|| EngineError::PromptName {
                got: name.clone(),
                known: match self.spec.prompts.is_empty() {
                    true => "it has none".to_owned(),
                    false => {
                        let names: Vec<&str> =
                            self.spec.prompts.iter().map(|p| p.0.as_str()).collect();
                        names.join(", ")
                    }
                },
            })
    }

    pub(crate) fn check_dimensions(&self, dimensions: Option<usize>) -> Result<(), EngineError> {
        match dimensions {
            Some(got) if got == 0 || got > self.dimensions => Err(EngineError::Setting {
                name: "dimensions",
                got: got.to_string(),
                want: format!("1 to {}", self.dimensions),
            }),
            _ => Ok(()),
        }
    }

    /// The tokens of each text, prompt and special tokens included, cut to the longest length; and
    /// how many texts were cut.
    ///
    /// # Errors
    /// As [`TextEncoder::check`].
    pub fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<(Vec<Vec<u32>>, usize), EngineError> {
        let prefix = self.check(options)?;
        let mut joined = String::new();
        let mut truncated = 0;
        let mut tokens = Vec::with_capacity(texts.len());
        for text in texts {
            joined.clear();
            joined.push_str(prefix);
            joined.push_str(text.as_ref());
            let (ids, cut) =
                self.vocabulary
                    .encode_for_embedding(&joined, self.longest, self.spec.append_eos);
            truncated += usize::from(cut);
            tokens.push(ids);
        }
        Ok((tokens, truncated))
    }
}
