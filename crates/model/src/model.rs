//! A model from plan to logits: `ModelPlan` is made from the header alone and says every byte;
//! `Model::load` takes exactly those bytes; `Model::forward` runs the program that was planned.

use bursar_files::ModelFile;
use bursar_kernels::attention::AttentionShape;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvLayout, KvShape};
use bursar_kernels::mat::MatRef;
use bursar_kernels::panel::PanelLayout;
use bursar_memory::region::charge_of;
use bursar_memory::{Account, Bytes, HugePages, Lifetime, Mapping};
use bursar_workers::Workers;

use crate::ModelError;
use crate::arch::{self, Architecture, Purpose, TensorForm, TensorSpec};
use crate::backend::cpu::{Executor, ForwardBatch};
use crate::graph::lower::lower;
use crate::graph::{ArenaPlan, Program, Stage, StepLimits};
use crate::recast::WeightsDtype;
use crate::rope::RopeAngles;
use crate::weights::{Residency, StreamFigures, Weights, WeightsPlan, Window, staging_bytes};

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
    /// How matrices are held.
    pub weights: WeightsDtype,
    /// Where weights are while the model runs.
    pub residency: Residency,
}

/// Every byte that a model will take, known before any weight is read.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    options: PlanOptions,
    architecture: Architecture,
    /// The architecture's program over weights in these forms.
    program: Program,
    weights: WeightsPlan,
    arena: ArenaPlan,
}

impl ModelPlan {
    /// Plans `file` for `options`.
    pub fn new(file: &ModelFile, options: PlanOptions) -> Result<Self, ModelError> {
        let architecture = arch::build(file, options.purpose, options.kv, options.weights)?;
        Self::of(architecture, options)
    }

    fn of(architecture: Architecture, options: PlanOptions) -> Result<Self, ModelError> {
        let program = lower(&architecture.program, &architecture.tensors);
        let (residency, workers) = (options.residency, options.workers);
        let weights = WeightsPlan::new(&architecture.tensors, &program, residency, workers)?;
        let scratch_blocks = match options.purpose {
            Purpose::Generate => 0,
            Purpose::Embed => options
                .batch_tokens
                .div_ceil(architecture.kv.block_tokens()),
        };
        let limits = StepLimits {
            tokens: options.batch_tokens,
            outputs: options.output_rows,
            workers,
            scratch_blocks,
        };
        let arena = ArenaPlan::new(&program, limits).ok_or_else(|| ModelError::TooLarge {
            what: format!("activations of {} tokens", limits.tokens),
        })?;
        Ok(Self {
            options,
            architecture,
            program,
            weights,
            arena,
        })
    }

    /// The same model with its matrices taken from the form that this plan gives them to `dtype`:
    /// what [`Model::convert`] makes of it.
    pub fn converted(&self, dtype: WeightsDtype) -> Result<Self, ModelError> {
        let mut architecture = self.architecture.clone();
        for tensor in &mut architecture.tensors {
            let TensorForm::Matrix(layout) = &mut tensor.form else {
                continue;
            };
            let (rows, cols) = (layout.rows(), layout.cols());
            let held = dtype.held(layout.dtype(), rows, cols);
            if held != layout.dtype() {
                *layout =
                    PanelLayout::new(held, rows, cols).ok_or_else(|| ModelError::TooLarge {
                        what: tensor.info.name.clone(),
                    })?;
            }
        }
        let options = PlanOptions {
            weights: dtype,
            ..self.options
        };
        Self::of(architecture, options)
    }

    /// What it was made for.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Bytes of the weights that stay in memory, packed: all of them, unless layers are streamed.
    pub fn weights_bytes(&self) -> Bytes {
        charge_of(Bytes(self.weights.held_bytes() as u64))
    }

    /// Bytes of the window that layers are streamed through, with the reader's own buffer; none
    /// where all weights stay.
    pub fn window_bytes(&self) -> Bytes {
        let (slot, slots, reader) = self.weights.window();
        let charge = |bytes: usize| charge_of(Bytes(bytes as u64));
        // No overflow: checked when the weights were planned.
        Bytes(charge(slot).0 * slots as u64 + charge(if slots > 0 { reader } else { 0 }).0)
    }

    /// Whether matrices are held in another form than the file's.
    pub fn converts(&self) -> bool {
        let converts = |tensor: &TensorSpec| match tensor.form {
            TensorForm::Matrix(layout) => layout.dtype() != tensor.info.dtype,
            TensorForm::Vector { .. } => false,
        };
        self.architecture.tensors.iter().any(converts)
    }

    /// Layers that the model has.
    pub fn layers(&self) -> usize {
        let layer = |tensor: &TensorSpec| match tensor.stage {
            Stage::Layer(layer) => layer + 1,
            Stage::Embedding | Stage::Head => 0,
        };
        let tensors = self.architecture.tensors.iter();
        tensors.map(layer).max().unwrap_or(0)
    }

    /// Layers that are read in every pass.
    pub fn streamed_layers(&self) -> usize {
        self.weights.streamed_layers()
    }

    /// Bytes of the file that every pass reads.
    pub fn pass_bytes(&self) -> Bytes {
        Bytes(self.weights.pass_bytes())
    }

