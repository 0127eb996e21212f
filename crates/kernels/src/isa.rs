//! Which vector instructions this machine has, as tokens that only detection can make.
//!
//! Holding an [`Isa`] proves that its instructions can run here, so calling a kernel with it is safe.
//! Tests and the `BURSAR_ISA` override pick a lesser one through [`Isa::from_name`].

/// Proof that this machine has AVX2, FMA and F16C.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that this machine has AVX-512 F, BW, DQ, VL and VNNI, and what [`Avx2`] proves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx512 {
    /// What AVX-512 machines have besides.
    pub fn avx2(self) -> Avx2 {
        Avx2(())
    }
}

/// The instruction set that a kernel shall use; made by detection only.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Isa(Level);

/// What dispatch matches on: each vector level with its proof.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Portable code; the twin that all others must equal.
    Scalar,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors with dot products of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

#[cfg(target_arch = "x86_64")]
static LEVELS: [Isa; 3] = [
    Isa(Level::Scalar),
    Isa(Level::Avx2(Avx2(()))),
    Isa(Level::Avx512(Avx512(()))),
];
#[cfg(not(target_arch = "x86_64"))]
static LEVELS: [Isa; 1] = [Isa(Level::Scalar)];

impl Isa {
    /// All that this machine can run, the best last.
    pub fn available() -> &'static [Isa] {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            &LEVELS[..1 + usize::from(avx2) + usize::from(avx512)]
        }
        #[cfg(not(target_arch = "x86_64"))]
        &LEVELS
    }

    /// The best that this machine can run.
    pub fn best() -> Isa {
        *Isa::available().last().unwrap_or(&LEVELS[0])
    }

    /// Portable code, available everywhere.
    pub fn scalar() -> Isa {
        LEVELS[0]
    }

    /// The instruction set of this name, if this machine has it: `scalar`, `avx2` or `avx512`.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::available()
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
    }

    /// The name that [`Isa::from_name`] knows.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
        }
    }

    /// What dispatch matches on.
    pub fn level(self) -> Level {
        self.0
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_isa_has_a_name_that_finds_it() {
        assert_eq!(Isa::available()[0], Isa::scalar());
        for &isa in Isa::available() {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("neon9000"), None);
        assert_eq!(Isa::available().last(), Some(&Isa::best()));
    }
}
