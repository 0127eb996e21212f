//! The settings of the cache of keys and values: what each comes to where another decides its
//! default.

use std::path::PathBuf;

use bursar_engine::{CompactionOptions, EngineOptions, SpillOptions};
use bursar_kernels::kv_view::KvDtype;
use bursar_kv::Preset;
use bursar_memory::Bytes;

use super::resolve::Settings;
use super::table::{self, Setting};
use super::value::Value;

/// Tokens of a block where neither it nor a preset is given.
const BLOCK_TOKENS: usize = 16;

impl Settings {
    /// The size of the cache by name; `None` if it is custom.
    pub(crate) fn kv_preset(&self) -> Option<Preset> {
        match self.value(&table::KV_PRESET) {
            Some(Value::Preset(preset)) => *preset,
            _ => None,
        }
    }

    /// Tokens in one block: as given, else as the preset says.
    pub(crate) fn kv_block_tokens(&self) -> usize {
        let preset = || self.kv_preset().map(Preset::block_tokens);
        let given = self.count(&table::KV_BLOCK_TOKENS);
        given.or_else(preset).unwrap_or(BLOCK_TOKENS)
    }

    /// How keys are stored.
    pub(crate) fn kv_dtype_k(&self) -> KvDtype {
        self.dtype(&table::KV_DTYPE_K)
    }

    /// How values are stored.
    pub(crate) fn kv_dtype_v(&self) -> KvDtype {
        self.dtype(&table::KV_DTYPE_V)
    }

    pub(super) fn switch(&self, setting: &'static Setting) -> bool {
        matches!(self.value(setting), Some(Value::Switch(true)))
    }

    fn dtype(&self, setting: &'static Setting) -> KvDtype {
        match self.value(setting).or_else(|| self.value(&table::KV_DTYPE)) {
            Some(Value::KvDtype(dtype)) => *dtype,
            _ => KvDtype::F16,
        }
    }

    /// How engines run, where shares of memory are of `budget`. What is kept from run to run is one
    /// model's; [`Settings::kv_keep`] says whose.
    pub(crate) fn engine_options(&self, budget: Bytes) -> EngineOptions {
        let contiguous = self.switch(&table::KV_CONTIGUOUS);
        let share = |setting, otherwise| match self.value(setting) {
            Some(Value::Share(share)) => *share,
            _ => otherwise,
        };
        let usual = CompactionOptions::default();
        let compaction = CompactionOptions {
            fragmentation: share(&table::KV_COMPACTION_FRAGMENTATION, usual.fragmentation),
            efficiency: share(&table::KV_COMPACTION_EFFICIENCY, usual.efficiency),
            bytes_per_step: self
                .size(&table::KV_COMPACTION_BYTES_PER_STEP, budget)
                .unwrap_or(usual.bytes_per_step),
        };
        let spill = self.path(&table::KV_SPILL).map(|dir| SpillOptions {
            dir: dir.to_owned(),
            bytes: self
                .size(&table::KV_SPILL_BYTES, budget)
                .unwrap_or(Bytes::gib(1)),
        });
        EngineOptions {
            admission: self.admission(),
            queue: self.limits_queue(),
            contiguous,
            prefix_cache: self.switch(&table::KV_PREFIX_CACHE) && !contiguous,
            compaction: self
                .switch(&table::KV_COMPACTION_ENABLED)
                .then_some(compaction),
            spill,
            batches: self.batches(),
            ..EngineOptions::default()
        }
    }

    /// The file in which the cached prefixes of a model are kept: as given, with the model's name
    /// added where there are `several` that write text.
    pub(crate) fn kv_keep(&self, model: &str, several: bool) -> Option<PathBuf> {
        let path = self.path(&table::KV_KEEP)?;
        let mut name = path.as_os_str().to_owned();
        if several {
            name.push(format!(".{model}"));
        }
        Some(PathBuf::from(name))
    }

    /// Bytes for keys and values, where a share is of `budget`.
    pub(crate) fn kv_memory(&self, budget: Bytes) -> Option<Bytes> {
        self.size(&table::KV_MEMORY, budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_beats_the_preset_and_the_common_type() {
        let plain = Settings::given(&[]);
        assert_eq!(plain.kv_preset(), None);
        assert_eq!(plain.kv_block_tokens(), 16);
        let large = Settings::given(&[(&table::KV_PRESET, "large")]);
        assert_eq!(large.kv_preset(), Some(Preset::Large));
        assert_eq!(large.kv_block_tokens(), 64);
        let mixed = Settings::given(&[
            (&table::KV_PRESET, "medium"),
            (&table::KV_BLOCK_TOKENS, "16"),
            (&table::KV_DTYPE, "bf16"),
            (&table::KV_DTYPE_V, "f32"),
        ]);
        assert_eq!(mixed.kv_block_tokens(), 16);
        assert_eq!(mixed.kv_dtype_k(), KvDtype::BF16);
        assert_eq!(mixed.kv_dtype_v(), KvDtype::F32);
    }

    #[test]
    fn engines_are_told_what_is_set() {
        let usual = Settings::given(&[]).engine_options(Bytes::gib(1));
        assert_eq!(usual, EngineOptions::default());
        let set = Settings::given(&[
            (&table::KV_PREFIX_CACHE, "off"),
            (&table::KV_COMPACTION_FRAGMENTATION, "0.5"),
            (&table::KV_COMPACTION_BYTES_PER_STEP, "1%"),
            (&table::KV_SPILL, "/var/tmp"),
            (&table::KV_KEEP, "kept"),
        ]);
        let options = set.engine_options(Bytes::mib(100));
        assert!(!options.prefix_cache);
        let compaction = options.compaction.expect("on");
        assert_eq!(compaction.fragmentation, 0.5);
        assert_eq!(compaction.efficiency, 0.7);
        assert_eq!(compaction.bytes_per_step, Bytes::mib(1));
        let spill = options.spill.expect("given");
        assert_eq!(spill.dir, PathBuf::from("/var/tmp"));
        assert_eq!(spill.bytes, Bytes::gib(1));
        assert_eq!(set.kv_keep("a", false), Some("kept".into()));
        assert_eq!(set.kv_keep("a", true), Some("kept.a".into()));
        let off = Settings::given(&[(&table::KV_COMPACTION_ENABLED, "false")]);
        assert_eq!(off.engine_options(Bytes::gib(1)).compaction, None);
        let contiguous = Settings::given(&[(&table::KV_CONTIGUOUS, "true")]);
        let options = contiguous.engine_options(Bytes::gib(1));
        assert!(options.contiguous && !options.prefix_cache);
    }
}
