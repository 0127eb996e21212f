//! Models for those who have none yet: small ones with random weights, made once and kept in the
//! user's cache folder. What they say is noise; that they say it shows that everything works.

use std::path::PathBuf;

use bursar_files::synth::{self, Preset};

use crate::config::Surroundings;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};

/// The seed of the weights.
const SEED: u64 = 0;
/// Part of the file's name; raise it when files of earlier versions would no longer do.
const EDITION: u32 = 1;

/// How much noise is enough, where nobody says how many tokens to generate.
pub(crate) const TOKENS: usize = 40;

/// Which one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Demo {
    /// Generates text.
    Chat,
    /// Makes vectors.
    Embedding,
}

impl Demo {
    /// What clients of a server call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Demo::Chat => "demo",
            Demo::Embedding => "demo-embedding",
        }
    }

    fn preset(self) -> &'static str {
        match self {
            Demo::Chat => "tiny-qwen3:q8_0",
            Demo::Embedding => "tiny-bert:q8_0",
        }
    }
}

/// The path of a demonstration model, which is made first if need be; says plainly on stderr what
/// it is.
pub(crate) fn path(
    demo: Demo,
    surroundings: &Surroundings,
    progress: Progress,
) -> Result<PathBuf, Failure> {
    let preset = Preset::parse(demo.preset())?;
    let cache = surroundings
        .xdg("XDG_CACHE_HOME", ".cache")
        .unwrap_or_else(std::env::temp_dir);
    let folder = cache.join("bursar");
    let mix = preset.mix().name().to_lowercase();
    let path = folder.join(format!("{}-{mix}-seed{SEED}-{EDITION}.gguf", preset.name()));
    let what = match demo {
        Demo::Chat => "what it says is noise",
        Demo::Embedding => "its vectors mean nothing",
    };
    eprintln!(
        "note: no model given; using {}, a small one with random weights: {what}. Give a .gguf \
         file or a folder with .safetensors files to use a real one.",
        path.display()
    );
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    let mut meter = None;
    synth::write(&preset, SEED, &path, &mut |at: synth::Progress| {
        meter
            .get_or_insert_with(|| progress.meter("making the model", Unit::Bytes, at.total))
            .set(at.done, String::new);
    })?;
    if let Some(meter) = meter {
        meter.finish();
    }
    Ok(path)
}
