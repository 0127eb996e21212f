//! What storing keys and values in fewer bits does to a model's logits, as a Markdown table.
//!
//! `cargo run --release -p bursar-engine --example kv_effect -- MODEL TOKENS WINDOW [TEXT]`
//!
//! The first `TOKENS` tokens of the text file `TEXT` (without one: fixed tokens, for models of random
//! weights) are run in windows of `WINDOW`, each from an empty cache, once per pair of types. At every
//! position, beside the same model with keys and values in f32: the Kullback-Leibler divergence of the
//! next token's distribution (in nats, `sum p ln(p / q)` with `p` that of f32), and whether the likeliest
//! token is the same one. The perplexity is of the tokens that were run.
//!
//! Twice: with the weights as they are in the file, and in f32. Products with quantized weights round their
//! activations to 8 bits, and a last bit in K that tips one of them over moves the logits by as much as all
//! of q8_0 does; with weights in f32 the cache's own effect is seen.

use bursar_engine::{
    Generator, LoadOptions, MemoryPlan, PlanRequest, ProcessBase, Purpose, Vocabulary,
    WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};
use bursar_tokenizer::Special;

type Failure = Box<dyn std::error::Error>;

/// K and V, the reference first.
const PAIRS: [[KvDtype; 2]; 8] = [
    [KvDtype::F32, KvDtype::F32],
    [KvDtype::F16, KvDtype::F16],
    [KvDtype::BF16, KvDtype::BF16],
    [KvDtype::F16, KvDtype::BF16],
    [KvDtype::BF16, KvDtype::F16],
    [KvDtype::F16, KvDtype::Q8_0],
    [KvDtype::Q8_0, KvDtype::F16],
    [KvDtype::Q8_0, KvDtype::Q8_0],
];

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (model, tokens, window, text) = match args.as_slice() {
        [model, tokens, window] => (model, tokens, window, None),
        [model, tokens, window, text] => (model, tokens, window, Some(text)),
        _ => return Err("usage: kv_effect MODEL TOKENS WINDOW [TEXT]".into()),
    };
    let (tokens, window): (usize, usize) = (tokens.parse()?, window.parse()?);
    let file = ModelFile::open(model.as_ref())?;
    let tokens = match text {
        Some(path) => {
            let vocabulary = Vocabulary::open(&file)?;
            let text = std::fs::read_to_string(path)?;
            let mut all = vocabulary.tokenizer().encode(&text, Special::NONE);
            all.truncate(tokens);
            all
        }
        None => {
            let vocab = file.config().vocab as u32;
            (0..tokens as u32)
                .map(|i| (i * 7919 + 13) % vocab)
                .collect()
        }
    };
    println!("{} tokens in windows of {window}", tokens.len());
    for dequantize in [false, true] {
        let weights = if dequantize {
            "in f32"
        } else {
            "as in the file"
        };
        println!();
        println!("Weights {weights}:");
        println!();
        println!(
            "| K | V | bytes per token | mean KL | largest KL | same likeliest | perplexity |"
        );
        println!("|---|---|---|---|---|---|---|");
        let mut reference = Vec::new();
        for pair in PAIRS {
            let run = Run::of(&file, pair, dequantize, &tokens, window)?;
            if reference.is_empty() {
                reference = run.log_probabilities.clone();
            }
            print_row(pair, &run, &reference, file.config().vocab);
        }
    }
    Ok(())
}

/// A model's words on all tokens.
struct Run {
    /// Of every position, one after another.
    log_probabilities: Vec<f32>,
    bytes_per_token: Bytes,
    perplexity: f64,
}

impl Run {
    fn of(
        file: &ModelFile,
        pair: [KvDtype; 2],
        dequantize: bool,
        tokens: &[u32],
        window: usize,
    ) -> Result<Self, Failure> {
        let vocabulary = Vocabulary::open(file)?;
        let budget = Bytes(16 << 30);
        let [kv_dtype_k, kv_dtype_v] = pair;
        let request = PlanRequest {
            purpose: Purpose::Generate,
            context: Some(window),
            parallel: 1,
            batch_tokens: Some(128),
            batch_memory: None,
            kv_dtype_k,
            kv_dtype_v,
            kv_block_tokens: 16,
            kv_memory: None,
            threads: 2,
            weights: if dequantize {
                WeightsRequest::F32
            } else {
                WeightsRequest::default()
            },
        };
        let base = ProcessBase::measure()?;
        let plan = MemoryPlan::new(file, &vocabulary, base, &request, budget)?;
        let bytes_per_token = plan
            .kv()
            .ok_or("the model does not generate")?
            .bytes_per_token();
        let (ledger, options) = (Ledger::new(budget), LoadOptions { isa: Isa::best() });
        let mut generator = Generator::load(file, vocabulary, plan, &ledger, options, &mut |_| {})?;
        let mut log_probabilities = Vec::with_capacity(tokens.len() * generator.vocab());
        let (mut surprise, mut counted) = (0.0, 0);
        for part in tokens.chunks(window) {
            generator.logits(part, &mut |position, row| {
                let start = log_probabilities.len();
                log_probabilities.extend(log_softmax(row));
                if let Some(&next) = part.get(position + 1) {
                    surprise -= f64::from(log_probabilities[start + next as usize]);
                    counted += 1;
                }
            })?;
        }
        Ok(Self {
            log_probabilities,
            bytes_per_token,
            perplexity: (surprise / f64::from(counted)).exp(),
        })
    }
}

fn log_softmax(row: &[f32]) -> impl Iterator<Item = f32> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
    let shift = f64::from(most) + sum.ln();
    row.iter().map(move |&x| (f64::from(x) - shift) as f32)
}

fn print_row(pair: [KvDtype; 2], run: &Run, reference: &[f32], vocab: usize) {
    let rows = reference
        .chunks_exact(vocab)
        .zip(run.log_probabilities.chunks_exact(vocab));
    let (mut sum, mut most, mut same, mut count) = (0.0, 0.0_f64, 0, 0);
    for (p, q) in rows {
        let divergence: f64 = p
            .iter()
            .zip(q)
            .map(|(&p, &q)| f64::from(p).exp() * (f64::from(p) - f64::from(q)))
            .sum();
        // Rounding may leave a little less than nothing.
        let divergence = divergence.max(0.0);
        sum += divergence;
        most = most.max(divergence);
        same += usize::from(likeliest(p) == likeliest(q));
        count += 1;
    }
    println!(
        "| {} | {} | {} | {:.1e} | {most:.1e} | {:.2} % | {:.4} |",
        pair[0].name(),
        pair[1].name(),
        run.bytes_per_token.get(),
        sum / count as f64,
        100.0 * same as f64 / count as f64,
        run.perplexity,
    );
}

/// The first of the likeliest tokens.
fn likeliest(row: &[f32]) -> Option<usize> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter().position(|&x| x == most)
}
