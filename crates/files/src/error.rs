//! What can go wrong with a model file, said so that a user can act on it: which file, where in
//! it, what was found, what would have been right, and what to do now.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A model file that cannot be read, is broken, or is not supported.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused a file operation.
    #[error("{}: cannot {action}{}: {source}{}", path.display(), At(*offset), ToDo(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation, as a verb phrase ("open", "read 512 bytes").
        action: String,
        /// Byte offset of the operation, where it has one.
        offset: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes break their format.
    #[error("{}{}: {what}: got {got}, want {want}; {remedy}", path.display(), At(*offset))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Byte offset of the offending field, where it has one.
        offset: Option<u64>,
        /// The field or tensor.
        what: Box<str>,
        /// What the file holds.
        got: Box<str>,
        /// What it should hold.
        want: Box<str>,
        /// What to do.
        remedy: &'static str,
    },
    /// The file is sound, but holds something that is not supported.
    #[error("{}: {what} {got:?} is not supported (supported: {supported}); {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The kind of thing ("architecture", "tensor type of blk.0.attn_q.weight").
        what: String,
        /// The thing.
        got: String,
        /// The alternatives.
        supported: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A setting of the model is missing or makes no sense.
    #[error("{}: setting {key}: got {got}, want {want}; the file's configuration is damaged or not a whole model's", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The setting, by the file's own name for it.
        key: String,
        /// What the file holds ("nothing" if absent).
        got: String,
        /// What it should hold.
        want: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("{}: tensor {tensor} is missing; {remedy}", path.display())]
    MissingTensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A tensor's shape or type contradicts the configuration.
    #[error("{}: tensor {tensor}: got {got}, want {want} from the configuration; the weights and the configuration belong to different models", path.display())]
    Shape {
        /// The file or directory.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its shape or type.
        got: String,
        /// The shape or type that the configuration implies.
        want: String,
    },
    /// Weights were asked of a header that has none.
    #[error(
        "{name} is a header without weights: only `plan` works on it; write it with `synth` first"
    )]
    HeaderOnly {
        /// The preset's name.
        name: String,
    },
    /// The name of a preset or quantisation is unknown.
    #[error("unknown {what} {got:?}; known: {known}")]
    UnknownName {
        /// The kind of name.
        what: &'static str,
        /// The name asked for.
        got: String,
        /// All names.
        known: String,
    },
    /// A request made no sense: a range outside a tensor, a payload of the wrong length.
    #[error("{what}: got {got}, want {want}")]
    Request {
        /// What was asked.
        what: String,
        /// The value given.
        got: String,
        /// The values allowed.
        want: String,
    },
}

/// What to do about a file whose bytes break the format.
const DAMAGED: &str = "the file is damaged or incomplete: fetch it again";

impl FileError {
    /// An I/O error at `path`.
    pub(crate) fn io(path: &Path, action: impl Into<String>, source: io::Error) -> FileError {
        FileError::Io {
            path: path.to_owned(),
            action: action.into(),
            offset: None,
            source,
        }
    }

    /// Bytes that break the format; the remedy is to fetch the file again.
    pub(crate) fn malformed(
        path: &Path,
        offset: impl Into<Option<u64>>,
        what: impl Into<String>,
        got: impl fmt::Display,
        want: impl fmt::Display,
    ) -> FileError {
        FileError::Malformed {
            path: path.to_owned(),
            offset: offset.into(),
            what: what.into().into(),
            got: got.to_string().into(),
            want: want.to_string().into(),
            remedy: DAMAGED,
        }
    }

    /// The same with another remedy than fetching the file again.
    pub(crate) fn with_remedy(mut self, better: &'static str) -> FileError {
        if let FileError::Malformed { remedy, .. } = &mut self {
            *remedy = better;
        }
        self
    }

    /// A setting that is missing or makes no sense.
    pub(crate) fn config(
        path: &Path,
        key: impl Into<String>,
        got: impl fmt::Display,
        want: impl fmt::Display,
    ) -> FileError {
        FileError::Config {
            path: path.to_owned(),
            key: key.into(),
            got: got.to_string(),
            want: want.to_string(),
        }
    }

    /// Something sound that is not supported.
    pub(crate) fn unsupported(
        path: &Path,
        what: impl Into<String>,
        got: impl fmt::Display,
        supported: &'static str,
        remedy: &'static str,
    ) -> FileError {
        FileError::Unsupported {
            path: path.to_owned(),
            what: what.into(),
            got: got.to_string(),
            supported,
            remedy,
        }
    }
}

/// What can be done where the system refuses a file; `None` where only the system knows.
pub fn io_remedy(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::*;
    let remedy = match error.kind() {
        NotFound => "check the path: the file, or the folder that it is to be in, must exist",
        PermissionDenied => "change who may read and write it, or give another path",
        ReadOnlyFilesystem => "give a path on a file system that can be written to",
        StorageFull | QuotaExceeded | FileTooLarge => {
            "make room on that disk, or give another path"
        }
        IsADirectory | NotADirectory => "give the path of a file",
        UnexpectedEof => "the file was cut off while it was read: fetch it again",
        _ => return None,
    };
    Some(remedy)
}

/// Prints "; " and what to do, or nothing.
struct ToDo<'a>(&'a io::Error);

impl fmt::Display for ToDo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match io_remedy(self.0) {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Prints " at byte N", or nothing.
struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}

/// Shortens and escapes a name read from a file, so that an error cannot carry megabytes or
/// terminal control characters.
pub(crate) fn quoted(name: &[u8]) -> String {
    const LONGEST: usize = 96;
    let shown = &name[..name.len().min(LONGEST)];
    let dots = if name.len() > LONGEST { "..." } else { "" };
    format!("\"{}\"{dots}", shown.escape_ascii())
}
