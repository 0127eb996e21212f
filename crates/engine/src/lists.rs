//! What a model's steps take down besides what lies in the arena: who runs, what of it, and what comes
//! of it. The lists are made once, as long as a step can make them, so that no step makes them longer;
//! their bytes are part of the plan and charged to the model.

use bursar_memory::Bytes;
use bursar_model::{ModelPlan, Purpose};

use crate::batch::Batch;
use crate::pack::Pick;
use crate::schedule::{Candidate, Decision, Run};
use crate::sequence::{Outcome, Sequence};
use crate::text_batch::TextBatch;

/// How long a model's lists may get.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Tokens of a batch.
    pub(crate) tokens: usize,
    /// Sequences that a step deals with, or texts of a batch.
    pub(crate) sequences: usize,
    /// What they take on the heap.
    pub(crate) bytes: Bytes,
}

impl Lists {
    /// Those of a model, `parallel` of whose sequences run at once if it writes.
    pub(crate) fn of(model: &ModelPlan, purpose: Purpose, parallel: usize) -> Self {
        let tokens = model.options().batch_tokens;
        match purpose {
            Purpose::Generate => Self::writing(tokens, parallel),
            Purpose::Embed => Self::embedding(model),
        }
    }

    /// Those of a model that writes.
    pub(crate) fn writing(tokens: usize, parallel: usize) -> Self {
        // As many may come in as leave, all in one step.
        let sequences = 2 * parallel;
        // What is decided: who is preempted, who is senior, who may make room; and who leaves, and who
        // of them has ended.
        let each = size_of::<Sequence>()
            + size_of::<Candidate>()
            + size_of::<Run>()
            + 5 * size_of::<usize>();
        let bytes = Batch::bytes(tokens, sequences)
            + tokens * size_of::<(usize, Outcome)>()
            + sequences * each;
        Self {
            tokens,
            sequences,
            bytes: Bytes::from(bytes),
        }
    }

    /// Those of a model that makes vectors.
    pub(crate) fn embedding(model: &ModelPlan) -> Self {
        // Each text takes a block at least.
        let (tokens, texts) = (model.options().batch_tokens, model.scratch_blocks());
        let bytes = TextBatch::bytes(tokens, texts) + texts * size_of::<Pick>();
        Self {
            tokens,
            sequences: texts,
            bytes: Bytes::from(bytes),
        }
    }
}

/// The lists of a model that writes.
#[derive(Debug, Default)]
pub(crate) struct StepLists {
    pub(crate) decision: Decision,
    pub(crate) batch: Batch,
    /// Those who run, and those who wait.
    pub(crate) candidates: [Vec<Candidate>; 2],
    pub(crate) outcomes: Vec<(usize, Outcome)>,
    /// Alternatives to the tokens of the outcomes, one after the other.
    pub(crate) tops: Vec<(u32, f32)>,
    /// Places of those who leave after the step, and of those among them who have ended.
    pub(crate) leaving: Vec<usize>,
    pub(crate) ended: Vec<usize>,
}

impl StepLists {
    /// As long as a step can make them. How many wait, and what alternatives are asked for, only the
    /// requests tell.
    pub(crate) fn with_capacity(most: Lists) -> Self {
        let Lists {
            tokens, sequences, ..
        } = most;
        Self {
            decision: Decision::with_capacity(sequences),
            batch: Batch::with_capacity(tokens, sequences),
            candidates: [Vec::with_capacity(sequences), Vec::new()],
            outcomes: Vec::with_capacity(tokens),
            tops: Vec::new(),
            leaving: Vec::with_capacity(sequences),
            ended: Vec::with_capacity(sequences),
        }
    }
}
