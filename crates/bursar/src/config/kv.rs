//! The settings of the cache of keys and values: what each comes to where another decides its
//! default.

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

    fn dtype(&self, setting: &'static Setting) -> KvDtype {
        match self.value(setting).or_else(|| self.value(&table::KV_DTYPE)) {
            Some(Value::KvDtype(dtype)) => *dtype,
            _ => KvDtype::F16,
        }
    }

    /// Bytes for keys and values, where a share is of `budget`.
    pub(crate) fn kv_memory(&self, budget: Bytes) -> Option<Bytes> {
        self.size(&table::KV_MEMORY, budget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Surroundings;

    fn settings(given: &[(&'static Setting, &str)]) -> Settings {
        let given: Vec<_> = given
            .iter()
            .map(|(setting, text)| (*setting, (*text).to_owned()))
            .collect();
        Settings::resolve(&given, None, &Surroundings::default()).expect("settings")
    }

    #[test]
    fn what_is_given_beats_the_preset_and_the_common_type() {
        let plain = settings(&[]);
        assert_eq!(plain.kv_preset(), None);
        assert_eq!(plain.kv_block_tokens(), 16);
        let large = settings(&[(&table::KV_PRESET, "large")]);
        assert_eq!(large.kv_preset(), Some(Preset::Large));
        assert_eq!(large.kv_block_tokens(), 64);
        let mixed = settings(&[
            (&table::KV_PRESET, "medium"),
            (&table::KV_BLOCK_TOKENS, "16"),
            (&table::KV_DTYPE, "bf16"),
            (&table::KV_DTYPE_V, "f32"),
        ]);
        assert_eq!(mixed.kv_block_tokens(), 16);
        assert_eq!(mixed.kv_dtype_k(), KvDtype::BF16);
        assert_eq!(mixed.kv_dtype_v(), KvDtype::F32);
    }
}
