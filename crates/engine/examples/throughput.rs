//! Prefill and decode rates of a model, as one JSON line, for `bench/peers/decode.py`.
//!
//! `cargo run --release -p bursar-engine --example throughput -- MODEL THREADS PREFILL DECODE`
//!
//! One pass over `PREFILL` fixed tokens with the logits of the last, then `DECODE` single-token
//! passes after them; each is run once to warm up and once for the figure.

use std::time::Instant;

use bursar_engine::{
    Generator, LoadOptions, MemoryPlan, PlanRequest, ProcessBase, Purpose, SamplingParams,
    StopRules, Vocabulary, WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, prefill, decode] = args.as_slice() else {
        return Err("usage: throughput MODEL THREADS PREFILL DECODE".into());
    };
    let (prefill, decode): (usize, usize) = (prefill.parse()?, decode.parse()?);
    let isa = match std::env::var("BURSAR_ISA") {
        Ok(name) => Isa::from_name(&name).ok_or("BURSAR_ISA: no such instruction set here")?,
        Err(_) => Isa::best(),
    };
    let file = ModelFile::open(model.as_ref())?;
    let vocabulary = Vocabulary::open(&file)?;
    let budget = Bytes(16 << 30);
    let request = PlanRequest {
        purpose: Purpose::Generate,
        context: Some(prefill + decode + 1),
        parallel: 1,
        batch_tokens: None,
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: threads.parse()?,
        weights: WeightsRequest::default(),
    };
    let plan = MemoryPlan::new(
        &file,
        &vocabulary,
        ProcessBase::measure()?,
        &request,
        budget,
    )?;
    let ledger = Ledger::new(budget);
    let start = Instant::now();
    let options = LoadOptions { isa };
    let mut generator = Generator::load(&file, vocabulary, plan, &ledger, options, &mut |_| {})?;
    let load_seconds = start.elapsed().as_secs_f64();

    let vocab = generator.vocab() as u32;
    let prompt: Vec<u32> = (0..prefill as u32)
        .map(|i| (i * 7919 + 13) % vocab.min(30_000))
        .collect();
    let stop = StopRules {
        max_tokens: Some(decode + 1),
        ignore_end: true,
        ..Default::default()
    };
    let mut figures = None;
    for _ in 0..2 {
        let mut no_text = |_: &str| std::ops::ControlFlow::Continue(());
        let out =
            generator.generate(&prompt, &SamplingParams::default(), 0, &stop, &mut no_text)?;
        figures = Some(out);
    }
    let memory = bursar_profile::Probe::default()
        .process()
        .ok_or("no /proc/self/status")?;
    let out = figures.ok_or("nothing was run")?;
    println!(
        "{{\"prefill_tokens_per_second\": {:.2}, \"decode_tokens_per_second\": {:.2}, \
         \"load_seconds\": {load_seconds:.2}, \"peak_rss_bytes\": {}, \"isa\": \"{}\"}}",
        out.prefill_tokens as f64 / out.prefill_seconds,
        out.decode_tokens as f64 / out.decode_seconds,
        memory.hwm_bytes.unwrap_or(memory.rss_bytes),
        isa.name(),
    );
    Ok(())
}
