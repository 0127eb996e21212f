//! A position in a GGUF file: every read is checked against what is left of the file before
//! anything is allocated or skipped by it.

use super::value::ValueType;
use crate::error::{FileError, quoted};
use crate::source::Source;

/// Longest key or tensor name in bytes. The specification allows 65,535 and 64.
const NAME_MAX: u64 = 65_535;
/// Most settings and tensors in a file; real files have a few hundred.
const ENTRIES_MAX: u64 = 1 << 20;

/// A position in the file, with a window of bytes around it.
pub(super) struct Cursor<'a> {
    pub(super) source: &'a Source,
    /// The next byte.
    pub(super) pos: u64,
    window: Vec<u8>,
    /// Position of the window's first byte.
    window_start: u64,
}

impl<'a> Cursor<'a> {
    const WINDOW: usize = 64 << 10;

    pub(super) fn new(source: &'a Source) -> Cursor<'a> {
        Cursor::at(source, 0)
    }

    pub(super) fn at(source: &'a Source, pos: u64) -> Cursor<'a> {
        Cursor {
            source,
            pos,
            window: Vec::new(),
            window_start: pos,
        }
    }

    /// Bytes between here and the end of the file.
    pub(super) fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.pos)
    }

    fn ends(&self, want: u64, what: &str) -> FileError {
        FileError::malformed(
            self.source.path(),
            self.pos,
            what,
            format!("the end of the file after {} bytes", self.left()),
            format!("{want} bytes"),
        )
    }

    pub(super) fn skip(&mut self, bytes: u64, what: &str) -> Result<(), FileError> {
        if bytes > self.left() {
            return Err(self.ends(bytes, what));
        }
        self.pos += bytes;
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FileError> {
        if N as u64 > self.left() {
            return Err(self.ends(N as u64, what));
        }
        let in_window = |cursor: &Cursor<'_>| {
            let start = cursor.pos.checked_sub(cursor.window_start)?;
            let start = usize::try_from(start).ok()?;
            cursor
                .window
                .get(start..start.checked_add(N)?)?
                .try_into()
                .ok()
        };
        if let Some(bytes) = in_window(self) {
            self.pos += N as u64;
            return Ok(bytes);
        }
        // A header in memory ends before its weights: ask for no more than is held, but for N.
        let held = self.source.held().saturating_sub(self.pos);
        let len = held.min(Self::WINDOW as u64).max(N as u64) as usize;
        self.window.resize(len, 0);
        self.window_start = self.pos;
        if let Err(e) = self.source.read_at(self.pos, &mut self.window) {
            self.window.clear();
            return Err(e);
        }
        let bytes = in_window(self).expect("the window was filled from here");
        self.pos += N as u64;
        Ok(bytes)
    }

    /// The next `len` bytes, into `out`.
    pub(super) fn bytes(
        &mut self,
        len: u64,
        what: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        if len > self.left() {
            return Err(self.ends(len, what));
        }
        let len = usize::try_from(len).expect("at most the file's length");
        out.clear();
        out.resize(len, 0);
        let start = self
            .pos
            .checked_sub(self.window_start)
            .and_then(|s| usize::try_from(s).ok());
        let held = start.and_then(|s| self.window.get(s..s.checked_add(len)?));
        match held {
            Some(held) => out.copy_from_slice(held),
            None => self.source.read_at(self.pos, out)?,
        }
        self.pos += len as u64;
        Ok(())
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, FileError> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, FileError> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    /// A count of things that take at least `each` bytes of what is left.
    pub(super) fn count(&mut self, what: &str, each: u64) -> Result<u64, FileError> {
        let at = self.pos;
        let count = self.u64(what)?;
        let most = (self.left() / each).min(ENTRIES_MAX);
        if count > most {
            let path = self.source.path();
            return Err(FileError::malformed(
                path,
                at,
                what,
                count,
                format!("at most {most}"),
            ));
        }
        Ok(count)
    }

    /// The length of a string, checked against what is left.
    pub(super) fn length(&mut self, what: &str) -> Result<u64, FileError> {
        let at = self.pos;
        let len = self.u64(what)?;
        if len > self.left() {
            return Err(FileError::malformed(
                self.source.path(),
                at,
                format!("length of a string of {what}"),
                len,
                format!("at most {} (what is left of the file)", self.left()),
            ));
        }
        Ok(len)
    }

    /// The next `len` bytes as text.
    pub(super) fn text(&mut self, len: u64, what: &str) -> Result<String, FileError> {
        let at = self.pos;
        let mut bytes = Vec::new();
        self.bytes(len, what, &mut bytes)?;
        String::from_utf8(bytes).map_err(|e| {
            let got = format!("a bad byte {} in", e.utf8_error().valid_up_to());
            FileError::malformed(self.source.path(), at, what, got, "UTF-8 text")
        })
    }

    /// A key or a tensor's name.
    pub(super) fn name(&mut self, what: &str) -> Result<String, FileError> {
        let at = self.pos;
        let len = self.length(what)?;
        if !(1..=NAME_MAX).contains(&len) {
            let want = format!("1 to {NAME_MAX} bytes");
            return Err(FileError::malformed(
                self.source.path(),
                at,
                what,
                len,
                want,
            ));
        }
        self.text(len, what)
    }

    pub(super) fn value_type(&mut self, key: &str) -> Result<ValueType, FileError> {
        let at = self.pos;
        let number = self.u32(key)?;
        ValueType::from_number(number).ok_or_else(|| {
            let what = format!("type of setting {}", quoted(key.as_bytes()));
            FileError::malformed(self.source.path(), at, what, number, "0 to 12")
        })
    }
}
