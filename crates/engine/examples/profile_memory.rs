//! Time and memory of a program phase by phase, with its own spans beside Bursar's.
//!
//! `cargo run --release -p bursar-engine --example profile_memory -- MODEL [TRACE.json]`
//!
//! Plans, loads and runs an embedding model inside a budget of 1 GiB; prints how long each span took,
//! and what was resident and granted after each phase. The trace, for ui.perfetto.dev, has resident
//! memory as a curve beside the spans.

use bursar_engine::{
    EmbedOptions, Embedder, LoadOptions, MemoryPlan, PlanRequest, ProcessBase, Purpose, Vocabulary,
    WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};
use bursar_profile::{Level, Probe, span, spans};

/// What was there after a phase.
struct Phase {
    name: &'static str,
    resident: Bytes,
    granted: Bytes,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (model, trace) = match args.as_slice() {
        [model] => (model, None),
        [model, trace] => (model, Some(trace)),
        _ => return Err("usage: profile_memory MODEL [TRACE.json]".into()),
    };
    spans::set_level(Level::Trace);
    let ledger = Ledger::new(Bytes::gib(1));
    let mut phases = Vec::new();
    let mut phase = |name| {
        let process = Probe::default().process();
        let resident = process.map_or(0, |process| process.rss_bytes);
        spans::gauge("resident_bytes", resident);
        phases.push(Phase {
            name,
            resident: Bytes(resident),
            granted: ledger.granted(),
        });
    };
    phase("start");

    let file = ModelFile::open(model.as_ref())?;
    let vocabulary = {
        let _span = span!("tokenizer");
        Vocabulary::open(&file)?
    };
    let request = PlanRequest {
        purpose: Purpose::Embed,
        context: None,
        parallel: 1,
        batch_tokens: None,
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: 2,
        weights: WeightsRequest::default(),
    };
    let base = ProcessBase::measure()?.with_threads(2);
    let plan = MemoryPlan::new(&file, &vocabulary, base, &request, ledger.budget())?;
    phase("planned");
    let planned = plan.total();

    let options = LoadOptions { isa: Isa::best() };
    let mut embedder = {
        let _span = span!("load", file.used_bytes());
        let show = &mut |_| {
            let process = Probe::default().process();
            spans::gauge(
                "resident_bytes",
                process.map_or(0, |process| process.rss_bytes),
            );
        };
        Embedder::load(&file, vocabulary, plan, &ledger, options, show)?
    };
    phase("loaded");

    let texts: Vec<String> = (0..256)
        .map(|number| format!("the keeper returned {number} letters at the mill"))
        .collect();
    {
        let _span = span!("embed", texts.len());
        embedder.embed(&texts, &EmbedOptions::default(), &mut |_, _| {})?;
    }
    phase("embedded");
    drop(embedder);
    phase("unloaded");

    println!("{}", spans::summary());
    println!("planned at most {planned}");
    for Phase {
        name,
        resident,
        granted,
    } in &phases
    {
        println!(
            "{name:<9} {:>12} resident, {:>12} granted",
            resident.to_string(),
            granted.to_string()
        );
    }
    if let Some(path) = trace {
        spans::trace().write(&mut std::fs::File::create(path)?)?;
    }
    Ok(())
}
