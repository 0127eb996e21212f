//! Embeddings against sentence-transformers, and token ids on the way.

use bursar_engine::EmbedOptions;
use bursar_kernels::isa::Isa;

use crate::fixtures::{cases, embedder, ids, npy_f32, open};

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// T7: token ids, then vectors, equal sentence-transformers', queries and shortened vectors too.
#[test]
fn embeddings_equal_sentence_transformers() {
    println!(
        "| case | dimensions | texts | smallest cosine | max abs error |\n|---|---|---|---|---|"
    );
    for case in cases("embedding") {
        let name = case["name"].as_str().expect("a name");
        let file = open(&case);
        let mut embedder = embedder(&file, Isa::best());
        let inputs = case["inputs"].as_array().expect("a list of inputs");
        for golden in case["embeddings"].as_array().expect("a list of arrays") {
            let (shape, want) = npy_f32(golden["file"].as_str().expect("a file"));
            let width = shape[1];
            let dimensions = golden["dimensions"].as_u64().expect("a number") as usize;
            assert_eq!((shape[0], width), (inputs.len(), dimensions), "{name}");
            let mut got = vec![f32::NAN; want.len()];
            // Texts with the same prompt are embedded together, so that batches are ragged.
            let prompt = |i: usize| inputs[i]["prompt_name"].as_str();
            let mut prompts: Vec<Option<&str>> = (0..inputs.len()).map(prompt).collect();
            prompts.sort_unstable();
            prompts.dedup();
            for prompt_name in prompts {
                let members: Vec<usize> = (0..inputs.len())
                    .filter(|&i| prompt(i) == prompt_name)
                    .collect();
                let texts: Vec<&str> = members
                    .iter()
                    .map(|&i| inputs[i]["text"].as_str().expect("a text"))
                    .collect();
                // No prompt means none at all, whatever the model's default would be.
                let options = EmbedOptions {
                    prompt_name: prompt_name.map(str::to_owned),
                    no_prompt: prompt_name.is_none(),
                    dimensions: Some(dimensions),
                    normalize: golden["normalized"].as_bool().expect("yes or no"),
                };
                let tokens = embedder
                    .tokenize(&texts, &options)
                    .unwrap_or_else(|e| panic!("{e}"));
                for (&i, tokens) in members.iter().zip(&tokens) {
                    let want = ids(&inputs[i]["token_ids"]);
                    assert_eq!(
                        tokens, &want,
                        "{name}: token ids of {:?}",
                        inputs[i]["text"]
                    );
                }
                embedder
                    .embed(&texts, &options, &mut |index, vector| {
                        got[members[index] * width..][..width].copy_from_slice(vector);
                    })
                    .unwrap_or_else(|e| panic!("{e}"));
            }
            let mut smallest = 1.0f64;
            let mut error = 0.0f32;
            for (got, want) in got.chunks_exact(width).zip(want.chunks_exact(width)) {
                let cosine = cosine(got, want);
                assert!(cosine.is_finite(), "{name}: a vector has no direction");
                smallest = smallest.min(cosine);
                error = got
                    .iter()
                    .zip(want)
                    .map(|(g, w)| (g - w).abs())
                    .fold(error, f32::max);
            }
            println!(
                "| {name} | {dimensions} | {} | {smallest:.7} | {error:.1e} |",
                inputs.len()
            );
            let bound = case["tolerance"]["min_cosine"].as_f64().expect("a bound");
            assert!(
                smallest >= bound,
                "{name}: cosine {smallest}, at least {bound}"
            );
            if let Some(bound) = case["tolerance"]["embedding_max_abs"].as_f64() {
                assert!(
                    f64::from(error) <= bound,
                    "{name}: off by {error:e}, at most {bound:e}"
                );
            }
        }
    }
}
