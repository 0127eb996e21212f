//! `bursar synth ARCH -o FILE`: a model file with random weights in a real architecture and size,
//! to see how a model would behave here before downloading it.

use std::path::PathBuf;

use bursar_files::synth::{self, Mix, Preset};
use bursar_memory::Bytes;
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::progress::Unit;
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// An architecture, with a quantisation if you like: qwen3-0.6b, nomic-embed-code:q5_k_s
    #[arg(value_name = "ARCH", required_unless_present = "list")]
    arch: Option<String>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "list")]
    output: Option<PathBuf>,
    /// How weights are stored: f32, bf16, q8_0, q4_k_m, ...
    #[arg(long, value_name = "TYPE")]
    quant: Option<String>,
    /// What the random weights are made from; the same seed gives the same file
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// List the architectures
    #[arg(long, conflicts_with_all = ["arch", "output", "quant"])]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes the file.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let mut out = Out::new();
    let (Some(arch), Some(output)) = (&arguments.arch, &arguments.output) else {
        list(arguments.json, &mut out)?;
        return out.flush();
    };
    let mut preset = Preset::parse(arch)?;
    if let Some(quant) = &arguments.quant {
        if arch.contains(':') {
            return Err(Failure::usage(format!(
                "{arch} names a quantisation, and --quant another"
            ))
            .help("give one of them"));
        }
        preset = preset.with_mix(Mix::from_name(quant)?);
    }
    let mut meter = None;
    let bytes = synth::write(
        &preset,
        arguments.seed,
        output,
        &mut |at: synth::Progress| {
            meter
                .get_or_insert_with(|| shared.progress.meter("writing", Unit::Bytes, at.total))
                .set(at.done, String::new);
        },
    )?;
    if let Some(meter) = meter {
        meter.finish();
    }
    if arguments.json {
        out.json(&json!({
            "path": output.to_string_lossy(),
            "architecture": preset.name(),
            "quantisation": preset.mix().name(),
            "seed": arguments.seed,
            "bytes": bytes,
        }))?;
    } else {
        out.line(format_args!(
            "{}: {} in {}, {} of random weights (seed {})",
            output.display(),
            preset.name(),
            preset.mix().name(),
            Bytes(bytes),
            arguments.seed
        ))?;
    }
    out.flush()
}

fn list(json: bool, out: &mut Out) -> Result<(), Failure> {
    if json {
        let presets: Vec<_> = Preset::all()
            .map(|preset| {
                let config = preset.config();
                json!({
                    "architecture": preset.name(),
                    "family": config.arch.name(),
                    "quantisation": preset.mix().name(),
                    "embeds": config.embedding.is_some(),
                })
            })
            .collect();
        return out.json(&presets);
    }
    let mut table = Table::new(&[
        ("ARCH", Align::Left),
        ("FAMILY", Align::Left),
        ("QUANT", Align::Left),
        ("FOR", Align::Left),
    ]);
    for preset in Preset::all() {
        let config = preset.config();
        let purpose = if config.embedding.is_some() {
            "embedding"
        } else {
            "text"
        };
        table.row([
            preset.name().into(),
            config.arch.name().into(),
            preset.mix().name().into(),
            purpose.into(),
        ]);
    }
    out.line(table)
}
