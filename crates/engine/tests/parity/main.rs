//! Parity with reference implementations, over every case of `tests/fixtures/MANIFEST.json`.
//!
//! Goldens come from transformers in float32 and sentence-transformers; `tools/reference` has the
//! scripts that made them. Run with `--nocapture` for the table of errors.

mod embedding;
mod fixtures;
mod logits;
