//! Which argument is the model, which is the prompt, and what stdin adds to it.

use std::io::{IsTerminal, Read};
use std::path::Path;

use crate::config::{Settings, Surroundings};
use crate::failure::Failure;
use crate::model::{self, Found};

/// Most bytes read from stdin: more text than any context holds.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model, if one was named.
    pub(super) model: Option<Found>,
    /// The prompt; without one, a chat begins.
    pub(super) prompt: Option<String>,
}

/// Reads the arguments and, where it is not a terminal, stdin.
pub(super) fn asked(
    first: Option<&str>,
    second: Option<&str>,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<Asked, Failure> {
    let (model, prompt) = sort(first, second, settings, surroundings)?;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let chats = std::io::stdout().is_terminal();
        if prompt.is_none() && !chats {
            return Err(
                Failure::usage("there is no prompt, and stdout is no terminal to chat on")
                    .help("give a PROMPT"),
            );
        }
        return Ok(Asked {
            model,
            prompt: prompt.map(str::to_owned),
        });
    }
    let mut piped = Vec::new();
    stdin
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut piped)
        .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    if piped.len() as u64 > STDIN_BYTES_MAX {
        let limit = bursar_memory::Bytes(STDIN_BYTES_MAX);
        return Err(Failure::failed(format!("stdin is longer than {limit}"))
            .help("no model reads that much at once; pass a part of it"));
    }
    let piped = String::from_utf8(piped).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("stdin is not UTF-8 text (byte {at})"))
    })?;
    match join(prompt, &piped) {
        Some(prompt) => Ok(Asked {
            model,
            prompt: Some(prompt),
        }),
        None => Err(Failure::usage("there is no prompt, and stdin is empty").help("give a PROMPT")),
    }
}

/// One argument is a model if there is such a model, else it is the prompt: `bursar run "Hello"`
/// needs no model.
fn sort<'a>(
    first: Option<&'a str>,
    second: Option<&'a str>,
    settings: &Settings,
    surroundings: &Surroundings,
) -> Result<(Option<Found>, Option<&'a str>), Failure> {
    let Some(first) = first else {
        return Ok((None, None));
    };
    if second.is_some() || model::is_meant_as_model(first) {
        let found = model::find(Path::new(first), settings, surroundings)?;
        return Ok((Some(found), second));
    }
    let found = model::lookup(Path::new(first), settings, surroundings);
    match found.filter(model::is_model) {
        Some(found) => Ok((Some(found), None)),
        None => Ok((None, Some(first))),
    }
}

/// The prompt, a blank line, what was piped in; `None` if there is neither.
fn join(prompt: Option<&str>, piped: &str) -> Option<String> {
    let piped = piped.trim_end_matches(['\n', '\r']);
    match (prompt, piped.is_empty()) {
        (Some(prompt), true) => Some(prompt.to_owned()),
        (Some(prompt), false) => Some(format!("{prompt}\n\n{piped}")),
        (None, false) => Some(piped.to_owned()),
        (None, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_joins_the_prompt() {
        assert_eq!(
            join(Some("Sum up:"), "a\nb\n").as_deref(),
            Some("Sum up:\n\na\nb")
        );
        assert_eq!(join(Some("Hello"), "").as_deref(), Some("Hello"));
        assert_eq!(join(None, "Hello\n").as_deref(), Some("Hello"));
        assert_eq!(join(None, "\n"), None);
    }

    #[test]
    fn one_argument_is_a_model_if_there_is_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, "GGUF").expect("a file");
        let notes = folder.path().join("notes.txt");
        std::fs::write(&notes, "plain").expect("a file");
        let surroundings = Surroundings::default();
        let settings = Settings::resolve(&[], None, &surroundings).expect("settings");
        let sort = |first, second| sort(first, second, &settings, &surroundings).ok();
        let model = path.to_str();
        let found = || Some(Found::Path(path.clone()));
        assert_eq!(sort(model, None), Some((found(), None)));
        assert_eq!(sort(model, Some("Hi")), Some((found(), Some("Hi"))));
        assert_eq!(sort(Some("Hi"), None), Some((None, Some("Hi"))));
        assert_eq!(sort(notes.to_str(), None), Some((None, notes.to_str())));
        assert_eq!(sort(Some("missing.gguf"), None), None);
        assert_eq!(sort(Some("missing"), Some("Hi")), None);
    }
}
