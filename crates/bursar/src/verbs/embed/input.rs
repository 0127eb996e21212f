//! The texts to embed: lines of files, whole files, or lines of stdin, one at a time, so that an
//! input may be larger than memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, StdinLock};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Longest text in bytes: far above what any model's context holds, far below any budget.
pub(super) const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Where texts come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Each line that is not blank is a text.
    Lines(Vec<PathBuf>),
    /// Each file is a text.
    Files(Vec<PathBuf>),
    /// Each line of stdin that is not blank is a text.
    Stdin,
}

/// One text and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// Index into the input's files; 0 for stdin.
    pub(super) file: usize,
    /// Line within it, counted from 1; `None` for a whole file.
    pub(super) line: Option<u64>,
    /// The text itself.
    pub(super) text: String,
}

/// What a first pass over an input found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// How many texts there are.
    pub(super) texts: u64,
    /// A digest of all texts in their order.
    pub(super) digest: blake3::Hash,
}

impl Input {
    /// The name of a text's file, for output.
    pub(super) fn name(&self, file: usize) -> Option<&Path> {
        match self {
            Input::Lines(paths) | Input::Files(paths) => paths.get(file).map(PathBuf::as_path),
            Input::Stdin => None,
        }
    }

    /// Counts the texts; `None` for stdin, which can be read only once.
    pub(super) fn census(&self) -> Result<Option<Census>, Failure> {
        if *self == Input::Stdin {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let mut texts = 0;
        let mut reader = self.open();
        while let Some(text) = reader.next()? {
            texts += 1;
            // The length keeps "ab" + "c" apart from "a" + "bc".
            hasher.update(&(text.text.len() as u64).to_le_bytes());
            hasher.update(text.text.as_bytes());
        }
        Ok(Some(Census {
            texts,
            digest: hasher.finalize(),
        }))
    }

    /// Starts reading.
    pub(super) fn open(&self) -> Reader<'_> {
        Reader {
            input: self,
            file: 0,
            line: 0,
            open: None,
            stdin: None,
        }
    }
}

/// Reads an input's texts in their order.
pub(super) struct Reader<'a> {
    input: &'a Input,
    /// The file that is read next, or is open.
    file: usize,
    /// Lines read of it.
    line: u64,
    open: Option<BufReader<File>>,
    stdin: Option<StdinLock<'static>>,
}

impl Reader<'_> {
    /// The next text, or `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Text>, Failure> {
        match self.input {
            Input::Files(paths) => {
                let Some(path) = paths.get(self.file) else {
                    return Ok(None);
                };
                let mut text = Vec::new();
                open(path)?
                    .take(TEXT_BYTES_MAX + 1)
                    .read_to_end(&mut text)
                    .map_err(|error| Failure::io("read", path, &error))?;
                let file = self.file;
                self.file += 1;
                Ok(Some(Text {
                    file,
                    line: None,
                    text: checked(text, path, None)?,
                }))
            }
            Input::Lines(paths) => {
                while let Some(path) = paths.get(self.file) {
                    let reader = match &mut self.open {
                        Some(reader) => reader,
                        None => self.open.insert(BufReader::new(open(path)?)),
                    };
                    match next_line(reader, &mut self.line, path)? {
                        Some(text) => {
                            return Ok(Some(Text {
                                file: self.file,
                                line: Some(self.line),
                                text,
                            }));
                        }
                        None => {
                            self.open = None;
                            self.line = 0;
                            self.file += 1;
                        }
                    }
                }
                Ok(None)
            }
            Input::Stdin => {
                let reader = self.stdin.get_or_insert_with(|| std::io::stdin().lock());
                let text = next_line(reader, &mut self.line, Path::new("stdin"))?;
                Ok(text.map(|text| Text {
                    file: 0,
                    line: Some(self.line),
                    text,
                }))
            }
        }
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    if path.is_dir() {
        return Err(
            Failure::failed(format!("{} is a folder", path.display())).help("give the files in it")
        );
    }
    File::open(path).map_err(|error| Failure::io("open", path, &error))
}

/// The next line that is not blank, without its end; counts all lines in `line`.
fn next_line(
    reader: &mut impl BufRead,
    line: &mut u64,
    path: &Path,
) -> Result<Option<String>, Failure> {
    loop {
        let mut bytes = Vec::new();
        reader
            .by_ref()
            .take(TEXT_BYTES_MAX + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Failure::io("read", path, &error))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        *line += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let text = checked(bytes, path, Some(*line))?;
        if !text.trim().is_empty() {
            return Ok(Some(text));
        }
    }
}

fn checked(bytes: Vec<u8>, path: &Path, line: Option<u64>) -> Result<String, Failure> {
    let place = match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    };
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        let limit = bursar_memory::Bytes(TEXT_BYTES_MAX);
        return Err(
            Failure::failed(format!("{place}: the text is longer than {limit}"))
                .help("split it: a model reads only as much of a text as its context holds"),
        );
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("{place}: the text is not UTF-8 (byte {at})"))
            .help("convert it, for example with iconv")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("a file is written");
        path
    }

    fn read(input: &Input) -> Result<Vec<(usize, Option<u64>, String)>, Failure> {
        let mut reader = input.open();
        let mut texts = Vec::new();
        while let Some(Text { file, line, text }) = reader.next()? {
            texts.push((file, line, text));
        }
        Ok(texts)
    }

    #[test]
    fn lines_and_files_are_texts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let a = write(folder.path(), "a.txt", b"one\n\n  \ntwo\r\nthree");
        let b = write(folder.path(), "b.txt", b"");
        let c = write(folder.path(), "c.txt", "vier \u{1F980}\n".as_bytes());
        let lines = Input::Lines(vec![a.clone(), b, c.clone()]);
        let expected = [
            (0, 1, "one"),
            (0, 4, "two"),
            (0, 5, "three"),
            (2, 1, "vier \u{1F980}"),
        ];
        let expected = expected.map(|(file, line, text)| (file, Some(line), text.to_owned()));
        assert_eq!(read(&lines).expect("texts"), expected);
        assert_eq!(lines.census().expect("a census").expect("files").texts, 4);

        let files = Input::Files(vec![a, c]);
        let texts = read(&files).expect("texts");
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[1], (1, None, "vier \u{1F980}\n".to_owned()));
        let digest = |input: &Input| input.census().expect("a census").expect("files").digest;
        assert_ne!(digest(&lines), digest(&files));
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bad = write(folder.path(), "bad.txt", b"fine\nnot \xff fine\n");
        let failure = format!(
            "{:?}",
            read(&Input::Lines(vec![bad])).expect_err("not UTF-8")
        );
        assert!(
            failure.contains("bad.txt:2: the text is not UTF-8 (byte 4)"),
            "{failure}"
        );
        let long = vec![b'x'; TEXT_BYTES_MAX as usize + 1];
        let long = write(folder.path(), "long.txt", &long);
        let failure = format!(
            "{:?}",
            read(&Input::Lines(vec![long])).expect_err("too long")
        );
        assert!(
            failure.contains("long.txt:1: the text is longer than 1.0 MiB"),
            "{failure}"
        );
        assert!(read(&Input::Files(vec![folder.path().to_owned()])).is_err());
        assert!(read(&Input::Lines(vec![folder.path().join("none")])).is_err());
    }
}
