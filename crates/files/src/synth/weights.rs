//! Random weights with the spread of a freshly initialised model: standard deviation
//! `1 / sqrt(inputs)`, so that activations keep their size from layer to layer; norms of 1.
//!
//! Small models are drawn as numbers and quantised. Large ones are drawn as quantised blocks: the
//! codes are random bits and the scales are set so that the values have the same mean (0) and
//! standard deviation. That is 50 times as fast; the values are then uniform rather than normal.

use bursar_kernels::quant::{
    BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, Dtype,
};
use bursar_kernels::quantize::quantize_row;
use bytemuck::Zeroable;
use half::f16;

use super::random::Random;
use crate::role::{LayerRole, Part, Role, Shape};

/// How a tensor's values are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// All the same.
    Constant(f32),
    /// Random with this standard deviation.
    Random(f32),
    /// The divisors of the rotary frequencies.
    RopeFactors,
}

/// What a tensor is filled with.
pub(super) fn kind(role: Role, shape: Shape) -> Kind {
    use LayerRole::*;
    /// Standard deviation of biases: small against activations of about 1.
    const BIAS: f32 = 0.02;
    match (role, shape) {
        (Role::RopeFactors, _) => Kind::RopeFactors,
        (_, Shape::Matrix(_, cols)) => Kind::Random(1.0 / (cols as f32).sqrt()),
        (Role::EmbeddingNorm(Part::W) | Role::OutputNorm(Part::W), _) => Kind::Constant(1.0),
        (Role::Layer(_, AttnNorm | FfnNorm | QNorm | KNorm), _) => Kind::Constant(1.0),
        _ => Kind::Random(BIAS),
    }
}

/// Draws `out.len()` bytes of whole blocks as numbers of standard deviation `spread`, quantised.
///
/// `numbers` is scratch of any length.
pub(super) fn draw_numbers(
    random: &mut Random,
    dtype: Dtype,
    spread: f32,
    numbers: &mut Vec<f32>,
    out: &mut [u8],
) {
    /// Values at a time; a multiple of every block.
    const PIECE: usize = 4096;
    let bytes = PIECE / dtype.block_elems() * dtype.block_bytes();
    for out in out.chunks_mut(bytes) {
        let count = out.len() / dtype.block_bytes() * dtype.block_elems();
        numbers.clear();
        numbers.extend((0..count).map(|_| spread * random.normal()));
        quantize_row(dtype, numbers, out);
    }
}

/// Draws blocks of values of standard deviation `spread`. `out` is whole blocks.
pub(super) fn draw_blocks(
    random: &mut Random,
    dtype: Dtype,
    spread: f32,
    numbers: &mut Vec<f32>,
    out: &mut [u8],
) {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => draw_numbers(random, dtype, spread, numbers, out),
        // Codes are uniform, and their standard deviation over 2^b codes is sqrt((4^b - 1) / 12).
        // Codes without an offset are 0.5 off centre: a random sign of the scale evens that out.
        Dtype::Q4_0 => blocks(out, |block: &mut BlockQ4_0| {
            random.fill(&mut block.qs);
            block.d = signed_half(random, spread / UNIFORM_4);
        }),
        Dtype::Q4_1 => blocks(out, |block: &mut BlockQ4_1| {
            random.fill(&mut block.qs);
            let scale = spread / UNIFORM_4;
            (block.d, block.m) = (half(scale), half(-7.5 * scale));
        }),
        Dtype::Q5_0 => blocks(out, |block: &mut BlockQ5_0| {
            random.fill(&mut block.qs);
            random.fill(&mut block.qh);
            block.d = signed_half(random, spread / UNIFORM_5);
        }),
        Dtype::Q5_1 => blocks(out, |block: &mut BlockQ5_1| {
            random.fill(&mut block.qs);
            random.fill(&mut block.qh);
            let scale = spread / UNIFORM_5;
            (block.d, block.m) = (half(scale), half(-15.5 * scale));
        }),
        Dtype::Q8_0 => blocks(out, |block: &mut BlockQ8_0| {
            random.fill(bytemuck::cast_slice_mut(&mut block.qs));
            // Quantisers never make -128.
            block.qs.iter_mut().for_each(|q| *q = (*q).max(-127));
            block.d = half(spread / 73.9);
        }),
        Dtype::Q4K => blocks(out, |block: &mut BlockQ4K| {
            random.fill(&mut block.qs);
            block.scales = equal_scales(random);
            let unit = spread / (UNIFORM_4 * SCALE_RMS);
            (block.d, block.dmin) = (half(unit), half(7.5 * unit));
        }),
        Dtype::Q5K => blocks(out, |block: &mut BlockQ5K| {
            random.fill(&mut block.qs);
            random.fill(&mut block.qh);
            block.scales = equal_scales(random);
            let unit = spread / (UNIFORM_5 * SCALE_RMS);
            (block.d, block.dmin) = (half(unit), half(15.5 * unit));
        }),
        Dtype::Q6K => blocks(out, |block: &mut BlockQ6K| {
            random.fill(&mut block.ql);
            random.fill(&mut block.qh);
            random.fill(bytemuck::cast_slice_mut(&mut block.scales));
            // Of either sign, from 64 to 127 in magnitude.
            for scale in &mut block.scales {
                let magnitude = 64 | (*scale & 63);
                *scale = if *scale < 0 { -magnitude } else { magnitude };
            }
            block.d = half(spread / (UNIFORM_6 * 97.3));
        }),
    }
}