    /// Multiplications and additions of one token's products, twice the values of all matrices of
    /// the layers: what decides how long a large batch takes.
    pub fn token_operations(&self) -> u64 {
        let operations = |tensor: &TensorSpec| match (tensor.stage, tensor.form) {
            (Stage::Layer(_), TensorForm::Matrix(layout)) => {
                2 * layout.rows() as u64 * layout.cols() as u64
            }
            _ => 0,
        };
        self.architecture.tensors.iter().map(operations).sum()
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
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// A loaded model. The arena that its passes run in is its caller's: models that take turns share
/// one.
pub struct Model {
    plan: ModelPlan,
    weights: Weights,
    /// The account of the weights that stay, to note on it what is measured.
    account: Account,
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
        let books = account.child("weights", Lifetime::Semantic);
        let weights = books.reserve(plan.weights_bytes())?;
        let weights = Mapping::new(weights, HugePages::Advise)?;
        let window = window(&plan.weights, account)?;
        let weights = Weights::load(
            file,
            &plan.architecture.tensors,
            plan.options.weights,
            plan.weights.clone(),
            weights,
            window,
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
        let model = Self {
            account: books,
            shape: arch::attention_shape(config),
            norm_eps: config.norm_eps,
            plan,
            weights,
            angles,
            isa,
            scratch_blocks: (0..blocks).collect(),
        };
        model.measure();
        Ok(model)
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

    /// Takes the weights to another form in place, tensor by tensor: old and new are never both in
    /// memory in full, and what is left over goes back to the operating system and off the charge.
    /// `plan` comes from [`ModelPlan::converted`] of this model's plan; `staging` has
    /// [`Model::conversion_staging`] bytes. Gives the bytes of memory that went back, measured.
    ///
    /// Passes that follow need [`ModelPlan::activation_bytes`] of the new plan, and compute something
    /// else: keys and values of before are not to be used with it, and [`Model::weights_digest`] is
    /// another.
    ///
    /// # Errors
    /// When layers are streamed, or the operating system does not count what went back.
    ///
    /// # Panics
    /// If `staging` is too short.
    pub fn convert(
        &mut self,
        plan: ModelPlan,
        staging: &mut [u8],
        workers: &Workers,
    ) -> Result<Bytes, ModelError> {
        if self.plan.window_bytes() > Bytes::ZERO {
            return Err(ModelError::Unsuited {
                model: "a model whose layers are streamed".into(),
                what: "be converted in place: its weights are not in memory",
                remedy: "load it again with --weights-dtype",
            });
        }
        assert!(
            Bytes::from(staging.len()) >= self.conversion_staging(&plan),
            "staging shorter than asked for"
        );
        let gone = self.weights.convert(
            plan.options.weights,
            &plan.architecture.tensors,
            plan.weights.clone(),
            staging,
            workers,
        );
        self.plan = plan;
        self.measure();
        gone
    }

    /// Bytes of the buffer that converting to `plan` needs.
    pub fn conversion_staging(&self, plan: &ModelPlan) -> Bytes {
        let (old, new) = (&self.plan.architecture, &plan.architecture);
        let workers = self.plan.options.workers;
        Bytes::from(staging_bytes(&old.tensors, &new.tensors, workers))
    }

    /// What streaming has done and waited for; `None` where all weights stay in memory.
    pub fn stream_figures(&self) -> Option<StreamFigures> {
        self.weights.figures()
    }

    /// Bytes of memory that the weights that stay take now, measured.
    pub fn weights_resident(&self) -> Option<Bytes> {
        self.weights.resident()
    }

    /// Notes on the weights' account how much memory they take.
    fn measure(&self) {
        if let Some(bytes) = self.weights.resident() {
            self.account.set_measured(bytes);
        }
    }

    /// The instruction set that it computes with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Columns of an output row: the vocabulary, or the width of a vector.
    pub fn output_width(&self) -> usize {
        self.plan.program.output_width
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
        let mut executor = Executor {
            isa: self.isa,
            workers,
            program: &self.plan.program,
            plan: &self.plan.arena,
            weights: &mut self.weights,
            angles: self.angles.as_ref(),
            shape: self.shape,
            kv: self.plan.architecture.kv,
            norm_eps: self.norm_eps,
        };
        executor.run(batch, arena, cache, &self.scratch_blocks, emit)
    }
}

/// Reserves and maps the window of a plan, where there is one.
fn window(plan: &WeightsPlan, account: &Account) -> Result<Option<Window>, ModelError> {
    let (slot, slots, reader) = plan.window();
    if slots == 0 {
        return Ok(None);
    }
    let account = account.child("window", Lifetime::Procedural);
    let map = |bytes: usize, huge| -> Result<Mapping, ModelError> {
        let reservation = account.reserve(charge_of(Bytes::from(bytes)))?;
        Ok(Mapping::new(reservation, huge)?)
    };
    let slots = (0..slots).map(|_| map(slot, HugePages::Advise));
    Ok(Some(Window {
        slots: slots.collect::<Result<_, _>>()?,
        staging: map(reader, HugePages::Never)?,
    }))
}
