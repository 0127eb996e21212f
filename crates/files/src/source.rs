//! Where a model's bytes come from: a regular file read by position, bytes of the program itself, or a
//! header in memory whose weights do not exist (a preset that is only planned).
//!
//! Nothing maps a file: a mapped file that is truncated under us kills the process with SIGBUS,
//! and its pages belong to nobody's account.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::FileError;

/// Bytes that are part of the program: its loader mapped them, and nobody copies them twice.
#[derive(Copy, Clone)]
pub struct ProgramBytes {
    /// The bytes.
    pub bytes: &'static [u8],
    /// Told which of them have been read and are not wanted again soon, so that their pages can go.
    pub release: fn(&'static [u8]),
}

impl std::fmt::Debug for ProgramBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of the program", self.bytes.len())
    }
}

/// How many bytes of the program are resident at once while a model is read from there.
const PROGRAM_STEP_BYTES: usize = 512 << 10;

/// Bytes at positions. Cheap to read from several threads at once.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file on disk, with its length when it was opened.
    Disk { path: PathBuf, file: File, len: u64 },
    /// A file that is part of the program.
    Program { name: PathBuf, file: ProgramBytes },
    /// The first bytes of a file of `len` bytes that was never written.
    Header {
        name: PathBuf,
        bytes: Vec<u8>,
        len: u64,
    },
}

impl Source {
    /// Opens a regular file for reading.
    pub(crate) fn open(path: &Path) -> Result<Source, FileError> {
        // Asked before opening: opening a FIFO would wait for a writer.
        let meta = std::fs::metadata(path).map_err(|e| FileError::io(path, "open", e))?;
        if !meta.is_file() {
            let got = if meta.is_dir() {
                "a directory"
            } else {
                "a special file"
            };
            let remedy = "give the path of a .gguf or .safetensors file, or of a model directory";
            return Err(
                FileError::malformed(path, None, "model file", got, "a regular file")
                    .with_remedy(remedy),
            );
        }
        let file = File::open(path).map_err(|e| FileError::io(path, "open", e))?;
        let len = file
            .metadata()
            .map_err(|e| FileError::io(path, "read the size of", e))?
            .len();
        Ok(Source::Disk {
            path: path.to_owned(),
            file,
            len,
        })
    }

    /// The path, or the preset's name.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Source::Disk { path, .. } => path,
            Source::Program { name, .. } | Source::Header { name, .. } => name,
        }
    }

    /// Bytes of contents kept in memory.
    pub(crate) fn held_bytes(&self) -> u64 {
        match self {
            Source::Disk { .. } | Source::Program { .. } => 0,
            Source::Header { bytes, .. } => bytes.len() as u64,
        }
    }

    /// Bytes in the file, weights included.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Source::Disk { len, .. } | Source::Header { len, .. } => *len,
            Source::Program { file, .. } => file.bytes.len() as u64,
        }
    }

    /// How many bytes from the start can be read.
    pub(crate) fn held(&self) -> u64 {
        match self {
            Source::Disk { len, .. } => *len,
            Source::Program { file, .. } => file.bytes.len() as u64,
            Source::Header { bytes, .. } => bytes.len() as u64,
        }
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FileError> {
        match self {
            Source::Disk { path, file, .. } => {
                file.read_exact_at(buf, offset)
                    .map_err(|source| FileError::Io {
                        path: path.clone(),
                        action: format!("read {} bytes", buf.len()),
                        offset: Some(offset),
                        source,
                    })
            }
            Source::Program { name, file } => {
                let there = range(file.bytes, offset, buf.len());
                let there = there.ok_or_else(|| {
                    FileError::malformed(name, offset, "bundled model", "its end", "more bytes")
                })?;
                let steps = there.chunks(PROGRAM_STEP_BYTES);
                for (from, to) in steps.zip(buf.chunks_mut(PROGRAM_STEP_BYTES)) {
                    to.copy_from_slice(from);
                    (file.release)(from);
                }
                Ok(())
            }
            Source::Header { name, bytes, .. } => {
                let held = range(bytes, offset, buf.len());
                let held = held.ok_or_else(|| FileError::HeaderOnly {
                    name: name.to_string_lossy().into_owned(),
                })?;
                buf.copy_from_slice(held);
                Ok(())
            }
        }
    }

    /// The same bytes once more, for a reader of its own; `None` where there are none to be read.
    pub(crate) fn again(&self) -> Result<Option<Source>, FileError> {
        Ok(match self {
            Source::Disk { path, file, len } => Some(Source::Disk {
                path: path.clone(),
                file: file
                    .try_clone()
                    .map_err(|e| FileError::io(path, "open once more", e))?,
                len: *len,
            }),
            Source::Program { name, file } => Some(Source::Program {
                name: name.clone(),
                file: *file,
            }),
            Source::Header { .. } => None,
        })
    }

    /// When it was last written to, where it is a file.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match self {
            Source::Disk { file, .. } => file.metadata().ok()?.modified().ok(),
            Source::Program { .. } | Source::Header { .. } => None,
        }
    }

    /// Tells the kernel that a range will be read soon, so that it can begin.
    ///
    /// Advice only, as for [`Source::drop_cache`].
    pub(crate) fn read_ahead(&self, offset: u64, len: u64) {
        if let (Source::Disk { file, .. }, Some(len)) = (self, std::num::NonZeroU64::new(len)) {
            let _ = rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::WillNeed);
        }
    }

    /// Tells the kernel that a range will not be read again soon, so that its page cache can go.
    ///
    /// Advice only: failure is of no consequence and is not reported.
    pub(crate) fn drop_cache(&self, offset: u64, len: u64) {
        if let (Source::Disk { file, .. }, Some(len)) = (self, std::num::NonZeroU64::new(len)) {
            let _ = rustix::fs::fadvise(file, offset, Some(len), rustix::fs::Advice::DontNeed);
        }
    }
}

fn range(bytes: &[u8], offset: u64, len: usize) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(len)?)
}

/// Reads a whole small file (a JSON document), refusing one larger than `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let source = Source::open(path)?;
    if source.len() > limit {
        return Err(FileError::malformed(
            path,
            None,
            "file size",
            format!("{} bytes", source.len()),
            format!("at most {limit} bytes"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(source.len()).expect("the limit fits usize")];
    source.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// As [`read_small`], but `None` if there is no such file.
pub(crate) fn read_small_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => read_small(path, limit).map(Some),
        Err(e) => Err(FileError::io(path, "look for", e)),
    }
}
