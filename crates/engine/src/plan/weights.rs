//! What form weights take and where they are: as asked for, or what fits, the least lossy first; and
//! what a model whose layers are streamed can be expected to do.

use std::fmt;

use bursar_memory::Bytes;
use bursar_model::{ModelPlan, Purpose, Rates, Residency, WeightsDtype};

use super::texts::tokens_within;
use super::{CONTEXT_MIN, MemoryPlan, PlanRequest, REMEDY_MARGIN, Subject};
use crate::EngineError;

/// Layers in a window: one that computes, one that is read. More would only even out a disk that
/// stutters.
const WINDOW: usize = 2;
/// More tokens than this in a batch gain nothing: reading has long been hidden behind products.
const STREAMED_BATCH_MAX: usize = 4096;

/// What is asked of weights.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightsRequest {
    /// Their form.
    pub dtype: DtypeChoice,
    /// Where they are.
    pub residency: ResidencyChoice,
    /// Most layers that stay in memory where layers are streamed; as many as fit by default.
    pub held_layers: Option<usize>,
}

impl WeightsRequest {
    /// As the f32 values that they stand for: what a quantised run is compared with.
    pub const F32: WeightsRequest = WeightsRequest {
        dtype: DtypeChoice::Held(WeightsDtype::F32),
        residency: ResidencyChoice::Resident,
        held_layers: None,
    };
}

/// Which form matrices take.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DtypeChoice {
    /// The least lossy one that fits.
    Auto,
    /// This one.
    Held(WeightsDtype),
}

impl Default for DtypeChoice {
    fn default() -> Self {
        DtypeChoice::Held(WeightsDtype::AsIs)
    }
}

impl DtypeChoice {
    /// Those that may be taken, in order of preference.
    pub(super) fn candidates(&self) -> &[WeightsDtype] {
        match self {
            DtypeChoice::Auto => &WeightsDtype::DESCENDING,
            DtypeChoice::Held(dtype) => std::slice::from_ref(dtype),
        }
    }
}

/// Where weights are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ResidencyChoice {
    /// In memory; streamed where nothing else makes the model fit.
    Auto,
    /// In memory, or it does not fit.
    #[default]
    Resident,
    /// Streamed, with as many layers in memory as there is room for.
    Streamed,
}

/// What was chosen.
#[derive(Copy, Clone, Debug)]
pub(super) struct Held {
    pub(super) dtype: WeightsDtype,
    pub(super) residency: Residency,
}

impl Held {
    pub(super) fn resident(dtype: WeightsDtype) -> Self {
        Self {
            dtype,
            residency: Residency::Resident,
        }
    }

    pub(super) fn of(model: &ModelPlan) -> Self {
        let options = model.options();
        Self {
            dtype: options.weights,
            residency: options.residency,
        }
    }

    fn streamed(dtype: WeightsDtype, held_layers: usize) -> Self {
        Self {
            dtype,
            residency: Residency::Streamed {
                window: WINDOW,
                held_layers,
                held_table: false,
            },
        }
    }
}

