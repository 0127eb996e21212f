//! Search over source files by meaning: cut them into pieces worth finding, keep the pieces' vectors,
//! find the nearest ones. Which model makes the vectors is the caller's business: this crate knows
//! texts and numbers.
//!
//! | module | what lives there |
//! |---|---|
//! | [`mod@walk`] | which files are searched: ignore rules, hidden files |
//! | [`read`] | a file's text, or why it has none worth searching |
//! | [`language`] | what a file is written in, by its name |
//! | [`chunk`] | a text cut into pieces: by item, by section, by lines |
//! | [`index`] | all pieces of all files, with their vectors, inside the budget |
//! | [`store`] | vectors kept on disk by the digest of what they were made from |
//! | [`rank`] | the pieces nearest to a question |
//! | [`error`] | what can go wrong |

#![forbid(unsafe_code)]

pub mod chunk;
pub mod error;
pub mod index;
pub mod language;
pub mod rank;
pub mod read;
pub mod store;
pub mod walk;

pub use chunk::{Chunk, chunks};
pub use error::SearchError;
pub use index::{Entry, Index};
pub use language::Language;
pub use rank::{Hit, best};
pub use read::{Reader, Unread};
pub use store::{Stored, VectorStore};
pub use walk::{WalkOptions, Walked, walk};
