//! Flag over environment over file over default: each setting is decided once, here, and remembers
//! where it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bursar_engine::Admission;
use bursar_kernels::isa::Isa;
use bursar_memory::{Bytes, MemorySpec};

use super::file::{self, FileError};
use super::nearest;
use super::table::{self, Fallback, Setting, TABLE};
use super::value::{Invalid, Value};

/// The variable that names the configuration file.
const CONFIG_ENV: &str = "BURSAR_CONFIG";
/// What all of our variables begin with.
const ENV_PREFIX: &str = "BURSAR_";
/// The files that are looked for in the current folder.
const FILES: [&str; 2] = ["bursar.toml", "bursar.yaml"];

/// What settings are resolved from besides the command line; passed in so that tests need not
/// change the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// The folder in which a configuration file is looked for.
    pub(crate) folder: PathBuf,
    /// Environment variables.
    pub(crate) variables: BTreeMap<OsString, OsString>,
}

impl Surroundings {
    /// This process's own.
    pub(crate) fn of_process() -> Surroundings {
        // A current folder that has been removed holds no configuration file either.
        let folder = std::env::current_dir().unwrap_or_default();
        Surroundings {
            folder,
            variables: std::env::vars_os().collect(),
        }
    }

    /// A variable that is set and not empty: an empty one is how many tools write "not set".
    pub(crate) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables
            .get(&OsString::from(name))
            .filter(|value| !value.is_empty())
    }

    /// A folder of the XDG base directory specification: the variable if it is an absolute path,
    /// else `fallback` in the home folder.
    pub(crate) fn xdg(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        let given = self
            .variable(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        given.or_else(|| Some(Path::new(self.variable("HOME")?).join(fallback)))
    }
}

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Environment(&'static str),
    /// A file and the line in it.
    File(PathBuf, usize),
    /// Nobody gave it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "--{flag}"),
            Origin::Environment(name) => f.write_str(name),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting with the value that holds.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    /// Which setting.
    pub(crate) setting: &'static Setting,
    /// Its value; `None` where the default is found out later.
    pub(crate) value: Option<Value>,
    /// Where that came from.
    pub(crate) origin: Origin,
}

/// Why settings could not be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("both {} and {} exist, and either could be meant", .0.display(), .1.display())]
    TwoFiles(PathBuf, PathBuf),
    #[error("{}:{line}: there is no setting {key}", path.display())]
    UnknownKey {
        path: PathBuf,
        line: usize,
        key: String,
    },
    #[error("{}:{line}: {key} is given twice, first in line {first}", path.display())]
    KeyTwice {
        path: PathBuf,
        line: usize,
        first: usize,
        key: &'static str,
    },
    #[error("there is no setting behind the environment variable {0}")]
    UnknownVariable(String),
    #[error("the environment variable {0} is not UTF-8 text")]
    VariableNotText(&'static str),
    #[error("{} = {text:?} ({origin}) is impossible: {}", setting.key, invalid.why)]
    Impossible {
        setting: &'static Setting,
        text: String,
        origin: Origin,
        invalid: Invalid,
    },
}

impl ConfigError {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            ConfigError::File(FileError::Unreadable { .. }) => {
                format!("give an existing file with --config or {CONFIG_ENV}, or neither")
            }
            ConfigError::File(FileError::NotAValue { .. }) => "write one number or text".into(),
            ConfigError::File(_) => "write it as TOML (bursar.toml) or YAML (bursar.yaml)".into(),
            ConfigError::TwoFiles(..) => "keep one of them, or say which with --config".into(),
            ConfigError::UnknownKey { key, .. } => {
                match nearest(key, TABLE.into_iter().map(|setting| setting.key)) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("there are: {}", list(|setting| setting.key)),
                }
            }
            ConfigError::KeyTwice { .. } => "remove one of the lines".into(),
            ConfigError::UnknownVariable(name) => {
                match nearest(name, TABLE.into_iter().map(|setting| setting.env)) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("unset it; there are: {}", list(|setting| setting.env)),
                }
            }
            ConfigError::VariableNotText(_) => "set it to plain text".into(),
            ConfigError::Impossible { invalid, .. } => invalid.remedy.clone(),
        }
    }
}