const UNIFORM_4: f32 = 4.609_772;
const UNIFORM_5: f32 = 9.233_093;
const UNIFORM_6: f32 = 18.472_953;
/// Root mean square of the numbers from 32 to 63.
const SCALE_RMS: f32 = 48.389;

/// Eight scales from 32 to 63 and minima equal to them, packed: with `dmin` half the largest code
/// times `d`, every sub-block is centred at 0.
fn equal_scales(random: &mut Random) -> [u8; 12] {
    let bits = random.bits();
    let scale = |i: usize| 32 | (bits >> (8 * i) & 31) as u8;
    std::array::from_fn(|i| match i {
        // Scales, then minima, with the upper two bits of the last four.
        0..8 => scale(i % 4) | (scale(i % 4 + 4) >> 4) << 6,
        // The lower four bits of the last four, twice.
        _ => (scale(i - 4) & 0x0F) | (scale(i - 4) & 0x0F) << 4,
    })
}

fn half(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

fn signed_half(random: &mut Random, x: f32) -> [u8; 2] {
    half(if random.bits() & 1 == 0 { x } else { -x })
}

/// Fills `out` block by block.
fn blocks<B: bytemuck::Pod + Zeroable>(out: &mut [u8], mut draw: impl FnMut(&mut B)) {
    for bytes in out.chunks_exact_mut(size_of::<B>()) {
        let mut block = B::zeroed();
        draw(&mut block);
        bytes.copy_from_slice(bytemuck::bytes_of(&block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_kernels::quant::dequantize_row;

    #[test]
    fn drawn_weights_have_the_spread_asked_for() {
        const SPREAD: f32 = 0.0167;
        const K: usize = 4096;
        for dtype in Dtype::ALL {
            for draw in [draw_blocks, draw_numbers] {
                let mut random = Random::new(5, [0, 0]);
                let (mut sum, mut squares, mut count) = (0f64, 0f64, 0f64);
                let mut bytes = vec![0; dtype.row_bytes(K).unwrap()];
                let mut row = vec![0.0; K];
                for _ in 0..16 {
                    draw(&mut random, dtype, SPREAD, &mut Vec::new(), &mut bytes);
                    dequantize_row(dtype, &bytes, &mut row);
                    for x in &row {
                        sum += f64::from(*x);
                        squares += f64::from(*x).powi(2);
                        count += 1.0;
                    }
                }
                let spread = (squares / count).sqrt() / f64::from(SPREAD);
                assert!((spread - 1.0).abs() < 0.02, "{dtype}: {spread}");
                assert!((sum / count).abs() < 0.02 * f64::from(SPREAD), "{dtype}");
            }
        }
    }
}
