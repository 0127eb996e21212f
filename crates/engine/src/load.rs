//! A model made ready for an engine: everything that its plan names, reserved, mapped and read.

use std::sync::Arc;

use bursar_files::{ModelConfig, ModelFile};
use bursar_kv::{KvCache, KvOptions};
use bursar_memory::region::charge_of;
use bursar_memory::{Account, Bytes, HugePages, Ledger, Lifetime, Mapping, Refusal, Reservation};
use bursar_model::{Model, ModelError, Purpose};
use bursar_workers::Workers;

use crate::EngineError;
use crate::encoder::TextEncoder;
use crate::fingerprint::{ConfigDigest, fingerprint};
use crate::generate::LoadOptions;
use crate::plan::{MemoryPlan, after_loading};
use crate::process::ProcessBase;
use crate::sample::Sampler;
use crate::vocabulary::Vocabulary;

/// A loaded model with its workers, to be handed to [`crate::EngineController::add`].
pub struct EngineModel {
    pub(crate) name: String,
    pub(crate) vocab: usize,
    pub(crate) model: Model,
    pub(crate) workers: Arc<Workers>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) plan: Arc<MemoryPlan>,
    pub(crate) job: Job,
    /// What its steps take down: charged before it is made.
    pub(crate) lists: Reservation,
    pub(crate) account: Account,
}

/// What it does.
#[allow(clippy::large_enum_variant, reason = "there is one per model")]
pub(crate) enum Job {
    Generate {
        kv: KvCache,
        sampler: Sampler,
        /// What computes.
        fingerprint: [u8; 32],
        config: ConfigDigest,
        _sampling: Reservation,
    },
    Embed {
        encoder: Arc<TextEncoder>,
    },
}

impl EngineModel {
    /// Reserves what `plan` names under a child of the ledger's root that is called `name`, but for the
    /// process's own part and the arena; then reads the weights. `progress` is told the file bytes read
    /// so far.
    ///
    /// The arena is the engine's: who loads claims what it has to grow by first, see
    /// [`crate::EngineController::claim`].
    ///
    /// The process's part is there once however many models there are: see
    /// [`ProcessBase::reserve`]. Engines may share `workers`: while one has them, another computes on
    /// its own thread alone.
    ///
    /// # Errors
    /// When the plan does not fit, the budget refuses, or the file cannot be read.
    #[allow(
        clippy::too_many_arguments,
        reason = "each comes from another owner, and there is one caller"
    )]
    pub fn load(
        name: &str,
        file: &ModelFile,
        mut vocabulary: Vocabulary,
        plan: MemoryPlan,
        ledger: &Ledger,
        options: LoadOptions,
        workers: Arc<Workers>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, EngineError> {
        let config: &ModelConfig = file.config();
        let account = open_account(name, &mut vocabulary, &plan, ledger)?;
        let vocabulary = Arc::new(vocabulary);
        let sampling = Bytes(Sampler::bytes(config.vocab) as u64);
        // What comes after the weights is held while they are read, so that nobody else can take it;
        // the buffer for that lies in it, and so adds nothing to the peak.
        let after = after_loading(plan.kv(), config.vocab, plan.lists());
        let staging = charge_of(plan.model.staging_bytes());
        let mut held = account
            .child("staging", Lifetime::Procedural)
            .reserve(staging.max(after))?;
        let mut staging =
            Mapping::new(held.split(staging), HugePages::Never).map_err(ModelError::from)?;
        let model = Model::load(
            file,
            plan.model.clone(),
            &account,
            options.isa,
            &workers,
            staging.as_mut_slice(),
            progress,
        )?;
        drop((staging, held));
        let lists = reserve_lists(&account, &plan)?;
        let job = match plan.kv().copied() {
            Some(kv) => Job::Generate {
                _sampling: account
                    .child("sampling", Lifetime::Procedural)
                    .reserve(sampling)?,
                kv: KvCache::new(kv, &account, KvOptions::default())?,
                sampler: Sampler::new(config.vocab),
                fingerprint: fingerprint(&ConfigDigest::new(config), &model),
                config: ConfigDigest::new(config),
            },
            None => Job::Embed {
                encoder: Arc::new(TextEncoder::new(
                    config,
                    Arc::clone(&vocabulary),
                    plan.context(),
                    model.output_width(),
                )),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            vocab: config.vocab,
            model,
            workers,
            vocabulary,
            plan: Arc::new(plan),
            job,
            lists,
            account,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Generation or embedding.
    pub fn purpose(&self) -> Purpose {
        match self.job {
            Job::Generate { .. } => Purpose::Generate,
            Job::Embed { .. } => Purpose::Embed,
        }
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The plan that it was loaded by.
    pub fn plan(&self) -> &Arc<MemoryPlan> {
        &self.plan
    }
}

/// What every way to load a model begins with: a plan that does not fit takes nothing; one that does
/// gets the model's account, with the tokenizer's bytes on it.
pub(crate) fn open_account(
    name: &str,
    vocabulary: &mut Vocabulary,
    plan: &MemoryPlan,
    ledger: &Ledger,
) -> Result<Account, EngineError> {
    if !plan.fits() {
        return Err(EngineError::DoesNotFit {
            model: name.to_owned(),
            need: plan.total(),
            budget: plan.budget(),
        });
    }
    let account = ledger.root().child(name, Lifetime::Semantic);
    vocabulary.charge(&account)?;
    Ok(account)
}

/// Charges what the model's steps take down.
pub(crate) fn reserve_lists(account: &Account, plan: &MemoryPlan) -> Result<Reservation, Refusal> {
    let account = account.child("lists", Lifetime::Procedural);
    account.reserve(plan.lists().bytes)
}

/// The memory that passes run in.
pub(crate) fn map_arena(account: &Account, bytes: Bytes) -> Result<Mapping, EngineError> {
    let arena = account
        .child("activations", Lifetime::Procedural)
        .reserve(charge_of(bytes))
        .map_err(EngineError::from)?;
    Ok(Mapping::new(arena, HugePages::Never).map_err(ModelError::from)?)
}

/// The threads that a plan counts on.
pub(crate) fn start_workers(plan: &MemoryPlan) -> Result<Workers, EngineError> {
    Ok(Workers::with_options(bursar_workers::Options {
        threads: plan.request().threads,
        ..Default::default()
    })?)
}

impl ProcessBase {
    /// Charges what the process itself takes, the `tokenizers` apart, which are charged to their
    /// models. The program's pages are made resident with it: what is counted is there, and no step
    /// waits for a file later.
    ///
    /// # Errors
    /// When the budget does not hold it.
    pub fn reserve(&self, ledger: &Ledger, tokenizers: Bytes) -> Result<Reservation, Refusal> {
        let reservation = ledger
            .root()
            .child("process", Lifetime::Procedural)
            .reserve(self.bytes().saturating_sub(tokenizers))?;
        // Where the kernel cannot, they become resident as they are touched, and are fewer.
        let _ = bursar_memory::program::make_resident(self.bundled);
        Ok(reservation)
    }
}