fn list(name: fn(&'static Setting) -> &'static str) -> String {
    TABLE.map(name).join(", ")
}

/// Every setting, decided.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    effective: Vec<Effective>,
    file: Option<PathBuf>,
}

impl Settings {
    /// Decides every setting: `given` on the command line, else in the environment, else in the
    /// file (`config` if given, else the one in the current folder, if any), else by default.
    pub(crate) fn resolve(
        given: &[(&'static Setting, String)],
        config: Option<&Path>,
        surroundings: &Surroundings,
    ) -> Result<Settings, ConfigError> {
        refuse_unknown_variables(surroundings)?;
        let file = match config {
            Some(path) => Some(path.to_owned()),
            None => configured_file(surroundings)?,
        };
        let entries = match &file {
            Some(path) => known_entries(path)?,
            None => Vec::new(),
        };
        let mut effective = Vec::with_capacity(TABLE.len());
        for setting in TABLE {
            let flag = given
                .iter()
                .find(|(other, _)| std::ptr::eq(*other, setting));
            let from_file = entries
                .iter()
                .find(|(other, ..)| std::ptr::eq(*other, setting));
            let (text, origin) = if let Some((_, text)) = flag {
                (Some(text.clone()), Origin::Flag(setting.flag))
            } else if let Some(text) = surroundings.variable(setting.env) {
                let text = text
                    .to_str()
                    .ok_or(ConfigError::VariableNotText(setting.env))?;
                (Some(text.to_owned()), Origin::Environment(setting.env))
            } else if let Some((_, text, line)) = from_file {
                let path = file.clone().unwrap_or_default();
                (Some(text.clone()), Origin::File(path, *line))
            } else {
                let text = match setting.default {
                    Fallback::Value(text) => Some(text.to_owned()),
                    Fallback::Derived(_) => None,
                };
                (text, Origin::Default)
            };
            let value = match text {
                Some(text) => {
                    Some(
                        (setting.read)(&text).map_err(|invalid| ConfigError::Impossible {
                            setting,
                            text,
                            origin: origin.clone(),
                            invalid,
                        })?,
                    )
                }
                None => None,
            };
            effective.push(Effective {
                setting,
                value,
                origin,
            });
        }
        Ok(Settings { effective, file })
    }

    /// All settings in the order of the table.
    pub(crate) fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// The configuration file that was read.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The same for a verb that runs one sequence whatever `parallel` says.
    pub(crate) fn with_one_sequence(&self) -> Settings {
        let mut settings = self.clone();
        for effective in &mut settings.effective {
            if std::ptr::eq(effective.setting, &table::PARALLEL) {
                effective.value = Some(Value::Count(1));
            }
        }
        settings
    }

    fn of(&self, setting: &'static Setting) -> Option<&Effective> {
        self.effective
            .iter()
            .find(|effective| std::ptr::eq(effective.setting, setting))
    }

    pub(super) fn value(&self, setting: &'static Setting) -> Option<&Value> {
        self.of(setting)?.value.as_ref()
    }

    pub(super) fn count(&self, setting: &'static Setting) -> Option<usize> {
        match self.value(setting)? {
            Value::Count(count) => Some(*count),
            _ => None,
        }
    }

    pub(super) fn path(&self, setting: &'static Setting) -> Option<&Path> {
        match self.value(setting)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    /// A size, where a share is of `budget`.
    pub(super) fn size(&self, setting: &'static Setting, budget: Bytes) -> Option<Bytes> {
        match self.value(setting)? {
            Value::Memory(spec) => Some(spec.resolve(budget)),
            _ => None,
        }
    }

    /// The budget as written and where; `None` if it is to be detected.
    pub(crate) fn memory(&self) -> Option<(MemorySpec, &Origin)> {
        let effective = self.of(&table::MEMORY)?;
        match effective.value.as_ref()? {
            Value::Memory(spec) => Some((*spec, &effective.origin)),
            _ => None,
        }
    }

    /// Longest one sequence may become.
    pub(crate) fn context(&self) -> Option<usize> {
        self.count(&table::CONTEXT)
    }

    /// Sequences that run at once.
    pub(crate) fn parallel(&self) -> usize {
        self.count(&table::PARALLEL).unwrap_or(1)
    }

    /// Most tokens in one pass.
    pub(crate) fn batch_tokens(&self) -> Option<usize> {
        self.count(&table::BATCH_TOKENS)
    }

    /// Threads that compute: as given, else one for each core this process may use.
    pub(crate) fn threads(&self) -> usize {
        self.count(&table::THREADS)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get()))
    }

    /// Which vector instructions to use.
    pub(crate) fn isa(&self) -> Isa {
        match self.value(&table::ISA) {
            Some(Value::Isa(isa)) => *isa,
            _ => Isa::best(),
        }
    }

    /// Whether somebody said how many sequences run at once.
    pub(crate) fn parallel_is_given(&self) -> bool {
        self.of(&table::PARALLEL)
            .is_some_and(|effective| effective.origin != Origin::Default)
    }

    /// How sequences are granted their blocks.
    pub(crate) fn admission(&self) -> Admission {
        match self.value(&table::ADMISSION) {
            Some(Value::Admission(admission)) => *admission,
            _ => Admission::Grow,
        }
    }

    /// Where the server listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        match self.value(&table::LISTEN) {
            Some(Value::Address(address)) => *address,
            _ => SocketAddr::from(([127, 0, 0, 1], 8080)),
        }
    }

    /// The file with the keys of the server's clients.
    pub(crate) fn api_key_file(&self) -> Option<&Path> {
        self.path(&table::API_KEY_FILE)
    }

    /// The file with tenants and their keys.
    pub(crate) fn tenants_file(&self) -> Option<&Path> {
        self.path(&table::TENANTS_FILE)
    }

    /// How long running requests may take to finish.
    pub(crate) fn drain(&self) -> Duration {
        match self.value(&table::DRAIN) {
            Some(Value::Time(time)) => *time,
            _ => Duration::from_secs(30),
        }
    }

    /// Requests that may wait.
    pub(crate) fn limits_queue(&self) -> usize {
        self.count(&table::LIMITS_QUEUE).unwrap_or(64)
    }

    /// Most bytes of a request, where a share is of `budget`.
    pub(crate) fn limits_body(&self, budget: Bytes) -> Option<Bytes> {
        self.size(&table::LIMITS_BODY, budget)
    }

    /// Most headers of a request.
    pub(crate) fn limits_headers(&self) -> usize {
        self.count(&table::LIMITS_HEADERS).unwrap_or(64)
    }

    /// Levels that JSON may be nested.
    pub(crate) fn limits_json_depth(&self) -> usize {
        self.count(&table::LIMITS_JSON_DEPTH).unwrap_or(64)
    }

    /// The folder in which model names are looked up.
    pub(crate) fn models_dir(&self, surroundings: &Surroundings) -> Option<PathBuf> {
        match self.path(&table::MODELS_DIR) {
            Some(path) => Some(path.to_owned()),
            None => Some(
                surroundings
                    .xdg("XDG_DATA_HOME", ".local/share")?
                    .join("bursar/models"),
            ),
        }
    }
}

