//! A file's text, or why it has none worth searching. One file is in memory at a time.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bursar_memory::{Account, Bytes, Reservation};

use crate::error::SearchError;
use crate::language::Language;

/// Longest file that is searched: sources that people write are far shorter.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Most lines of a file; with the above it bounds what cutting a file takes.
pub const LINES_MAX: usize = 50_000;
/// Where a zero byte tells that a file is no text.
const PROBE_BYTES: usize = 8 << 10;
/// Longer lines on average than this are data or minified code.
const LINE_BYTES_MEAN_MAX: usize = 300;
/// Shorter files are searched however long their lines are.
const DENSE_BYTES_MIN: usize = 2000;
/// What cutting a file takes besides its text: lines, and the places of brackets.
const SCRATCH_BYTES: u64 = 4 << 20;

/// Ends of the names of files that programs write for programs.
const MADE_SUFFIXES: [&str; 9] = [
    ".lock",
    ".map",
    ".svg",
    ".csv",
    ".tsv",
    ".jsonl",
    ".min.js",
    ".min.css",
    "-lock.json",
];

/// Why a file is not searched.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unread {
    /// No text.
    Binary,
    /// More bytes or lines than are searched.
    Huge,
    /// Text that programs wrote: lock files, minified code, tables.
    Made,
    /// The system refused.
    Unreadable,
}

impl Unread {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Unread::Binary => "binary",
            Unread::Huge => "huge",
            Unread::Made => "generated",
            Unread::Unreadable => "unreadable",
        }
    }
}

/// Reads files one after another into the same memory.
pub struct Reader {
    bytes: Vec<u8>,
    /// Only for text that is not UTF-8.
    repaired: String,
    _reserved: Reservation,
}

impl Reader {
    /// Reserves what one file and its cutting take.
    ///
    /// # Errors
    /// When the budget does not hold it.
    pub fn new(account: &Account) -> Result<Reader, SearchError> {
        // A byte that is no UTF-8 becomes three.
        let bytes = Bytes(4 * FILE_BYTES_MAX as u64 + SCRATCH_BYTES);
        Ok(Reader {
            bytes: Vec::new(),
            repaired: String::new(),
            _reserved: account.reserve(bytes)?,
        })
    }

    /// The text of a file; bytes that are no UTF-8 become replacement characters.
    ///
    /// # Errors
    /// Why it is not searched.
    pub fn read(&mut self, path: &Path) -> Result<&str, Unread> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if MADE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            return Err(Unread::Made);
        }
        self.bytes.clear();
        // Opening a pipe would wait for a writer.
        let meta = std::fs::metadata(path).map_err(|_| Unread::Unreadable)?;
        if !meta.is_file() {
            return Err(Unread::Unreadable);
        }
        if meta.len() > FILE_BYTES_MAX as u64 {
            return Err(Unread::Huge);
        }
        self.bytes.reserve_exact(meta.len() as usize + 1);
        File::open(path)
            .and_then(|file| {
                file.take(FILE_BYTES_MAX as u64 + 1)
                    .read_to_end(&mut self.bytes)
            })
            .map_err(|_| Unread::Unreadable)?;
        if self.bytes.len() > FILE_BYTES_MAX {
            return Err(Unread::Huge);
        }
        let probe = &self.bytes[..self.bytes.len().min(PROBE_BYTES)];
        if probe.contains(&0) {
            return Err(Unread::Binary);
        }
        let lines = self.bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
        if lines > LINES_MAX {
            return Err(Unread::Huge);
        }
        // Prose may have one line to a paragraph.
        let dense = self.bytes.len() / lines > LINE_BYTES_MEAN_MAX;
        if dense && self.bytes.len() > DENSE_BYTES_MIN && Language::of(path) != Language::Markdown {
            return Err(Unread::Made);
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Ok(text),
            Err(_) => {
                self.repaired.clear();
                self.repaired
                    .push_str(&String::from_utf8_lossy(&self.bytes));
                Ok(&self.repaired)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_memory::{Ledger, Lifetime};

    #[test]
    fn what_is_no_source_text_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Bytes(32 << 20));
        let account = ledger.root().child("search", Lifetime::Episodic);
        let mut reader = Reader::new(&account).unwrap();
        let mut read = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            reader.read(&path).map(str::to_owned)
        };
        assert_eq!(read("a.rs", b"fn a() {}\n").as_deref(), Ok("fn a() {}\n"));
        assert_eq!(read("empty.rs", b"").as_deref(), Ok(""));
        assert_eq!(
            read("latin.c", b"// \xe9t\xe9\n").as_deref(),
            Ok("// \u{fffd}t\u{fffd}\n")
        );
        assert_eq!(read("a.bin", b"ELF\0\0"), Err(Unread::Binary));
        assert_eq!(read("Cargo.lock", b"[[package]]\n"), Err(Unread::Made));
        assert_eq!(read("bundle.js", &[b'x'; 4000]), Err(Unread::Made));
        assert_eq!(
            read("huge.rs", &vec![b'\n'; FILE_BYTES_MAX + 1]),
            Err(Unread::Huge)
        );
        assert_eq!(
            read("long.rs", &vec![b'\n'; LINES_MAX + 1]),
            Err(Unread::Huge)
        );
        assert_eq!(reader.read(folder.path()), Err(Unread::Unreadable));
        assert_eq!(
            reader.read(&folder.path().join("none")),
            Err(Unread::Unreadable)
        );
    }
}
