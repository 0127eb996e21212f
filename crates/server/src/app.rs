//! What all requests share, and what happens to each before and after it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bursar_engine::{Lease, ModelCache, ParamsPool};
use bursar_memory::counting::HeapCounts;
use bursar_memory::pressure::Gauge;
use bursar_memory::{Account, Bytes, Ledger, Pools, ReclaimBooks, ReclaimEvent, Rung};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use crate::auth::Keys;
use crate::charge::Charge;
use crate::error::{ApiError, json_response};
use crate::fields::Fields;
use crate::history::{self, History};
use crate::limits::Limits;
use crate::metrics::Requests;
use crate::openai::{chat, completions, embeddings, tokens};
use crate::phase::{Phase, Stopper};
use crate::plan_api::Planner;
use crate::rates::Rates;
use crate::served::{Served, unix_ms};
use crate::sights::Sights;
use crate::tenants::{Secret, Tenant};
use crate::traces::{Trace, Tracer};
use crate::watch::{self, Watch};
use crate::{body, dashboard, health, memory_api, metrics, model_api, openapi, pressure_api, wait};

/// What all requests share.
pub(crate) struct App {
    pub(crate) models: ModelCache<Served>,
    /// Seconds since 1970 when the server began.
    pub(crate) created: u64,
    pub(crate) ledger: Ledger,
    /// Bodies and answers.
    pub(crate) account: Account,
    pub(crate) keys: Option<Keys>,
    pub(crate) secret: Secret,
    pub(crate) limits: Limits,
    pub(crate) stopper: Stopper,
    pub(crate) running: Running,
    pub(crate) requests: Requests,
    /// How short memory is.
    pub(crate) pressure: Gauge,
    /// What was done for it.
    pub(crate) reclaim: ReclaimBooks,
    /// What the process allocator has handed out.
    pub(crate) heap: Option<fn() -> HeapCounts>,
    pub(crate) params: ParamsPool,
    /// Where bodies and answers lie.
    pub(crate) pools: Pools,
    /// What is kept and made for those who watch.
    pub(crate) watching: Account,
    pub(crate) history: History,
    pub(crate) rates: Rates,
    pub(crate) watch: Watch,
    pub(crate) tracer: Tracer,
    /// What plans models without loading them, and whose turn that is.
    pub(crate) planner: Option<Arc<dyn Planner>>,
    pub(crate) planning: Arc<Semaphore>,
}

/// A request whose body has been read.
pub(crate) struct Received {
    /// The body.
    pub(crate) value: Value,
    /// What it holds.
    pub(crate) charge: Charge,
    /// Keeps the server from ending.
    pub(crate) in_flight: InFlight,
    /// Who asks.
    pub(crate) tenant: Tenant,
}

impl App {
    /// The model that a request names, to be used for as long as the lease is held. A model that is not
    /// there is waited for.
    pub(crate) async fn model(&self, fields: &Fields<'_>) -> Result<Lease<Served>, ApiError> {
        let id = fields.required_text("model")?;
        wait::for_model(self, id, wait::keep_alive(fields)?).await
    }

    /// As [`App::model`]; where there is but one, it need not be named.
    pub(crate) async fn model_or_only(
        &self,
        fields: &Fields<'_>,
    ) -> Result<Lease<Served>, ApiError> {
        if fields.get("model").is_none() {
            let mut models = self.models.status();
            if let (Some(only), true) = (models.pop(), models.is_empty()) {
                return wait::for_model(self, &only.id, wait::keep_alive(fields)?).await;
            }
        }
        self.model(fields).await
    }

    /// The models that are there; not to be kept.
    pub(crate) fn served(&self) -> Vec<Arc<Served>> {
        let models = self.models.status().into_iter();
        models.filter_map(|status| status.model).collect()
    }
}

/// A mutex whose data stay usable after a panic elsewhere: all changes under it are single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the requests that are being answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    left: Notify,
}

