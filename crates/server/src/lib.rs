//! The HTTP server: OpenAI's API over engines, inside the ledger.
//!
//! - `serve`: listener, connections, signals, the end.
//! - `app`: what all requests share; addresses; what comes before every request.
//! - `auth`, `limits`, `phase`: who may ask, how much they may take, and until when.
//! - `tenants`: what keeps those apart who may ask.
//! - `body`, `charge`, `json`, `fields`: from bytes to fields, each refusal naming its field.
//! - `openai`: the requests and answers of OpenAI's API.
//! - `generation`, `answers`: requests to the engine and what comes back, whole or as events.
//! - `form`, `out`: how that looks, and JSON as it is written.
//! - `served`, `wait`: a model as the server sees it, and getting one to answer with.
//! - `held`, `timings`: what a model holds; how long requests to it took.
//! - `error`: what a client is told when something is wrong.
//! - `model_api`, `optimize_api`, `plan_api`: which models there are, and having them loaded, unloaded, made
//!   smaller, planned.
//! - `dashboard`: a page to look at all of it.
//! - `health`, `memory_api`, `kv_api`, `pressure_api`, `metrics`: what those see who watch over the server.
//! - `watch`, `history`, `rates`, `sights`: the same as it happens, the last hour of it, how fast requests are
//!   answered, and what is seen of engines between two steps.
//! - `traces`: requests told to an OpenTelemetry collector, with the feature `otel`.
//! - `openapi`: all this, described for programs.
//! - `background`, `random`: small things.
//!
//! Nothing here knows how a model computes, and nothing sizes a buffer of one.

#![forbid(unsafe_code)]

mod answers;
mod app;
mod auth;
mod background;
mod body;
mod charge;
mod dashboard;
mod error;
mod fields;
mod form;
mod generation;
mod health;
mod held;
mod history;
mod json;
mod kv_api;
mod limits;
mod memory_api;
mod metrics;
mod model_api;
mod openai;
mod openapi;
mod optimize_api;
mod out;
mod phase;
mod plan_api;
mod pools_api;
mod pressure_api;
mod random;
mod rates;
mod serve;
mod served;
mod sights;
mod tenants;
mod timings;
#[cfg_attr(not(feature = "otel"), path = "untraced.rs")]
mod traces;
mod wait;
mod watch;

pub use auth::{Keys, KeysError};
pub use error::ApiError;
pub use limits::Limits;
pub use phase::Stopper;
pub use plan_api::{PlanDenied, PlanWish, Planner};
pub use serve::{REQUESTS_FLOOR, ServeError, Server, ServerOptions, listener, requests_account};
pub use served::Served;
pub use tenants::{Secret, SecretError};
#[cfg(feature = "otel")]
pub use traces::{Collector, CollectorError};
