//! Runs the program in an empty folder with an empty environment, and checks what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to run in; home, cache and data folders are in it too.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder is made");
        std::fs::write(&path, text).expect("a file is written");
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect(name)
    }

    /// Names of all files in the folder itself.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// A command of any program in this place.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null());
        command.env("HOME", self.folder.path());
        command
    }

    /// Runs `bursar` with these arguments, divided at blanks.
    pub(crate) fn bursar(&self, arguments: &str) -> Ran {
        self.bursar_with(&[], &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The same with environment variables and arguments as they are.
    pub(crate) fn bursar_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(arguments).envs(variables.iter().copied());
        Ran::of(command.output().expect("the program starts"))
    }

    /// The same with something on stdin.
    pub(crate) fn bursar_fed(&self, stdin: &str, arguments: &[&str]) -> Ran {
        let input = self.write(".stdin", stdin);
        let mut command = self.command(PROGRAM);
        command
            .args(arguments)
            .stdin(std::fs::File::open(input).expect("the input"));
        Ran::of(command.output().expect("the program starts"))
    }
}

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bursar");

/// A fixture's path.
pub(crate) fn model(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    fixtures.join(name).to_string_lossy().into_owned()
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("stdout is text"),
            stderr: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }

    /// It succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with this code and said all of these on stderr.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in says {
            assert!(
                self.stderr.contains(part),
                "{part:?} is missing from\n{}",
                self.stderr
            );
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Stdout says all of these.
    #[track_caller]
    pub(crate) fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(
                self.stdout.contains(part),
                "{part:?} is missing from\n{}",
                self.stdout
            );
        }
    }
}