impl Subject<'_> {
    /// The plan of a request with streamed layers. Keys and values come first; then, for texts to
    /// embed, the largest batch: a pass costs the same reading whatever its size; then as many layers
    /// stay in memory as fit.
    pub(super) fn streamed(&self, request: &PlanRequest) -> Result<MemoryPlan, EngineError> {
        // Streaming makes the stored form fit: no other is lossless.
        let dtype = request.weights.dtype.candidates()[0];
        let mut request = *request;
        let mut plan = self.plan(&request, Held::streamed(dtype, 0))?;
        if request.purpose == Purpose::Embed {
            while !plan.fits() && request.context.is_none() && plan.context() / 2 >= CONTEXT_MIN {
                // The longest text is a wish too, unless somebody asked for it.
                let context = Some(plan.context() / 2);
                let shorter = PlanRequest { context, ..request };
                plan = self.plan(&shorter, Held::streamed(dtype, 0))?;
                if plan.fits() {
                    request = shorter;
                }
            }
            let free = request.batch_tokens.is_none() && request.batch_memory.is_none();
            if plan.fits() && free {
                request.batch_tokens = Some(self.largest_batch(&request, &plan, dtype)?);
            }
        }
        if !plan.fits() {
            return Ok(plan);
        }
        // The most layers that fit: all were tried before.
        let layers = self.file.config().layers;
        let most = request.weights.held_layers.unwrap_or(layers).min(layers);
        let (mut fits, mut too_many) = (0, most + 1);
        let context = Some(plan.context());
        let request = PlanRequest { context, ..request };
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            match self.plan(&request, Held::streamed(dtype, middle))?.fits() {
                true => fits = middle,
                false => too_many = middle,
            }
        }
        self.plan(&request, Held::streamed(dtype, fits))
    }

    /// The largest batch beside no held layers.
    fn largest_batch(
        &self,
        request: &PlanRequest,
        plan: &MemoryPlan,
        dtype: WeightsDtype,
    ) -> Result<usize, EngineError> {
        let total = |tokens| {
            if tokens > STREAMED_BATCH_MAX.max(plan.batch_tokens()) {
                return Ok(Bytes(u64::MAX));
            }
            let larger = PlanRequest {
                batch_tokens: Some(tokens),
                ..*request
            };
            Ok(self.plan(&larger, Held::streamed(dtype, 0))?.total())
        };
        let found = tokens_within(self.budget, plan.batch_tokens(), total)?;
        Ok(found.unwrap_or(plan.batch_tokens()))
    }
}

/// What a plan says of its weights.
pub(super) fn note(model: &ModelPlan) -> String {
    let form = match model.options().weights {
        WeightsDtype::AsIs => String::new(),
        dtype => format!(", matrices as {dtype} where that is smaller"),
    };
    format!("{} tensors, packed{form}", model.tensors().len())
}

/// What of its weights would make a plan fit that does not: the least lossy form, or streaming.
pub(super) fn remedy(
    plan: &MemoryPlan,
    subject: &Subject<'_>,
) -> Result<Option<String>, EngineError> {
    let budget = subject.budget.saturating_sub(REMEDY_MARGIN);
    let subject = &Subject { budget, ..*subject };
    let request = plan.request();
    if let DtypeChoice::Held(held) = request.weights.dtype {
        let forms = WeightsDtype::DESCENDING.iter();
        for &dtype in forms.skip_while(|&&dtype| dtype != held).skip(1) {
            let other = subject.plan(request, Held::resident(dtype))?;
            if other.fits() {
                let total = other.total();
                return Ok(Some(format!(
                    "--weights-dtype {dtype} ({total} in all, lossy)"
                )));
            }
        }
    }
    if request.weights.residency != ResidencyChoice::Resident {
        return Ok(None);
    }
    let other = subject.streamed(request)?;
    Ok(other.fits().then(|| {
        "--weights-residency streamed (slow: layers are read again in every pass)".to_owned()
    }))
}

/// Layers that are read again in every pass.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// How many.
    pub layers: usize,
    /// Layers that the model has.
    pub of: usize,
    /// Layers that the window holds.
    pub window: usize,
    /// Bytes of the window, the reader's buffer included.
    pub window_bytes: Bytes,
    /// Bytes of the file that each pass reads.
    pub pass_bytes: Bytes,
}

impl Streaming {
    pub(super) fn of(model: &ModelPlan) -> Option<Self> {
        let (layers, Residency::Streamed { window, .. }) =
            (model.streamed_layers(), model.options().residency)
        else {
            return None;
        };
        (layers > 0).then(|| Self {
            layers,
            of: model.layers(),
            window,
            window_bytes: model.window_bytes(),
            pass_bytes: model.pass_bytes(),
        })
    }
}

impl fmt::Display for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layers,
            of,
            window,
            pass_bytes,
            ..
        } = self;
        write!(
            f,
            "{window} layers at a time; {layers} of {of} are read in every pass, {pass_bytes}"
        )
    }
}