/// Refuses a variable of ours that no setting has: a budget misspelt must not mean no budget.
fn refuse_unknown_variables(surroundings: &Surroundings) -> Result<(), ConfigError> {
    for name in surroundings
        .variables
        .keys()
        .filter_map(|name| name.to_str())
    {
        // Kubernetes gives every container such variables for a service that is called bursar.
        let service = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
            .iter()
            .any(|mark| name.ends_with(mark) || name.contains(&format!("{mark}_")));
        let known = name == CONFIG_ENV || TABLE.iter().any(|setting| setting.env == name);
        if name.starts_with(ENV_PREFIX) && !known && !service {
            return Err(ConfigError::UnknownVariable(name.to_owned()));
        }
    }
    Ok(())
}

fn configured_file(surroundings: &Surroundings) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = surroundings.variable(CONFIG_ENV) {
        return Ok(Some(PathBuf::from(path)));
    }
    let present = |name: &&str| surroundings.folder.join(name).exists();
    // Named without the folder: that is how the user sees it.
    let mut found = FILES.into_iter().filter(present).map(PathBuf::from);
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(ConfigError::TwoFiles(first, second)),
        (found, _) => Ok(found.map(|name| {
            let here = std::env::current_dir().is_ok_and(|folder| folder == surroundings.folder);
            if here {
                name
            } else {
                surroundings.folder.join(name)
            }
        })),
    }
}

