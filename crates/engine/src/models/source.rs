//! What a cache of models needs from those who know files, settings and engines.

use std::sync::Arc;

use bursar_memory::Bytes;
use bursar_model::Purpose;

use super::policy::Footprint;
use crate::handle::EngineHandle;

/// Lists models, loads them and unloads them. All but [`ModelSource::list`], [`ModelSource::purpose`]
/// and [`ModelSource::held`] is called on the keeper's thread alone, one after the other, and may take its time.
pub trait ModelSource: Send + Sync + 'static {
    /// What a lease gives access to.
    type Model: Send + Sync + 'static;

    /// The names of all models that could be loaded now, no two alike; asked for often.
    fn list(&self) -> Vec<String>;

    /// What a model is for, where that has been seen; asked for often.
    fn purpose(&self, id: &str) -> Option<Purpose>;

    /// Loads a model into what is free, and tells how far it has come: bytes read, of so many.
    ///
    /// # Errors
    /// When it does not fit, or cannot be loaded; nothing is held then.
    fn load(&self, id: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Self::Model, LoadError>;

    /// Unloads a model that nobody uses. It is gone, and measured as gone, when this returns.
    fn unload(&self, id: &str, model: Arc<Self::Model>, why: &Why);

    /// What a model holds now.
    fn held(&self, model: &Self::Model) -> Held;

    /// Has the models that are there give back `bytes`, if they can, without harm to what they do;
    /// `why` says for whom. Whether that worked shows in what is free.
    fn reclaim(&self, bytes: Bytes, why: &str);

    /// Hears of a model that could not be loaded.
    fn failed(&self, id: &str, why: &str);
}

/// What a model holds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of it.
    pub footprint: Footprint,
    /// The part of its own that it could give back and stay.
    pub spare: Bytes,
}

impl Held {
    /// What a model on an engine holds.
    pub fn of(engine: &EngineHandle) -> Self {
        Self {
            footprint: Footprint {
                own: engine.account().claimed(),
                arena: engine.plan().activations(),
                loading: Bytes::ZERO,
            },
            spare: engine.spare(),
        }
    }

    /// What it would hold if it gave back what it can spare.
    pub(super) fn least(&self) -> Footprint {
        Footprint {
            own: self.footprint.own.saturating_sub(self.spare),
            ..self.footprint
        }
    }
}

/// Why a model goes, in a word for counting and in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// What kind of reason it is.
    pub kind: WhyKind,
    /// In words.
    pub words: String,
    /// What it held.
    pub held: Bytes,
}

/// Kinds of reasons for a model to go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum WhyKind {
    /// Its place was needed by another model.
    Room,
    /// The whole process was to hold less.
    Pressure,
    /// Nobody used it for as long as it was to be kept.
    Idle,
    /// Somebody asked for it.
    Asked,
    /// The server ends.
    End,
}

impl WhyKind {
    /// All of them.
    pub const ALL: [WhyKind; 5] = [
        WhyKind::Room,
        WhyKind::Pressure,
        WhyKind::Idle,
        WhyKind::Asked,
        WhyKind::End,
    ];

    /// The word as it appears in reports: `room`.
    pub const fn name(self) -> &'static str {
        match self {
            WhyKind::Room => "room",
            WhyKind::Pressure => "pressure",
            WhyKind::Idle => "idle",
            WhyKind::Asked => "asked",
            WhyKind::End => "end",
        }
    }
}

/// Why a model could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// There is no such model any more.
    Missing,
    /// It takes more than is free: so much at least.
    NeedsMore(Footprint),
    /// Something is wrong with it, or with the system.
    Failed(String),
}
