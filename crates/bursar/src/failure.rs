//! How a verb ends when it does not succeed: words for a person, and an exit code for a script.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use bursar_engine::EngineError;
use bursar_files::{FileError, io_remedy};
use bursar_search::SearchError;

use crate::config::ConfigError;

/// On narrower terminals texts are left as they are.
const NARROWEST: usize = 40;

/// What an exit code says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// 1: something went wrong.
    Failed,
    /// 2: what was typed or configured cannot be done.
    Usage,
    /// 3: the memory budget does not hold it.
    DoesNotFit,
    /// 0: whoever read the output has seen enough.
    ReaderGone,
}

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    help: Vec<String>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
            help: Vec::new(),
        }
    }

    /// Something went wrong.
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Failed, message)
    }

    /// What was typed cannot be done.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// The budget does not hold it.
    pub(crate) fn does_not_fit(message: impl Into<String>) -> Failure {
        Failure::new(Kind::DoesNotFit, message)
    }

    /// Reading or writing a file failed: what was done, to which file.
    pub(crate) fn io(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
        let message = format!("cannot {doing} {}: {error}", path.display());
        Failure::failed(message).system(error)
    }

    /// Writing to stdout failed. A reader that went away (`bursar show | head`) is no failure.
    pub(crate) fn stdout(error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(Kind::ReaderGone, ""),
            _ => Failure::failed(format!("cannot write to stdout: {error}")),
        }
    }

    /// Adds something that can be done about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Failure {
        self.help.push(help.into());
        self
    }

    /// Adds what can be done where the system refuses a file.
    fn system(self, error: &io::Error) -> Failure {
        match io_remedy(error) {
            Some(remedy) => self.help(remedy),
            None => self,
        }
    }

    /// Adds several things of which any would do.
    pub(crate) fn helps<'a>(mut self, help: impl IntoIterator<Item = &'a String>) -> Failure {
        self.help.extend(help.into_iter().cloned());
        self
    }

    /// What went wrong, in words.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What can be done about it.
    pub(crate) fn remedies(&self) -> &[String] {
        &self.help
    }

    /// Prints it to stderr and gives the exit code.
    pub(crate) fn print(&self) -> ExitCode {
        let code = match self.kind {
            Kind::ReaderGone => return ExitCode::SUCCESS,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::DoesNotFit => 3,
        };
        let columns = columns();
        eprintln!("{}", laid_out("error", &self.message, columns));
        for help in &self.help {
            eprintln!("{}", laid_out("help", help, columns));
        }
        ExitCode::from(code)
    }
}

/// Columns of the terminal that errors go to; `None` where they go elsewhere, and lines stay whole.
fn columns() -> Option<usize> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    Some(usize::from(columns))
}

/// A text behind its label. On a terminal lines end between words, and go on below the text, not below the
/// label; a word that has no room, such as a path, stays whole.
fn laid_out(label: &str, text: &str, columns: Option<usize>) -> String {
    let label = format!("{label}: ");
    let Some(columns) = columns.filter(|columns| *columns >= NARROWEST) else {
        return format!("{label}{text}");
    };
    let below = " ".repeat(label.len());
    let mut out = String::new();
    for (place, line) in text.split('\n').enumerate() {
        let before = if place == 0 { &label } else { &below };
        let indent = line.len() - line.trim_start().len();
        let margin = label.len() + indent;
        if place > 0 {
            out.push('\n');
        }
        out.push_str(before);
        out.push_str(&line[..indent]);
        let mut used = margin;
        for word in line[indent..].split(' ') {
            let wide = word.chars().count();
            if used > margin && used + 1 + wide > columns {
                out.push('\n');
                out.push_str(&" ".repeat(margin));
                used = margin;
            } else if used > margin {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += wide;
        }
    }
    out
}

/// Prints what clap has to say about the arguments: help on stdout, refusals on stderr.
pub(crate) fn print_usage(refusal: &clap::Error) -> ExitCode {
    if refusal.kind() == clap::error::ErrorKind::InvalidUtf8
        && let Some(failure) = not_text(std::env::args_os())
    {
        return failure.print();
    }
    // Where the text cannot be written, the code still says what happened.
    let _ = refusal.print();
    ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(2))
}

/// Names the first argument that is not text: clap only says that there is one.
fn not_text(arguments: impl Iterator<Item = OsString>) -> Option<Failure> {
    let mut arguments = arguments.enumerate();
    let (place, argument) = arguments.find(|(_, argument)| argument.to_str().is_none())?;
    let bytes = argument.as_encoded_bytes();
    let at = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let message = format!("argument {place}, {argument:?}, is not UTF-8 text (byte {at})");
    let help = "give text here; a file of another name can be renamed, or reached by a link";
    Some(Failure::usage(message).help(help))
}

/// An error and what caused it, in one line; a cause that the error already quotes is left out.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(with_causes(&error)).help(error.remedy())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        let kind = match &error {
            FileError::UnknownName { .. } => Kind::Usage,
            _ => Kind::Failed,
        };
        Failure::new(kind, with_causes(&error))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        let kind = match &error {
            error if error.does_not_fit() => Kind::DoesNotFit,
            EngineError::Setting { .. } | EngineError::PromptName { .. } => Kind::Usage,
            EngineError::Sampling(_) => Kind::Usage,
            _ => Kind::Failed,
        };
        Failure::new(kind, with_causes(&error))
    }
}

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Failure {
        let text = with_causes(&error);
        match error.does_not_fit() {
            true => Failure::does_not_fit(text).help("search fewer files, or give more --memory"),
            false => match &error {
                SearchError::Path { source, .. } | SearchError::Io { source, .. } => {
                    Failure::failed(text).system(source)
                }
                _ => Failure::failed(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Quoting(#[source] std::io::Error);

    #[test]
    fn texts_end_their_lines_between_words() {
        let text = "cannot read /a/path/that/is/longer/than/the/terminal/has/columns: no such\n  file of yours";
        let whole = format!("error: {text}");
        assert_eq!(laid_out("error", text, None), whole);
        assert_eq!(laid_out("error", text, Some(20)), whole);
        assert_eq!(
            laid_out("error", text, Some(40)),
            "error: cannot read\n       \
             /a/path/that/is/longer/than/the/terminal/has/columns:\n       \
             no such\n         file of yours"
        );
        let help = laid_out(
            "help",
            "give more of everything that there is, or less",
            Some(40),
        );
        assert_eq!(
            help,
            "help: give more of everything that there\n      is, or less"
        );
    }

    #[test]
    fn causes_are_told_once() {
        let io = || std::io::Error::other("disk on fire");
        assert_eq!(with_causes(&Outer(io())), "outer: disk on fire");
        assert_eq!(with_causes(&Quoting(io())), "outer: disk on fire");
    }
}