/// What a model whose layers are streamed can be expected to do.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Expected {
    /// Tokens per second in batches of the planned size.
    pub batch_tokens_per_second: f64,
    /// Tokens per second one by one.
    pub single_tokens_per_second: f64,
}

impl MemoryPlan {
    /// What to expect by the rates measured; `None` where nothing is streamed. A pass takes as long
    /// as reading, as packing by one thread, or as the work of all threads on products and packing,
    /// whichever is longest: they go on at the same time.
    pub fn expected(&self, rates: &Rates) -> Option<Expected> {
        let streaming = self.streaming()?;
        let bytes = streaming.pass_bytes.0 as f64;
        let operations = self.model.token_operations() as f64;
        let packing = bytes / rates.pack_bytes_per_second;
        let threads = self.request.threads as f64;
        let pass = |tokens: f64| {
            let products = tokens * operations / rates.operations_per_second;
            (bytes / rates.read_bytes_per_second)
                .max(packing)
                .max(products + packing / threads)
        };
        let batch = self.batch_tokens() as f64;
        Some(Expected {
            batch_tokens_per_second: batch / pass(batch),
            single_tokens_per_second: 1.0 / pass(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bursar_files::ModelFile;
    use bursar_files::synth::Preset;
    use bursar_kernels::kv_view::KvDtype;

    use super::*;
    use crate::process::ProcessBase;
    use crate::vocabulary::Vocabulary;

    fn open(name: &str) -> ModelFile {
        match name.split_once("tests/") {
            Some(_) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
                ModelFile::open(&path).expect("a fixture")
            }
            None => {
                let preset = Preset::parse(name).expect("a preset");
                ModelFile::from_preset(&preset).expect("a header")
            }
        }
    }

    fn request(purpose: Purpose, dtype: DtypeChoice, residency: ResidencyChoice) -> PlanRequest {
        PlanRequest {
            purpose,
            context: None,
            parallel: 1,
            batch_tokens: None,
            batch_memory: None,
            kv_dtype_k: KvDtype::F16,
            kv_dtype_v: KvDtype::F16,
            kv_block_tokens: 16,
            kv_memory: None,
            threads: 2,
            weights: WeightsRequest {
                dtype,
                residency,
                held_layers: None,
            },
        }
    }

    const AS_IS: DtypeChoice = DtypeChoice::Held(WeightsDtype::AsIs);

    /// The plan of a model within some bytes beside what the process and the tokenizer take.
    fn within(file: &ModelFile, request: &PlanRequest, mib: u64) -> MemoryPlan {
        let vocabulary = Vocabulary::open(file).expect("a tokenizer");
        let base = ProcessBase::measure().expect("a process");
        let budget = base.bytes().max(vocabulary.bytes()) + Bytes(mib << 20);
        MemoryPlan::new(file, &vocabulary, base, request, budget).expect("a plan")
    }

    #[test]
    fn auto_takes_the_least_lossy_form_that_fits() {
        let file = open("qwen3-0.6b:f32");
        let of = |mib| {
            let request = request(Purpose::Generate, DtypeChoice::Auto, ResidencyChoice::Auto);
            within(&file, &request, mib)
        };
        let mut before = Vec::new();
        for (mib, dtype) in [
            (4000, WeightsDtype::AsIs),
            (2000, WeightsDtype::Bf16),
            (1000, WeightsDtype::Q8_0),
            (600, WeightsDtype::Q4K),
        ] {
            let plan = of(mib);
            assert!(plan.fits(), "{mib}");
            assert_eq!(plan.model().options().weights, dtype, "{mib}");
            assert_eq!(plan.streaming(), None, "{mib}");
            assert_eq!(plan.converts(), dtype != WeightsDtype::AsIs);
            before.push(plan.model().weights_bytes());
        }
        assert!(before.is_sorted_by(|a, b| a > b), "{before:?}");
        // Nothing is lossy without having been asked for, but named where it would help.
        let request = request(Purpose::Generate, AS_IS, ResidencyChoice::Resident);
        let plan = within(&file, &request, 1000);
        assert!(!plan.fits() && !plan.converts());
        let remedies = plan.remedies(Bytes(0)).join("; ");
        assert!(remedies.contains("--weights-dtype q8_0"), "{remedies}");
    }

    #[test]
    fn a_model_is_streamed_where_nothing_else_makes_it_fit() {
        let file = open("nomic-embed-code:q5_k_s");
        let plan = |mib, residency| within(&file, &request(Purpose::Embed, AS_IS, residency), mib);
        let resident = plan(8 << 10, ResidencyChoice::Auto);
        assert!(resident.fits() && resident.streaming().is_none());
        assert!(resident.model().weights_bytes() > Bytes(4 << 30));

        let small = plan(1400, ResidencyChoice::Auto);
        assert!(small.fits());
        let streaming = small.streaming().expect("streamed");
        assert_eq!((streaming.window, streaming.of), (WINDOW, 28));
        assert!(streaming.window_bytes < Bytes(400 << 20), "{streaming:?}");
        assert!(small.batch_tokens() > 2048, "{}", small.batch_tokens());
        let refused = plan(1400, ResidencyChoice::Resident);
        assert!(!refused.fits());
        assert!(
            refused
                .remedies(Bytes(0))
                .concat()
                .contains("--weights-residency")
        );
        assert!(
            !plan(300, ResidencyChoice::Auto).fits(),
            "not even a window"
        );

        // With more room more layers stay; the books say what is there.
        let mut layers = 29;
        for mib in [1400, 3000, 4000, 4800] {
            let plan = plan(mib, ResidencyChoice::Streamed);
            assert!(plan.fits());
            let streamed = plan.streaming().map_or(0, |streaming| streaming.layers);
            assert!(streamed < layers, "{streamed} at {mib} MiB");
            layers = streamed;
            let window = plan.parts().iter().find(|part| part.name == "window");
            assert_eq!(
                window.map(|part| part.bytes),
                plan.streaming().map(|streaming| streaming.window_bytes)
            );
        }
    }

    #[test]
    fn a_context_that_is_too_long_is_no_reason_to_stream() {
        let file = open("qwen3-0.6b:q8_0");
        let long = PlanRequest {
            context: Some(32 << 10),
            ..request(Purpose::Generate, AS_IS, ResidencyChoice::Auto)
        };
        let plan = within(&file, &long, 1200);
        assert!(!plan.fits() && plan.streaming().is_none());
        assert!(plan.remedies(Bytes(0)).concat().contains("--context"));
    }

    #[test]
    fn what_to_expect_follows_from_what_is_slowest() {
        let file = open("nomic-embed-code:q5_k_s");
        let request = request(Purpose::Embed, AS_IS, ResidencyChoice::Streamed);
        let plan = within(&file, &request, 1400);
        let bytes = plan.streaming().expect("streamed").pass_bytes.0 as f64;
        let rates = Rates {
            read_bytes_per_second: bytes,
            pack_bytes_per_second: bytes * 4.0,
            operations_per_second: 1e30,
        };
        let expected = plan.expected(&rates).expect("streamed");
        // The disk alone: a pass takes a second.
        assert_eq!(expected.single_tokens_per_second, 1.0);
        assert_eq!(expected.batch_tokens_per_second, plan.batch_tokens() as f64);
        let slow = Rates {
            operations_per_second: plan.model().token_operations() as f64 * 10.0,
            ..rates
        };
        let expected = plan.expected(&slow).expect("streamed");
        assert_eq!(expected.single_tokens_per_second, 1.0);
        assert!((expected.batch_tokens_per_second - 10.0).abs() < 0.1);
        let resident = within(&file, &request, 8 << 10);
        assert_eq!(resident.streaming(), None, "all layers stay");
    }
}