impl Running {
    /// One more.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.now.fetch_add(1, Ordering::Relaxed);
        InFlight {
            running: self.clone(),
            begun: Instant::now(),
            trace: Trace::default(),
            lease: None,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Waits until there are none.
    pub(crate) async fn none(&self) {
        loop {
            let left = self.0.left.notified();
            if self.count() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// A request that is being answered, until its last byte has been handed over.
#[derive(Debug)]
pub(crate) struct InFlight {
    running: Running,
    /// When it came.
    begun: Instant,
    trace: Trace,
    /// The model that answers it, which stays for as long.
    lease: Option<Lease<Served>>,
}

impl InFlight {
    /// The same, with the model that answers.
    pub(crate) fn with(mut self, lease: Lease<Served>) -> InFlight {
        self.lease = Some(lease);
        self
    }

    /// When it came.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The model that answers it.
    pub(crate) fn served(&self) -> Option<&Served> {
        self.lease.as_deref()
    }

    /// What is told of it to who follows requests through several programs.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // First: who waits for nothing to run finds all models unused.
        self.lease = None;
        self.running.0.now.fetch_sub(1, Ordering::Relaxed);
        self.running.0.left.notify_waiters();
    }
}

/// A handler of requests with a body.
macro_rules! with_body {
    ($answer:path) => {
        post(async |State(app): State<Arc<App>>, request: Request| {
            let answer = async {
                let received = receive(&app, request).await?;
                $answer(Arc::clone(&app), received).await
            };
            match answer.await {
                Ok(response) => response,
                Err(error) => error.into_response(),
            }
        })
    };
}

/// All addresses.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", with_body!(chat::answer))
        .route("/v1/completions", with_body!(completions::answer))
        .route("/v1/embeddings", with_body!(embeddings::answer))
        .route("/tokenize", with_body!(tokens::tokenize))
        .route("/detokenize", with_body!(tokens::detokenize))
        .route(
            "/v1/models",
            get(async |State(app): State<Arc<App>>| ok(&model_api::list(&app))),
        )
        .route(
            "/v1/models/{*id}",
            get(async |State(app): State<Arc<App>>, request: Request| {
                match model_api::one(&app, &below_models(&request)) {
                    Ok(value) => ok(&value),
                    Err(error) => error.into_response(),
                }
            })
            .post(async |State(app): State<Arc<App>>, request: Request| {
                let path = below_models(&request);
                let answer = async {
                    let (id, action) = model_api::Action::of(&path)?;
                    let received = receive_any(&app, request).await?;
                    model_api::act(&app, id, action, received).await
                };
                match answer.await {
                    Ok(value) => ok(&value),
                    Err(error) => error.into_response(),
                }
            }),
        )
        .route(
            "/health",
            get(async |State(app): State<Arc<App>>| health::health(&app)),
        )
        .route(
            "/ready",
            get(async |State(app): State<Arc<App>>| health::ready(&app)),
        )
        .route(
            "/memory",
            get(async |State(app): State<Arc<App>>| {
                let sights = Sights::take(&app).await;
                ok(&memory_api::report(&app, &sights))
            }),
        )
        .route(
            "/memory/history",
            get(async |State(app): State<Arc<App>>| ok(&history::report(&app))),
        )
        .route(
            "/memory/events",
            get(
                async |State(app): State<Arc<App>>| match watch::answer(&app) {
                    Ok(response) => response,
                    Err(error) => error.into_response(),
                },
            ),
        )
        .route("/", get(page))
        .route("/dashboard/{*file}", get(page))
        .route(
            "/metrics",
            get(async |State(app): State<Arc<App>>| metrics::answer(&app)),
        )
        .route("/openapi.json", get(async || openapi::answer()))
        .fallback(async |request: Request| {
            ApiError::unknown_path(request.uri().path()).into_response()
        })
        .method_not_allowed_fallback(async || ApiError::method().into_response())
        .layer(middleware::from_fn_with_state(Arc::clone(&app), gate))
        .with_state(app)
}

/// A file of the dashboard.
async fn page(request: Request) -> Response<Body> {
    let path = request.uri().path();
    dashboard::answer(path).unwrap_or_else(|| ApiError::unknown_path(path).into_response())
}

fn ok(value: &Value) -> Response<Body> {
    json_response(StatusCode::OK, value)
}

/// What is looked at by those who watch over the server, and served to the last.
const WATCHED: [&str; 5] = [
    "/health",
    "/ready",
    "/metrics",
    "/memory",
    "/memory/history",
];
/// What tells nothing about anybody, and is open to all.
const OPEN: [&str; 3] = ["/health", "/ready", "/openapi.json"];

/// Before every request: is there a key, and is there still time; after it: how did it end.
async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path();
    let route = metrics::route(path);
    let allowed = match &app.keys {
        Some(keys) if !OPEN.contains(&path) && !dashboard::is_page(path) => {
            keys.tenant(request.headers())
        }
        _ => Ok(""),
    };
    let watched = WATCHED.contains(&path) || dashboard::is_page(path);
    let draining = app.stopper.phase() > Phase::Serving && !watched;
    let trace = app.tracer.begin(&request);
    request.extensions_mut().insert(trace.clone());
    let response = match allowed {
        Err(error) => error.into_response(),
        Ok(_) if draining => ApiError::draining().into_response(),
        Ok(tenant) => {
            let tenant = app.secret.tenant(tenant);
            request.extensions_mut().insert(tenant);
            next.run(request).await
        }
    };
    trace.status(response.status());
    app.requests.count(route, &response);
    response
}

/// What stands behind `/v1/models/`.
fn below_models(request: &Request) -> String {
    percent_decoded(request.uri().path().trim_start_matches("/v1/models/"))
}

/// As [`receive`], but nothing is as good as an empty object.
async fn receive_any(app: &App, request: Request) -> Result<Received, ApiError> {
    let headers = request.headers();
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH);
    if chunked || length.is_some_and(|length| length != "0") {
        return receive(app, request).await;
    }
    let tenant = request.extensions().get::<Tenant>().copied();
    Ok(Received {
        value: Value::Object(serde_json::Map::new()),
        charge: Charge::new(&app.account)?,
        in_flight: app.running.begin(),
        tenant: tenant.unwrap_or_else(|| app.secret.tenant("")),
    })
}

