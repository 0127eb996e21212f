//! Where vectors go: stdout, or a file that is complete when it appears under its name and can be
//! continued until then.
//!
//! While `vectors.npy` is being made there are `vectors.npy.partial`, the rows so far, and
//! `vectors.npy.state`, digests of the model, the input and the options they were made from. A run
//! that finds both, with equal digests, goes on after the last whole row.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::rows::Format;
use crate::failure::Failure;
use crate::output::Out;

/// What rows were made from: equal states make equal rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Of this file's layout.
    pub(super) version: u32,
    /// Digest of the model.
    pub(super) model: String,
    /// Digest of the texts.
    pub(super) input: String,
    /// Digest of everything else that decides the rows.
    pub(super) options: String,
}

impl State {
    /// The first part in which two states differ, in words.
    fn difference(&self, other: &State) -> Option<&'static str> {
        match () {
            () if self.version != other.version => Some("another version of bursar"),
            () if self.model != other.model => Some("another model"),
            () if self.input != other.input => Some("other texts"),
            () if self.options != other.options => Some("other options"),
            () => None,
        }
    }
}

/// Takes rows as bytes.
pub(super) enum Sink {
    /// Stdout.
    Stdout(Out),
    /// A file in the making.
    File(Partial),
}

/// A file in the making.
pub(super) struct Partial {
    path: PathBuf,
    partial: PathBuf,
    state: PathBuf,
    file: File,
    format: Format,
    dimensions: usize,
}

impl Sink {
    /// Stdout.
    pub(super) fn stdout() -> Sink {
        Sink::Stdout(Out::new())
    }

    /// Starts the file `path`, or continues it if `state` is what its rows so far were made from;
    /// gives the number of rows that are there. Without a state (stdin cannot be read twice) it
    /// always starts.
    pub(super) fn file(
        path: &Path,
        format: Format,
        dimensions: usize,
        state: Option<&State>,
        restart: bool,
    ) -> Result<(Sink, u64), Failure> {
        let mut sink = Partial {
            path: path.to_owned(),
            partial: with_suffix(path, ".partial"),
            state: with_suffix(path, ".state"),
            file: open(&with_suffix(path, ".partial"))?,
            format,
            dimensions,
        };
        let rows = match state {
            Some(state) if !restart => sink.resume(state)?,
            _ => None,
        };
        let rows = match rows {
            Some(rows) => rows,
            None => {
                sink.start(state)?;
                0
            }
        };
        Ok((Sink::File(sink), rows))
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &[u8]) -> Result<(), Failure> {
        match self {
            Sink::Stdout(out) => {
                out.bytes(rows)?;
                out.flush()
            }
            Sink::File(sink) => {
                let written = sink.file.write_all(rows);
                written.map_err(|error| Failure::io("write to", &sink.partial, &error))
            }
        }
    }

    /// Completes the output with its number of rows.
    pub(super) fn finish(self, rows: u64) -> Result<(), Failure> {
        match self {
            Sink::Stdout(mut out) => out.flush(),
            Sink::File(sink) => sink.finish(rows),
        }
    }
}

impl Partial {
    /// How many rows there are to go on after; `None` where there is nothing to continue.
    fn resume(&mut self, state: &State) -> Result<Option<u64>, Failure> {
        let unreadable = |error: &std::io::Error| Failure::io("read", &self.partial, error);
        let bytes = self
            .file
            .metadata()
            .map_err(|error| unreadable(&error))?
            .len();
        let stored = match fs::read(&self.state) {
            Ok(stored) => serde_json::from_slice::<State>(&stored).ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && bytes == 0 => {
                return Ok(None);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::io("read", &self.state, &error)),
        };
        let foreign = |of: &str| {
            Failure::usage(format!(
                "{} is the beginning of {of}",
                self.partial.display()
            ))
            .help("run what made it once more, or discard it with --restart")
        };
        let Some(stored) = stored else {
            return Err(foreign("something else"));
        };
        if let Some(difference) = state.difference(&stored) {
            return Err(foreign(&format!("vectors from {difference}")));
        }
        let mut reader = BufReader::new(&self.file);
        let found = self.format.whole_rows(&mut reader, self.dimensions);
        let Some((rows, end)) = found.map_err(|error| unreadable(&error))? else {
            return Err(foreign("something else"));
        };
        if rows == 0 {
            return Ok(None);
        }
        self.file
            .set_len(end)
            .and_then(|()| self.file.seek(SeekFrom::End(0)))
            .map_err(|error| Failure::io("write to", &self.partial, &error))?;
        Ok(Some(rows))
    }

