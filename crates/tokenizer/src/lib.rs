//! Compact tokenizers and chat templates.
