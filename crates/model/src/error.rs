//! What can go wrong between a model file and a running model.

use bursar_files::FileError;
use bursar_memory::Refusal;
use bursar_memory::region::RegionError;

/// A model that cannot be planned or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The budget does not hold it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system refused memory that the budget allows.
    #[error(transparent)]
    Region(RegionError),
    /// A tensor that the architecture needs is not in the file.
    #[error("{model}: tensor {role} is missing; the file is incomplete or of another architecture")]
    TensorMissing {
        /// The model.
        model: String,
        /// Which tensor, by what it is for.
        role: String,
    },
    /// A tensor has the wrong shape.
    #[error("tensor {tensor}: {got}, wanted {want}; the file's config and weights do not match")]
    Shape {
        /// The tensor.
        tensor: String,
        /// What the file has.
        got: String,
        /// What the config asks for.
        want: String,
    },
    /// Sizes beyond what can be addressed.
    #[error("{what}: its bytes overflow the address space; the file's header is damaged")]
    TooLarge {
        /// What overflowed.
        what: String,
    },
    /// The thread that reads weights ahead could not be started.
    #[error("the thread that reads weights could not be started: {0}; raise the process limit")]
    Thread(std::io::Error),
    /// The thread that reads weights ahead has died.
    #[error("the thread that reads weights has ended; load the model again")]
    ReaderGone,
    /// A model asked to do what it cannot.
    #[error("{model} cannot {what}; {remedy}")]
    Unsuited {
        /// The model.
        model: String,
        /// What it cannot do.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

/// A refusal is one wherever it was noticed.
impl From<RegionError> for ModelError {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Refused(refusal) => ModelError::Refused(refusal),
            error => ModelError::Region(error),
        }
    }
}
