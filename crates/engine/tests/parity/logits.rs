//! Logits against transformers, and quantised runs against their own dequantised ones.

use bursar_engine::argmax;
use bursar_kernels::isa::Isa;
use serde_json::Value;

use crate::fixtures::{cases, generator, ids, logits, npy_f32, open};

/// The positions of a case that have golden rows, and those rows.
fn golden(case: &Value) -> (Vec<usize>, usize, Vec<f32>) {
    let spec = &case["logits"];
    let number = |key: &str| spec[key].as_u64().expect("a number") as usize;
    let (shape, values) = npy_f32(spec["file"].as_str().expect("a file"));
    let [rows, width] = shape[..] else {
        panic!("logits of shape {shape:?}")
    };
    let positions = (0..rows)
        .map(|i| number("first_position") + i * number("position_step"))
        .collect();
    (positions, width, values)
}

fn max_abs(got: &[f32], want: &[f32]) -> f32 {
    got.iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |a, b| {
            // A NaN must fail the test, not vanish in a max.
            if b.is_nan() || b > a { b } else { a }
        })
}

/// Largest error of `all` at the positions that have golden rows.
fn golden_error(case: &Value, all: &[f32]) -> f32 {
    let (positions, width, want) = golden(case);
    let errors = positions
        .iter()
        .zip(want.chunks_exact(width))
        .map(|(&position, want)| max_abs(&all[position * width..][..width], want));
    errors.fold(0.0, |a, b| if b.is_nan() || b > a { b } else { a })
}

/// P: every architecture feature gives transformers' float32 logits.
#[test]
fn logits_equal_transformers() {
    println!("| case | max abs error |\n|---|---|");
    for case in cases("logits") {
        let name = case["name"].as_str().expect("a name");
        let file = open(&case);
        let tolerance = case["tolerance"]["logits_max_abs"]
            .as_f64()
            .expect("a bound") as f32;
        // A GGUF case may store halves; transformers ran on the values that they stand for.
        let mut generator = generator(&file, Isa::best(), false);
        let all = logits(&mut generator, &ids(&case["token_ids"]));
        let error = golden_error(&case, &all);
        println!("| {name} | {error:.2e} |");
        assert!(
            error <= tolerance,
            "{name}: max abs error {error:e}, at most {tolerance:e}"
        );
    }
}

/// Every stored type: the run on dequantised weights gives transformers' logits, and the quantised
/// run stays within the stated error of it.
#[test]
fn quantized_logits_stay_close_to_their_own_weights() {
    println!(
        "| case | f32 run: max abs | NMSE | max abs | top-1 equal | decided positions | \
         llama.cpp NMSE | llama.cpp top-1 |\n|---|---|---|---|---|---|---|---|"
    );
    for case in cases("quantized") {
        let name = case["name"].as_str().expect("a name");
        let file = open(&case);
        let tokens = ids(&case["token_ids"]);
        assert!(tokens.len() >= 512, "{name}");
        let exact = {
            let mut generator = generator(&file, Isa::best(), true);
            logits(&mut generator, &tokens)
        };
        let exact_error = golden_error(&case, &exact);
        let mut generator = generator(&file, Isa::best(), false);
        let got = logits(&mut generator, &tokens);
        let width = generator.vocab();

        let square = |x: f32| f64::from(x) * f64::from(x);
        let noise: f64 = got.iter().zip(&exact).map(|(g, e)| square(g - e)).sum();
        let signal: f64 = exact.iter().map(|&e| square(e)).sum();
        let nmse = noise / signal;
        let largest = max_abs(&got, &exact);
        let (mut same, mut decided) = (0usize, 0usize);
        for (position, (got, exact)) in got
            .chunks_exact(width)
            .zip(exact.chunks_exact(width))
            .enumerate()
        {
            let best = argmax(exact) as usize;
            let second = exact
                .iter()
                .enumerate()
                .filter(|&(token, _)| token != best)
                .fold(f32::NEG_INFINITY, |a, (_, &value)| a.max(value));
            let equal = argmax(got) as usize == best;
            same += usize::from(equal);
            if exact[best] - second > 2.0 * largest {
                decided += 1;
                assert!(
                    equal,
                    "{name}: the decided top token differs at position {position}"
                );
            }
        }
        let share = |n: usize| n as f64 / tokens.len() as f64;
        let llama = &case["llama_cpp"]["kv_f32"];
        println!(
            "| {name} | {exact_error:.2e} | {nmse:.3e} | {largest:.3} | {:.4} | {:.3} | {} | {} |",
            share(same),
            share(decided),
            llama["nmse"],
            llama["top1_agreement"],
        );
        let bound = case["tolerance"]["logits_max_abs"]
            .as_f64()
            .expect("a bound") as f32;
        assert!(
            exact_error <= bound,
            "{name}: f32 run off by {exact_error:e}, at most {bound:e}"
        );
        let bound = case["tolerance"]["nmse"].as_f64().expect("a bound");
        assert!(nmse <= bound, "{name}: NMSE {nmse:e}, at most {bound:e}");
        assert!(
            share(decided) >= 0.5,
            "{name}: only {decided} of {} decided",
            tokens.len()
        );
    }
}

/// B4: the same bits whatever the chunks, and on every instruction set where that is promised.
#[test]
fn chunks_do_not_change_a_bit() {
    for case in cases("logits").iter().chain(&cases("quantized")) {
        let name = case["name"].as_str().expect("a name");
        let tokens = ids(&case["token_ids"]);
        let tokens = &tokens[..tokens.len().min(40)];
        let file = open(case);
        for &isa in Isa::available() {
            let mut generator = generator(&file, isa, false);
            let whole = logits(&mut generator, tokens);
            let mut pieces = Vec::new();
            generator
                .logits_in_chunks(tokens, &[1, 7, 16, 3], &mut |_, row| {
                    pieces.extend_from_slice(row);
                })
                .unwrap_or_else(|e| panic!("{e}"));
            assert!(
                whole
                    .iter()
                    .zip(&pieces)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{name} on {}: chunks change the logits",
                isa.name()
            );
            assert_eq!(whole.len(), pieces.len(), "{name}");
        }
    }
}
