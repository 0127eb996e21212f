//! Settings: declared once in [`table`], given on the command line, in the environment or in a
//! file, resolved once into [`Settings`] and handed down from there.
//!
//! - `table`: every setting with its key, default, reader and help.
//! - `value`: what a setting's value may be and how it is read.
//! - `flags`: the settings that a verb takes as flags.
//! - `file`: `bursar.toml` and `bursar.yaml` as flat entries with their lines.
//! - `resolve`: flag over environment over file over default.
//! - `kv`, `embed`, `models`, `monitor`, `pools`, `turns`: what the settings of the cache, of batches of
//!   texts, of models, of the monitor, of pools and of turns come to.
//! - `weights`: what is asked of weights.
//! - `suggest`: what a mistyped name may have meant.

mod embed;
mod file;
pub(crate) mod flags;
mod kv;
mod models;
mod monitor;
mod pools;
mod resolve;
mod suggest;
pub(crate) mod table;
mod turns;
pub(crate) mod value;
mod weights;

pub(crate) use flags::{SettingFlags, TakesSettings};
pub(crate) use resolve::{ConfigError, Origin, Settings, Surroundings};
pub(crate) use suggest::nearest;
pub(crate) use value::duration;
