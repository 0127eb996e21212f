//! What an error must say, and the page that lists all of them.

use std::fmt::Write;
use std::path::Path;

use crate::support::Ran;

/// What a message must contain.
pub(crate) struct Says {
    pub(crate) what: &'static str,
    pub(crate) place: &'static str,
    /// How much, where that is a question.
    pub(crate) figure: Option<&'static str>,
    pub(crate) remedy: &'static str,
}

pub(crate) const fn says(
    what: &'static str,
    place: &'static str,
    figure: &'static str,
    remedy: &'static str,
) -> Says {
    Says {
        what,
        place,
        figure: if figure.is_empty() {
            None
        } else {
            Some(figure)
        },
        remedy,
    }
}

/// An error that has been provoked.
pub(crate) struct Told {
    title: &'static str,
    /// What was done.
    how: String,
    /// The exit code, or the status.
    came: String,
    message: String,
    says: Says,
}

impl Told {
    pub(crate) fn new(
        title: &'static str,
        how: impl Into<String>,
        came: impl Into<String>,
        message: impl Into<String>,
        says: Says,
    ) -> Told {
        Told {
            title,
            how: how.into(),
            came: came.into(),
            message: message.into(),
            says,
        }
    }

    /// From a run of the program: what it says of errors and help, as far as it ended with `code`.
    pub(crate) fn ran(title: &'static str, how: &str, ran: &Ran, code: i32, says: Says) -> Told {
        assert_eq!(ran.code, Some(code), "{how}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{how}: {ran:?}");
        let begins = |line: &&str| line.starts_with("error: ") || line.starts_with("help: ");
        let clap = ran.stderr.contains("Usage: ");
        let words = |line: &&str| begins(line) || (clap && !line.is_empty());
        let lines: Vec<&str> = ran.stderr.lines().filter(words).collect();
        Told::new(
            title,
            format!("$ {how}"),
            format!("exit code {code}"),
            lines.join("\n"),
            says,
        )
    }

    /// With sizes that differ from build to build left out.
    pub(crate) fn about_this_process(mut self) -> Told {
        self.message = without_sizes(&self.message);
        self
    }

    /// With a word that differs from machine to machine replaced.
    pub(crate) fn without(mut self, found: &str, shown: &str) -> Told {
        self.message = self.message.replace(found, shown);
        self.how = self.how.replace(found, shown);
        self
    }

    /// What it fails to say.
    fn lacks(&self) -> impl Iterator<Item = String> {
        let Says {
            what,
            place,
            figure,
            remedy,
        } = self.says;
        let asked = [("what", what), ("where", place), ("the remedy", remedy)];
        let figure = figure.map(|figure| ("how much", figure));
        let lacks = asked.into_iter().chain(figure).filter(|(_, part)| {
            assert!(!part.is_empty(), "{}: nothing is asked", self.title);
            !self.message.contains(part)
        });
        lacks.map(|(asked, part)| {
            let Told { title, message, .. } = self;
            format!("{title}: {asked} is not told, {part:?}:\n{message}")
        })
    }
}

/// Errors of one kind.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) words: &'static str,
    pub(crate) told: Vec<Told>,
}

impl Section {
    /// What its errors fail to say.
    pub(crate) fn lacks(&self) -> impl Iterator<Item = String> {
        self.told.iter().flat_map(Told::lacks)
    }
}

/// Replaces every size in a text by one without figures.
fn without_sizes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = from.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ','));
        let (number, after) = from.split_at(end.unwrap_or(from.len()));
        let unit = after.strip_prefix(' ').unwrap_or(after);
        let size = ["B ", "B,", "B;", "KiB", "MiB", "GiB"]
            .iter()
            .any(|u| unit.starts_with(u));
        out.push_str(if size { "N" } else { number });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn write(sections: &[Section]) -> String {
    let mut out = String::from(
        "# Errors\n\n\
         Every kind of error that Bursar tells its users, as it was provoked by the test that wrote this \
         page\n(`BURSAR_WRITE_ERRORS=1 cargo test -p bursar --test errors`). Each says what is wrong, where, \
         by how much, and\nwhat to do. Sizes that depend on the build are written `N`.\n",
    );
    for section in sections {
        let _ = write!(out, "\n## {}\n\n{}\n", section.title, section.words);
        for told in &section.told {
            let Told {
                title,
                how,
                came,
                message,
                ..
            } = told;
            let _ = write!(
                out,
                "\n### {title}\n\n{came}\n\n```text\n{how}\n{message}\n```\n"
            );
        }
    }
    out
}

/// The committed page says the same, or is written anew.
pub(crate) fn compare(sections: &[Section]) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let text = write(sections);
    if std::env::var_os("BURSAR_WRITE_ERRORS").is_some() {
        std::fs::write(&page, text).expect("the page is written");
        return;
    }
    let there = std::fs::read_to_string(&page).unwrap_or_default();
    for (line, (there, now)) in (1..).zip(there.lines().zip(text.lines())) {
        assert_eq!(
            there, now,
            "docs/reference/errors.md:{line} is out of date; write it anew with \
             `BURSAR_WRITE_ERRORS=1 cargo test -p bursar --test errors`"
        );
    }
    assert_eq!(
        there.len(),
        text.len(),
        "docs/reference/errors.md is out of date; write it anew with \
         `BURSAR_WRITE_ERRORS=1 cargo test -p bursar --test errors`"
    );
}