    fn start(&mut self, state: Option<&State>) -> Result<(), Failure> {
        let partial = &self.partial;
        let failed = |error: std::io::Error| Failure::io("write to", partial, &error);
        // Rows are gone before the state changes: at no time does a state stand beside rows that
        // were not made from it.
        self.file.set_len(0).map_err(failed)?;
        match state {
            Some(state) => {
                let text = serde_json::to_vec_pretty(state).unwrap_or_default();
                fs::write(&self.state, text)
                    .map_err(|error| Failure::io("write", &self.state, &error))?;
            }
            None => remove(&self.state)?,
        }
        let header = self.format.header(0, self.dimensions);
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .map_err(failed)
    }

    fn finish(mut self, rows: u64) -> Result<(), Failure> {
        let header = self.format.header(rows, self.dimensions);
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Failure::io("write to", &self.partial, &error))?;
        fs::rename(&self.partial, &self.path)
            .map_err(|error| Failure::io("rename the finished file to", &self.path, &error))?;
        remove(&self.state)
    }
}

/// Opens the rows so far for this process alone.
fn open(partial: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(partial)
        .map_err(|error| Failure::io("open", partial, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::failed(format!(
            "{} is being written already",
            partial.display()
        ))
        .help("wait for the other bursar embed, or give another file with -o")),
        // Filesystems without locks are still filesystems.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::rows::Row;
    use super::*;

    const ROWS: u64 = 5;

    fn state() -> State {
        let text = |text: &str| text.to_owned();
        State {
            version: 1,
            model: text("m"),
            input: text("i"),
            options: text("o"),
        }
    }

    fn row(format: Format, index: u64) -> Vec<u8> {
        let embedding = [index as f32, 0.25];
        let mut bytes = Vec::new();
        format.push_row(
            &Row {
                index,
                file: None,
                line: None,
                embedding: &embedding,
            },
            &mut bytes,
        );
        bytes
    }

    /// Runs to the end from wherever the file stands; gives how many rows were there.
    fn run(path: &Path, format: Format) -> u64 {
        let (mut sink, done) = Sink::file(path, format, 2, Some(&state()), false).expect("a sink");
        for index in done..ROWS {
            sink.write(&row(format, index)).expect("written");
        }
        sink.finish(ROWS).expect("finished");
        done
    }

    #[test]
    fn wherever_it_was_cut_the_file_becomes_the_same() {
        for format in [Format::Jsonl, Format::Npy] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("vectors");
            assert_eq!(run(&path, format), 0);
            let whole = fs::read(&path).expect("the file");
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);

            // The same bytes as they were before the last step, which rewrites the header.
            let header = format.header(0, 2);
            let before: Vec<u8> = [&header, &whole[header.len()..]].concat();
            // Every length is tried where rows are counted; each of these waits for the disk.
            for len in (0..before.len()).step_by(17).chain([before.len()]) {
                fs::write(with_suffix(&path, ".partial"), &before[..len]).expect("written");
                let text = serde_json::to_vec(&state()).expect("JSON");
                fs::write(with_suffix(&path, ".state"), text).expect("written");
                let done = run(&path, format);
                assert_eq!(
                    fs::read(&path).expect("the file"),
                    whole,
                    "{format:?} cut at {len}"
                );
                assert!(len < before.len() || done == ROWS);
            }
        }
    }

    #[test]
    fn rows_of_something_else_are_not_continued() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("vectors.jsonl");
        let open =
            |state: &State, restart| Sink::file(&path, Format::Jsonl, 2, Some(state), restart);
        let (mut sink, _) = open(&state(), false).expect("a sink");
        sink.write(&row(Format::Jsonl, 0)).expect("written");
        assert!(open(&state(), false).is_err(), "locked by the first");
        drop(sink);
        let other = State {
            input: "j".into(),
            ..state()
        };
        let failure = format!("{:?}", open(&other, false).err().expect("refused"));
        assert!(failure.contains("vectors from other texts"), "{failure}");
        let (sink, rows) = open(&state(), false).expect("a sink");
        assert_eq!(rows, 1);
        drop(sink);
        let (_, rows) = open(&other, true).expect("a sink");
        assert_eq!(rows, 0);
        fs::remove_file(with_suffix(&path, ".state")).expect("removed");
        fs::write(with_suffix(&path, ".partial"), "notes").expect("written");
        let failure = format!("{:?}", open(&state(), false).err().expect("refused"));
        assert!(
            failure.contains("the beginning of something else"),
            "{failure}"
        );
    }
}
