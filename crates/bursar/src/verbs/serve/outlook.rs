//! What a model would take if budget, context or the form of keys and values were others: planned as it would
//! be served alone, and not loaded.

use std::fmt;
use std::sync::Arc;

use bursar_engine::{MemoryPlan, ProcessBase, Purpose, longest_of};
use bursar_memory::Bytes;
use bursar_server::{PlanDenied, PlanWish, Planner};
use serde_json::Value;

use super::catalog::{Catalog, Opened};
use super::{BATCH_TOKENS, PARALLEL};
use crate::sizing;
use crate::verbs::plan;

/// Plans the models of a catalog.
pub(super) struct Outlook(pub(super) Arc<Catalog>);

impl fmt::Debug for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlook")
    }
}

impl Planner for Outlook {
    fn plan(&self, id: &str, wish: &PlanWish) -> Result<Value, PlanDenied> {
        let sizes = &self.0.parts.sizes;
        let found = self.0.found(id).ok_or(PlanDenied::Unknown)?;
        let _opening = sizes.opening();
        let opened = Opened::of(id, &found);
        let opened = opened.map_err(|failure| PlanDenied::Wrong(failure.message().to_owned()))?;
        let Opened {
            file,
            vocabulary,
            purpose,
            ..
        } = opened;
        let settings = &sizes.settings;
        let budget = wish.budget.unwrap_or(sizes.budget);
        let parallel = wish.parallel.unwrap_or(match settings.parallel_is_given() {
            true => settings.parallel(),
            false => PARALLEL,
        });
        let mut request = sizing::request(settings, purpose, parallel, budget);
        if let Some(dtype) = wish.kv_dtype {
            (request.kv_dtype_k, request.kv_dtype_v) = (dtype, dtype);
        }
        let context = wish.context.or(request.context);
        request.context = context.map(|context| context.min(longest_of(file.config(), purpose)));
        if wish.context.is_some() || wish.parallel.is_some() {
            // What so many sequences of that length need is what is asked.
            request.kv_memory = None;
        }
        if purpose == Purpose::Generate {
            request.batch_tokens.get_or_insert(BATCH_TOKENS);
        }
        // Alone: with no tokenizer but its own, and an arena that is all its.
        let others = sizes.base.without(sizes.tokenizers);
        let base = ProcessBase {
            resident: others.resident.saturating_add(vocabulary.bytes()),
            ..others
        };
        let base = base.with_arena(Bytes::ZERO);
        let planned = MemoryPlan::new(&file, &vocabulary, base, &request, budget);
        let planned = planned.map_err(|error| PlanDenied::Wrong(error.to_string()))?;
        let source = match wish.budget {
            Some(_) => "asked for",
            None => "of the server",
        };
        Ok(plan::document(&file, &planned, None, source, None))
    }
}
