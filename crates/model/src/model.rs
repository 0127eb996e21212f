//! A model from plan to logits: `ModelPlan` is made from the header alone and says every byte;
//! `Model::load` takes exactly those bytes; `Model::forward` runs the program that was planned.

use bursar_files::ModelFile;
use bursar_kernels::attention::AttentionShape;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvLayout, KvShape};
use bursar_kernels::mat::MatRef;
use bursar_memory::region::charge_of;
use bursar_memory::{Account, Bytes, HugePages, Lifetime, Mapping};
use bursar_workers::Workers;

use crate::ModelError;
use crate::arch::{self, Architecture, Purpose, TensorSpec};
use crate::backend::cpu::{Executor, ForwardBatch};
use crate::graph::{ArenaPlan, StepLimits};
use crate::rope::RopeAngles;
use crate::weights::{Weights, WeightsPlan};

/// What a plan is made for.
#[derive(Copy, Clone, Debug)]
pub struct PlanOptions {
    /// Generation or embedding.
    pub purpose: Purpose,
    /// What a block of the key and value cache holds (generation).
    pub kv: KvShape,
    /// Most tokens in one batch.
    pub batch_tokens: usize,
    /// Most output rows at once; larger outputs run in chunks.
    pub output_rows: usize,
    /// Worker threads, the caller among them.
    pub workers: usize,
    /// Hold quantised matrices as the f32 values that they stand for: what a quantised run is
    /// compared with.
    pub dequantize: bool,
}

/// Every byte that a model will take, known before any weight is read.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    options: PlanOptions,
    architecture: Architecture,
    weights: WeightsPlan,
    arena: ArenaPlan,
}

impl ModelPlan {
    /// Plans `file` for `options`.
    pub fn new(file: &ModelFile, options: PlanOptions) -> Result<Self, ModelError> {
        let architecture = arch::build(file, options.purpose, options.kv, options.dequantize)?;
        let weights = WeightsPlan::new(&architecture.tensors)?;
        let scratch_blocks = match options.purpose {
            Purpose::Generate => 0,
            Purpose::Embed => options
                .batch_tokens
                .div_ceil(architecture.kv.block_tokens()),
        };
        let limits = StepLimits {
            tokens: options.batch_tokens,
            outputs: options.output_rows,
            workers: options.workers,
            scratch_blocks,
        };
        let arena =
            ArenaPlan::new(&architecture.program, limits).ok_or_else(|| ModelError::TooLarge {
                what: format!("activations of {} tokens", limits.tokens),
            })?;
        Ok(Self {
            options,
            architecture,
            weights,
            arena,
        })
    }

    /// What it was made for.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Bytes of all weights, packed.
    pub fn weights_bytes(&self) -> Bytes {
        charge_of(Bytes(self.weights.bytes() as u64))
    }

    /// Bytes of an arena that serves as the load's staging buffer before the first step:
    /// activations, or staging where that is larger.
    pub fn arena_bytes(&self) -> Bytes {
        charge_of(Bytes(
            self.arena.bytes().max(self.weights.staging_bytes()) as u64
        ))
    }

    /// Bytes of the step arena: activations alone.
    pub fn activation_bytes(&self) -> Bytes {
        Bytes(self.arena.bytes() as u64)
    }

    /// Bytes of the buffer that the load stages pieces of the file in.
    pub fn staging_bytes(&self) -> Bytes {
        Bytes(self.weights.staging_bytes() as u64)
    }

    /// Blocks of a pass's own keys and values (embedding); each sequence takes whole ones.
    pub fn scratch_blocks(&self) -> usize {
        self.arena.limits.scratch_blocks
    }

    /// Layout of the keys and values.
    pub fn kv(&self) -> &KvLayout {
        &self.architecture.kv
    }

    /// The tensors that will be read.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.architecture.tensors
    }

    /// The program that will run.
    pub fn program(&self) -> &crate::graph::Program {
        &self.architecture.program
    }
}

