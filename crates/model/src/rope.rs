//! Rotary position angles (Su et al. 2021) with the scalings that stretch a model's context.
//!
//! Frequencies are computed once per model; cosines and sines once per batch, for all layers.

use std::f64::consts::PI;

use bursar_files::{Rope, RopeScaling, RopeStyle};
use bursar_kernels::mat::MatMut;
use bursar_kernels::ops;

/// The angles of a model.
#[derive(Clone, Debug)]
pub struct RopeAngles {
    style: ops::RopeStyle,
    /// Radians per position of each rotated pair.
    frequencies: Vec<f32>,
    /// What cosines and sines are multiplied with (YaRN's attention temperature, else 1).
    magnitude: f32,
}

impl RopeAngles {
    /// The angles of a config. `factors` divide the frequencies one by one, as GGUF files of
    /// Llama 3 carry them.
    pub fn new(rope: &Rope, factors: Option<&[f32]>) -> Self {
        let dims = rope.dims;
        let theta = f64::from(rope.theta);
        // Rounded to f32 where the reference implementations round: over some hundred positions the
        // exact frequencies would move logits by more than everything else together.
        let base: Vec<f64> = (0..dims / 2)
            .map(|i| theta.powf(f64::from((2 * i) as f32 / dims as f32)) as f32)
            .map(|wave| f64::from(1.0 / wave))
            .collect();
        let mut magnitude = 1.0f32;
        let frequencies = match rope.scaling {
            RopeScaling::None => base,
            RopeScaling::Linear { factor } => base.iter().map(|f| f / f64::from(factor)).collect(),
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let scale = Llama3 {
                    factor: f64::from(factor),
                    low: f64::from(low),
                    high: f64::from(high),
                    original: original as f64,
                };
                base.iter().map(|&f| scale.apply(f)).collect()
            }
            RopeScaling::Yarn {
                factor,
                original,
                attn_factor,
                beta_fast,
                beta_slow,
                truncate,
            } => {
                magnitude = attn_factor;
                let turns = |turns: f32| {
                    let turns = f64::from(turns) * 2.0 * PI;
                    dims as f64 * (original as f64 / turns).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (turns(beta_fast), turns(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                yarn(
                    &base,
                    f64::from(factor),
                    low.max(0.0),
                    high.min(dims as f64 - 1.0),
                )
            }
        };
        let frequencies = frequencies
            .iter()
            .enumerate()
            .map(|(i, &f)| factors.map_or(f, |all| f / f64::from(all[i])) as f32)
            .collect();
        let style = match rope.style {
            RopeStyle::Neox => ops::RopeStyle::Neox,
            RopeStyle::Interleaved => ops::RopeStyle::Interleaved,
        };
        Self {
            style,
            frequencies,
            magnitude,
        }
    }

    /// How pairs are laid out within a head.
    pub fn style(&self) -> ops::RopeStyle {
        self.style
    }

    /// Writes the cosines (`pairs` columns), then the sines, of each position.
    pub fn fill(&self, positions: &[u32], out: MatMut<'_>) {
        let (cos, sin) = out.split_at_col(self.frequencies.len());
        ops::rope_angles(positions, &self.frequencies, self.magnitude, cos, sin);
    }
}

/// Llama 3.1's scaling: long waves are stretched, short ones kept, those between blended.
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    fn apply(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * PI / frequency;
        if wavelength > self.original / self.low {
            frequency / self.factor
        } else if wavelength < self.original / self.high {
            frequency
        } else {
            let blend = (self.original / wavelength - self.low) / (self.high - self.low);
            (1.0 - blend) * frequency / self.factor + blend * frequency
        }
    }
}

/// YaRN (Peng et al. 2023): a ramp over the pairs from `low` to `high`, between which kept
/// frequencies turn into interpolated ones.
fn yarn(base: &[f64], factor: f64, low: f64, high: f64) -> Vec<f64> {
    // A ramp of no width would divide by zero.
    let high = if low == high { high + 0.001 } else { high };
    base.iter()
        .enumerate()
        .map(|(pair, &frequency)| {
            let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency / factor * ramp + frequency * (1.0 - ramp)
        })
        .collect()
}
