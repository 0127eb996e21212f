//! A trace of what pools handed out, replayed with the pools of the settings and drawn over time.

use std::path::Path;

use bursar_memory::membrane::Weights;
use bursar_memory::trace::{Trace, Way, picture, replay};

use crate::budget;
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Out;
use crate::picture::write;

/// Replays the trace in one file and draws it into another.
pub(super) fn draw(trace: &Path, svg: &Path, settings: &Settings) -> Result<(), Failure> {
    let text =
        std::fs::read_to_string(trace).map_err(|error| Failure::io("read", trace, &error))?;
    let recorded = Trace::from_json(&text)
        .map_err(|error| Failure::failed(format!("{}: {error}", trace.display())))?;
    let budget = budget::of_process(settings)?;
    let failed = |error: bursar_memory::PoolError| Failure::usage(error.to_string());
    let options = settings.pools_options(budget.bytes).map_err(failed)?;
    let way = Way::Pools {
        strategy: options.strategy,
        membranes: options.membranes.enabled.then(Weights::default),
        buffers: true,
    };
    let replayed = replay(&recorded, way, &options).map_err(failed)?;
    let name = trace.file_name().unwrap_or_default().to_string_lossy();
    write(svg, &picture(&format!("{name}: {way}"), &replayed))?;
    let mut out = Out::new();
    let share = |ratio: Option<f64>| match ratio {
        Some(ratio) => format!("{:.1} %", 100.0 * ratio),
        None => "unknown".to_owned(),
    };
    out.line(format!(
        "{} events replayed ({way}): {} of the buffers were there already, {} asks found no room in \
         heaps, {} fragmentation on average",
        replayed.events,
        share(replayed.hit_ratio),
        replayed.fallbacks,
        share(replayed.fragmentation_ratio),
    ))?;
    out.flush()
}