async fn receive(app: &App, request: Request) -> Result<Received, ApiError> {
    debug_assert_eq!(request.method(), Method::POST);
    if app.pressure.refuses() {
        return Err(pressed(app, &request));
    }
    let mut in_flight = app.running.begin();
    let (parts, body) = request.into_parts();
    in_flight.trace = parts.extensions.get().cloned().unwrap_or_default();
    let tenant = parts.extensions.get::<Tenant>().copied();
    let tenant = tenant.unwrap_or_else(|| app.secret.tenant(""));
    let mut charge = Charge::new(&app.account)?;
    let value = body::read(
        &parts.headers,
        body,
        &app.limits,
        app.pools.buffers(),
        &mut charge,
    )
    .await?;
    if !value.is_object() {
        return Err(ApiError::invalid("", "must be a JSON object"));
    }
    Ok(Received {
        value,
        charge,
        in_flight,
        tenant,
    })
}

/// Memory is short beyond this process's doing: what is inside goes on, nothing more is let in.
fn pressed(app: &App, request: &Request) -> ApiError {
    let message = pressure_api::refusal(&app.pressure.read());
    app.reclaim.record(ReclaimEvent {
        unix_ms: unix_ms(),
        rung: Rung::Refuse,
        model: None,
        bytes: Bytes::ZERO,
        reason: message.clone(),
    });
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    ApiError::pressed(message, &app.ledger, Bytes(length.unwrap_or(0)))
}

/// A path as it was meant; what is no escape stays.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded() {
        assert_eq!(percent_decoded("a%2Fb%20c"), "a/b c");
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}
