//! What can go wrong while searching.

use std::path::PathBuf;

use bursar_memory::Refusal;
use bursar_memory::region::RegionError;

/// Why a search cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A path that was named cannot be searched.
    #[error("cannot search {path}: {source}", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The memory budget does not hold the index.
    #[error("the index of these files does not fit: {0}")]
    Refused(#[from] Refusal),
    /// Memory could not be mapped.
    #[error("the index of these files cannot be mapped: {0}")]
    Region(#[from] RegionError),
    /// More of something than can be counted.
    #[error("{what} is more than this search can hold ({most}); search fewer files")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most.
        most: u64,
    },
}

impl SearchError {
    /// Whether more memory would help.
    pub fn does_not_fit(&self) -> bool {
        matches!(
            self,
            SearchError::Refused(_) | SearchError::Region(RegionError::Refused(_))
        )
    }

    pub(crate) fn io(
        doing: &'static str,
        path: &std::path::Path,
        source: std::io::Error,
    ) -> SearchError {
        SearchError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}