fn known_entries(path: &Path) -> Result<Vec<(&'static Setting, String, usize)>, ConfigError> {
    let mut known: Vec<(&'static Setting, String, usize)> = Vec::new();
    for entry in file::read(path)? {
        let path = path.to_owned();
        let Some(setting) = table::by_key(&entry.key) else {
            return Err(ConfigError::UnknownKey {
                path,
                line: entry.line,
                key: entry.key,
            });
        };
        if let Some((.., first)) = known
            .iter()
            .find(|(other, ..)| std::ptr::eq(*other, setting))
        {
            let (line, first) = (entry.line, *first);
            return Err(ConfigError::KeyTwice {
                path,
                line,
                first,
                key: setting.key,
            });
        }
        known.push((setting, entry.text, entry.line));
    }
    Ok(known)
}

#[cfg(test)]
impl Settings {
    /// What these flags make of the defaults.
    pub(crate) fn given(given: &[(&'static Setting, &str)]) -> Settings {
        let given = given
            .iter()
            .map(|(setting, text)| (*setting, (*text).to_owned()));
        let given: Vec<_> = given.collect();
        Settings::resolve(&given, None, &Surroundings::default()).expect("settings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_kernels::kv_view::KvDtype;

    struct Case {
        folder: tempfile::TempDir,
        surroundings: Surroundings,
    }

    fn case(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Case {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file is written");
        }
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let surroundings = Surroundings {
            folder: folder.path().to_owned(),
            variables,
        };
        Case {
            folder,
            surroundings,
        }
    }

    fn resolve(case: &Case, flags: &[(&'static Setting, &str)]) -> Result<Settings, ConfigError> {
        let given: Vec<_> = flags
            .iter()
            .map(|(setting, text)| (*setting, (*text).into()))
            .collect();
        Settings::resolve(&given, None, &case.surroundings)
    }

    #[track_caller]
    fn refused(case: &Case, message: &str, remedy: &str) {
        let error = resolve(case, &[]).expect_err(message);
        assert!(
            error.to_string().contains(message),
            "{error} does not say {message}"
        );
        assert!(
            error.remedy().contains(remedy),
            "{} does not say {remedy}",
            error.remedy()
        );
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let files = [(
            "bursar.toml",
            "memory = '1GiB'\nparallel = 3\nkv.dtype = 'f32'\n",
        )];
        let case = case(
            &files,
            &[("BURSAR_MEMORY", "2GiB"), ("BURSAR_PARALLEL", "4")],
        );
        let settings = resolve(&case, &[(&table::MEMORY, "3GiB")]).expect("settings");
        let memory = MemorySpec::Bytes(Bytes::gib(3));
        assert_eq!(settings.memory(), Some((memory, &Origin::Flag("memory"))));
        assert_eq!(settings.parallel(), 4);
        assert_eq!(settings.kv_dtype_k(), KvDtype::F32);
        assert_eq!(settings.kv_block_tokens(), 16);
        let origins: Vec<_> = settings
            .effective()
            .iter()
            .map(|e| e.origin.clone())
            .collect();
        assert_eq!(origins[0], Origin::Flag("memory"));
        assert_eq!(origins[2], Origin::Environment("BURSAR_PARALLEL"));
        assert_eq!(
            origins[4],
            Origin::File(case.folder.path().join("bursar.toml"), 3)
        );
        assert_eq!(origins[6], Origin::Default);
    }

    #[test]
    fn a_value_that_loses_is_not_even_read() {
        let case = case(
            &[("bursar.yaml", "parallel: many\n")],
            &[("BURSAR_PARALLEL", "2")],
        );
        assert_eq!(resolve(&case, &[]).expect("settings").parallel(), 2);
    }

    #[test]
    fn the_file_can_be_named() {
        let case = case(
            &[
                ("other.yaml", "threads: 7\n"),
                ("bursar.toml", "threads = 5\n"),
            ],
            &[],
        );
        let path = case.folder.path().join("other.yaml");
        let settings = Settings::resolve(&[], Some(&path), &case.surroundings).expect("settings");
        assert_eq!(settings.threads(), 7);
        assert_eq!(settings.file(), Some(path.as_path()));
        let mut surroundings = case.surroundings.clone();
        surroundings
            .variables
            .insert(CONFIG_ENV.into(), path.into());
        let settings = Settings::resolve(&[], None, &surroundings).expect("settings");
        assert_eq!(settings.threads(), 7);
    }

    #[test]
    fn mistakes_name_the_key_the_place_and_the_remedy() {
        refused(
            &case(&[("bursar.toml", "\nmemroy = '1GiB'\n")], &[]),
            "bursar.toml:2: there is no setting memroy",
            "did you mean memory?",
        );
        refused(
            &case(&[("bursar.yaml", "kv:\n  dtpye: f16\n")], &[]),
            "bursar.yaml:2: there is no setting kv.dtpye",
            "did you mean kv.dtype?",
        );
        refused(
            &case(&[("bursar.toml", "colour = 'red'\n")], &[]),
            "no setting colour",
            "there are: memory, context",
        );
        refused(
            &case(&[("bursar.toml", "kv.dtype = 'f8'\n")], &[]),
            "bursar.toml:1) is impossible",
            "f32, f16, bf16",
        );
        refused(
            &case(&[], &[("BURSAR_CONTEXT", "0")]),
            "context = \"0\" (BURSAR_CONTEXT) is impossible: 0 is less than 1",
            "whole number",
        );
        refused(
            &case(&[], &[("BURSAR_MEMROY", "1GB")]),
            "BURSAR_MEMROY",
            "mean BURSAR_MEMORY?",
        );
        refused(
            &case(&[("bursar.toml", ""), ("bursar.yaml", "")], &[]),
            "both bursar.toml and bursar.yaml exist",
            "--config",
        );
        refused(
            &case(
                &[("bursar.yaml", "kv.dtype: f16\nkv:\n  dtype: f32\n")],
                &[],
            ),
            "bursar.yaml:3: kv.dtype is given twice, first in line 1",
            "remove one",
        );
    }

    #[test]
    fn what_is_not_ours_in_the_environment_is_left_alone() {
        let variables = [
            ("BURSAR_SERVICE_HOST", "10.0.0.1"),
            ("BURSAR_SERVICE_PORT_HTTP", "80"),
            ("BURSAR_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("BURSAR_PORT", "tcp://10.0.0.1:8080"),
            ("BURSAR_MEMORY", ""),
            ("BURSARY", "yes"),
        ];
        assert_eq!(
            resolve(&case(&[], &variables), &[])
                .expect("settings")
                .memory(),
            None
        );
    }
}
