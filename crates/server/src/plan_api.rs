//! `POST /v1/models/{id}/plan`: what a model would take with another budget, context or form of keys and
//! values, by the planner that loads models. Nothing is loaded for it.

use std::fmt::Debug;
use std::sync::Arc;

use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Refusal};
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::wait;

/// What is asked of a plan; what is not said is as the server was started.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanWish {
    /// All that the process may take, with this model alone.
    pub budget: Option<Bytes>,
    /// Longest sequence, in tokens.
    pub context: Option<usize>,
    /// Sequences that run at once.
    pub parallel: Option<usize>,
    /// How keys and values are stored.
    pub kv_dtype: Option<KvDtype>,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum PlanDenied {
    /// There is no such model.
    Unknown,
    /// There is no memory to open its file.
    Refused(Refusal),
    /// What is asked cannot be planned.
    Wrong(String),
}

/// Plans models that the server knows.
pub trait Planner: Debug + Send + Sync {
    /// The plan as `bursar plan --json` prints it, whether it fits or not. May take as long as opening
    /// a model's file does.
    ///
    /// # Errors
    /// Where there is no such model, or no plan for what is asked.
    fn plan(&self, id: &str, wish: &PlanWish) -> Result<Value, PlanDenied>;
}

impl PlanWish {
    fn read(fields: &Fields<'_>) -> Result<PlanWish, ApiError> {
        let dtypes = KvDtype::ALL.map(|dtype| (dtype.name(), dtype));
        let count = |name, most| fields.count(name, 1, most);
        Ok(PlanWish {
            budget: count("budget_bytes", 1 << 50)?.map(|bytes| Bytes(bytes as u64)),
            context: count("context", 1 << 30)?,
            parallel: count("parallel", 1 << 16)?,
            kv_dtype: fields.word("kv_dtype", &dtypes)?,
        })
    }
}

/// Plans on a thread of its own, one model at a time: who streams goes on.
pub(crate) async fn plan(app: &App, id: &str, fields: &Fields<'_>) -> Result<Value, ApiError> {
    let wish = PlanWish::read(fields)?;
    let path = format!("/v1/models/{id}/plan");
    let planner = app.planner.clone();
    let planner = planner.ok_or_else(|| ApiError::unknown_path(&path))?;
    let turn = Arc::clone(&app.planning).acquire_owned().await;
    let turn = turn.map_err(ApiError::internal)?;
    let (answer, answered) = tokio::sync::oneshot::channel();
    let name = id.to_owned();
    std::thread::Builder::new()
        .name("plan".to_owned())
        .stack_size(1 << 20)
        .spawn(move || {
            let planned = planner.plan(&name, &wish);
            drop(turn);
            // Who asked may have moved on.
            let _ = answer.send(planned);
        })
        .map_err(ApiError::internal)?;
    let planned = answered.await.map_err(ApiError::internal)?;
    planned.map_err(|denied| match denied {
        PlanDenied::Unknown => wait::refused(app, id, &bursar_engine::Denied::Unknown),
        PlanDenied::Refused(refusal) => ApiError::memory(refusal),
        PlanDenied::Wrong(why) => ApiError::invalid("", format!("cannot be planned: {why}")),
    })
}