/// A loaded model. The arena that its passes run in is its caller's: models that take turns share
/// one.
pub struct Model {
    plan: ModelPlan,
    weights: Weights,
    angles: Option<RopeAngles>,
    shape: AttentionShape,
    norm_eps: f32,
    isa: Isa,
    scratch_blocks: Vec<u32>,
}

impl Model {
    /// Reserves the planned bytes of the weights under `account`, then reads them through
    /// `staging`, which is not needed afterwards. `progress` is told the file bytes read so far.
    ///
    /// # Errors
    /// When the budget refuses, or the file cannot be read.
    ///
    /// # Panics
    /// If `staging` is shorter than [`ModelPlan::staging_bytes`].
    pub fn load(
        file: &ModelFile,
        plan: ModelPlan,
        account: &Account,
        isa: Isa,
        workers: &Workers,
        staging: &mut [u8],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, ModelError> {
        let weights = account
            .child("weights", Lifetime::Semantic)
            .reserve(plan.weights_bytes())?;
        let weights = Mapping::new(weights, HugePages::Advise)?;
        let weights = Weights::load(
            file,
            &plan.architecture.tensors,
            plan.weights.clone(),
            weights,
            staging,
            workers,
            progress,
        )?;
        let config = file.config();
        let factors = plan
            .architecture
            .rope_factors
            .map(|tensor| weights.vector(tensor));
        let angles = config
            .rope
            .as_ref()
            .map(|rope| RopeAngles::new(rope, factors));
        let blocks =
            u32::try_from(plan.arena.limits.scratch_blocks).map_err(|_| ModelError::TooLarge {
                what: "scratch blocks".into(),
            })?;
        Ok(Self {
            shape: arch::attention_shape(config),
            norm_eps: config.norm_eps,
            plan,
            weights,
            angles,
            isa,
            scratch_blocks: (0..blocks).collect(),
        })
    }

    /// The plan that it was loaded by.
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// BLAKE3 over the weights as read, their names, and how they are held in memory: two models with
    /// the same compute the same from the same configuration.
    pub fn weights_digest(&self) -> &[u8; 32] {
        self.weights.digest()
    }

    /// The instruction set that it computes with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Columns of an output row: the vocabulary, or the width of a vector.
    pub fn output_width(&self) -> usize {
        self.plan.architecture.program.output_width
    }

    /// Runs one batch in `arena` over `cache`, the bytes of all KV blocks (empty for embedding).
    /// `emit` gets the index of the first output of each chunk and its rows: logits, or pooled
    /// vectors before any truncation or normalisation. What `arena` holds before and after is of no
    /// meaning.
    ///
    /// # Errors
    /// When weights that are read as they are needed cannot be read. Outputs may have been given
    /// by then; the keys and values of the batch's rows are not to be used.
    ///
    /// # Panics
    /// If the batch is larger than planned, `arena` is shorter than
    /// [`ModelPlan::activation_bytes`], a token is not in the vocabulary, or a block table is too
    /// short: the caller admits only what fits.
    pub fn forward(
        &mut self,
        batch: &ForwardBatch<'_>,
        arena: &mut [u8],
        cache: &mut [u8],
        workers: &Workers,
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) -> Result<(), ModelError> {
        assert!(
            batch.tokens.len() <= self.plan.arena.limits.tokens,
            "batch larger than planned"
        );
        assert!(
            workers.threads() <= self.plan.arena.limits.workers,
            "more workers than planned"
        );
        assert!(
            arena.len() >= self.plan.arena.bytes(),
            "an arena shorter than planned"
        );
        if batch.tokens.is_empty() {
            return Ok(());
        }
        let executor = Executor {
            isa: self.isa,
            workers,
            program: &self.plan.architecture.program,
            plan: &self.plan.arena,
            weights: &self.weights,
            angles: self.angles.as_ref(),
            shape: self.shape,
            kv: self.plan.architecture.kv,
            norm_eps: self.norm_eps,
        };
        executor.run(batch, arena, cache, &self.scratch_blocks, emit);
        Ok(())
    }
}
