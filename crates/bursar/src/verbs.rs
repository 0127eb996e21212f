//! One file per verb, and what is handed to each of them.

pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod man;
pub(crate) mod membranes;
pub(crate) mod memory;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod synth;
pub(crate) mod top;
pub(crate) mod tune;
pub(crate) mod version;

use std::path::PathBuf;

use bursar_memory::counting::{HeapCounts, ProcessAllocator};

use crate::config::{SettingFlags, Settings, Surroundings, TakesSettings};
use crate::failure::Failure;
use crate::progress::Progress;

/// What every verb gets beside its own arguments.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration file given with `--config`.
    pub(crate) config: Option<PathBuf>,
    /// Whether progress is shown.
    pub(crate) progress: Progress,
    /// Environment and current folder.
    pub(crate) surroundings: Surroundings,
    /// What the process allocator has handed out.
    pub(crate) heap: fn() -> HeapCounts,
    /// The process allocator, for who watches it.
    pub(crate) allocator: &'static ProcessAllocator,
}

impl Shared {
    /// Decides all settings: the verb's flags first, then environment, file and defaults.
    pub(crate) fn settings<T: TakesSettings>(
        &self,
        flags: &SettingFlags<T>,
    ) -> Result<Settings, Failure> {
        Ok(Settings::resolve(
            flags.given(),
            self.config.as_deref(),
            &self.surroundings,
        )?)
    }
}
