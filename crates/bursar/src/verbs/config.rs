//! `bursar config`: every setting, the value that holds and where it came from.

use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::budget;
use crate::config::table::{self, Fallback, Setting, TABLE};
use crate::config::{Origin, SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// All settings, to see what a command line would come to.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &TABLE;
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let mut out = Out::new();
    if arguments.json {
        print_json(&settings, shared, &mut out)?;
    } else {
        print_table(&settings, shared, &mut out)?;
    }
    out.flush()
}

fn print_table(settings: &Settings, shared: &Shared, out: &mut Out) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("SETTING", Align::Left),
        ("VALUE", Align::Left),
        ("FROM", Align::Left),
    ]);
    for effective in settings.effective() {
        let (value, from) = match (&effective.value, effective.setting.default) {
            (Some(value), _) => (value.to_string(), effective.origin.to_string()),
            (None, Fallback::Derived(words)) => {
                let value = derived(effective.setting, settings, shared);
                let value = value.map_or_else(|| "auto".to_owned(), |value| value.1);
                (value, format!("{}: {words}", effective.origin))
            }
            // A default that is a value has been read into one.
            (None, Fallback::Value(text)) => (text.to_owned(), effective.origin.to_string()),
        };
        table.row([effective.setting.key.to_owned(), value, from]);
    }
    out.line(table)?;
    if let Some(file) = settings.file() {
        out.line(format_args!("\nfile: {}", file.display()))?;
    }
    Ok(())
}

fn print_json(settings: &Settings, shared: &Shared, out: &mut Out) -> Result<(), Failure> {
    let mut rows = serde_json::Map::new();
    for effective in settings.effective() {
        let value = match &effective.value {
            Some(value) => value.to_json(),
            None => derived(effective.setting, settings, shared).map_or(json!(null), |it| it.0),
        };
        let mut row = json!({ "value": value });
        let from = match &effective.origin {
            Origin::Flag(flag) => json!({ "from": "flag", "flag": format!("--{flag}") }),
            Origin::Environment(name) => json!({ "from": "environment", "variable": name }),
            Origin::File(path, line) => {
                json!({ "from": "file", "path": path.to_string_lossy(), "line": line })
            }
            Origin::Default => json!({ "from": "default" }),
        };
        if let (Some(row), serde_json::Value::Object(from)) = (row.as_object_mut(), from) {
            row.extend(from);
            if let Fallback::Derived(words) = effective.setting.default
                && effective.value.is_none()
            {
                row.insert("meaning".into(), words.into());
            }
        }
        rows.insert(effective.setting.key.to_owned(), row);
    }
    let file = settings.file().map(|path| path.to_string_lossy());
    out.json(&json!({ "file": file, "settings": rows }))
}

/// The value of a setting that was not given, as JSON and as text, where it is known before a model
/// is.
fn derived(
    setting: &'static Setting,
    settings: &Settings,
    shared: &Shared,
) -> Option<(serde_json::Value, String)> {
    let is = |other: &'static Setting| std::ptr::eq(setting, other);
    if is(&table::MEMORY) {
        let bytes = budget::detected(Path::new("/")).ok()?.bytes;
        Some((bytes.get().into(), bytes.to_string()))
    } else if is(&table::THREADS) {
        let threads = settings.threads();
        Some((threads.into(), threads.to_string()))
    } else if is(&table::ISA) {
        let name = settings.isa().name();
        Some((name.into(), name.to_owned()))
    } else if is(&table::KV_BLOCK_TOKENS) {
        let tokens = settings.kv_block_tokens();
        Some((tokens.into(), tokens.to_string()))
    } else if is(&table::KV_DTYPE_K) || is(&table::KV_DTYPE_V) {
        let dtype = match is(&table::KV_DTYPE_K) {
            true => settings.kv_dtype_k(),
            false => settings.kv_dtype_v(),
        };
        Some((dtype.name().into(), dtype.name().to_owned()))
    } else if is(&table::MODELS_DIR) {
        let path = settings.models_dir(&shared.surroundings)?;
        let text = path.to_string_lossy().into_owned();
        Some((text.clone().into(), text))
    } else {
        None
    }
}
