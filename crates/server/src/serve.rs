//! The listener, its connections, and the end: SIGTERM lets what runs finish, then the server goes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bursar_engine::{ModelCache, ParamsPool};
use bursar_memory::counting::HeapCounts;
use bursar_memory::pressure::Gauge;
use bursar_memory::{
    Account, AccountOptions, Bytes, Ledger, Lifetime, Pools, ReclaimBooks, Refusal,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::app::{App, Running, router};
use crate::auth::Keys;
use crate::history::{self, History};
use crate::limits::Limits;
use crate::metrics::Requests;
use crate::phase::{Phase, Stopper};
use crate::plan_api::Planner;
use crate::rates::Rates;
use crate::served::{Served, now};
use crate::tenants::Secret;
use crate::traces::Tracer;
use crate::watch::Watch;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Who may ask; all, if `None`, which is refused for any address that others can reach.
    pub keys: Option<Keys>,
    /// What keeps tenants apart.
    pub secret: Secret,
    /// What clients may take.
    pub limits: Limits,
    /// How long running requests may take to finish when the server is told to stop.
    pub drain: Duration,
    /// Shows how short memory is; at critical pressure no request is let in.
    pub pressure: Gauge,
    /// What was done for memory, to be reported.
    pub reclaim: ReclaimBooks,
    /// Parameters that requests share.
    pub params: ParamsPool,
    /// Where buffers come from.
    pub pools: Pools,
    /// What plans models without loading them, where the program can.
    pub planner: Option<Arc<dyn Planner>>,
    /// What the process allocator has handed out, where the program counts it.
    pub heap: Option<fn() -> HeapCounts>,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Others could reach it, and nothing would keep them out.
    #[error(
        "{0} can be reached from other machines, and no API key is asked for; give --api-key-file, \
         or listen on 127.0.0.1"
    )]
    Unprotected(SocketAddr),
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {why}; end what listens there, or give a free address of this \
         machine with --listen"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The system refuses something that every server needs.
    #[error("cannot run the server: {0}")]
    System(#[from] io::Error),
}

/// Bytes guaranteed to requests' bodies and answers: without them, a budget that models fill would
/// leave no room to be asked anything.
pub const REQUESTS_FLOOR: Bytes = Bytes::mib(16);

/// The account of requests' bodies and answers, to be opened before models take what is left.
///
/// # Errors
/// Where the budget does not even hold that.
pub fn requests_account(ledger: &Ledger) -> Result<Account, Refusal> {
    ledger.root().child_with(
        "requests",
        AccountOptions::new(Lifetime::Episodic).floor(REQUESTS_FLOOR),
    )
}

/// A listener at an address that is protected by keys or out of others' reach. To find out before
/// models are loaded whether one can be had, take it and drop it.
///
/// # Errors
/// If the address is unprotected or cannot be had.
pub fn listener(listen: SocketAddr, keys: bool) -> Result<std::net::TcpListener, ServeError> {
    if !keys && !listen.ip().to_canonical().is_loopback() {
        return Err(ServeError::Unprotected(listen));
    }
    std::net::TcpListener::bind(listen).map_err(|why| ServeError::Listen {
        address: listen,
        why,
    })
}

/// A server that is listening, and answers once it runs.
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    drain: Duration,
}

/// After the last request, connections get so long to be closed in good order.
const CLOSING: Duration = Duration::from_secs(2);
/// After a failure to accept, which is for want of descriptors mostly, so long a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Listens, for requests that `models` answer, those that have to be loaded first after a while; the
    /// requests' bytes are charged to `account`.
    ///
    /// # Errors
    /// If the address is unprotected or cannot be had.
    pub fn bind(
        options: ServerOptions,
        ledger: &Ledger,
        account: Account,
        models: ModelCache<Served>,
    ) -> Result<Server, ServeError> {
        let ServerOptions {
            listen,
            keys,
            secret,
            limits,
            drain,
            pressure,
            reclaim,
            params,
            pools,
            planner,
            heap,
        } = options;
        let listener = listener(listen, keys.is_some())?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let watching = account.child("watching", Lifetime::Procedural);
        let app = Arc::new(App {
            models,
            created: now(),
            ledger: ledger.clone(),
            account,
            keys,
            secret,
            limits,
            stopper: Stopper::new(),
            running: Running::default(),
            requests: Requests::default(),
            pressure,
            reclaim,
            params,
            pools,
            heap,
            history: History::new(&watching),
            watching,
            rates: Rates::default(),
            watch: Watch::new(),
            tracer: Tracer::default(),
            planner,
            planning: Arc::new(Semaphore::new(1)),
        });
        Ok(Server {
            listener,
            address,
            app,
            drain,
        })
    }

    /// Tells a collector of every request that is answered from now on.
    ///
    /// # Errors
    /// If there is no thread or no memory for it.
    #[cfg(feature = "otel")]
    pub fn trace_to(&mut self, collector: crate::Collector) -> Result<(), ServeError> {
        // Before it runs, nobody else has it.
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.tracer = crate::traces::Tracer::to(collector, &app.watching)?;
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it; SIGTERM and SIGINT do the same.
    pub fn stopper(&self) -> Stopper {
        self.app.stopper.clone()
    }

    /// Answers requests on this thread until it is told to stop and the running ones are done.
    ///
    /// # Errors
    /// If the system refuses what every server needs.
    pub fn run(self) -> Result<(), ServeError> {
        // One thread: the engine has the others. Long texts are tokenized on one more.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_stack_size(1 << 20)
            .build()?;
        runtime.block_on(self.serve())?;
        Ok(())
    }

    async fn serve(self) -> io::Result<()> {
        let Server {
            listener,
            app,
            drain,
            ..
        } = self;
        let listener = TcpListener::from_std(listener)?;
        tokio::spawn(watch_signals(
            app.stopper.clone(),
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ));
        tokio::spawn(end_after(Arc::clone(&app), drain));
        tokio::spawn(history::keep(Arc::clone(&app)));
        let router = router(Arc::clone(&app));
        let places = Arc::new(Semaphore::new(app.limits.connections));
        let mut ended = Box::pin(app.stopper.reached(Phase::Ended));
        // While it drains, connections are still taken, to be told so.
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                next = next => next,
                () = &mut ended => break,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = connection(stream, router.clone(), Arc::clone(&app));
            tokio::spawn(async move {
                let _place = place;
                connection.await;
            });
        }
        drop(listener);
        let most = u32::try_from(app.limits.connections).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(CLOSING, places.acquire_many(most)).await;
        Ok(())
    }
}

/// Each signal is one request to stop.
async fn watch_signals(
    stopper: Stopper,
    mut terminate: tokio::signal::unix::Signal,
    mut interrupt: tokio::signal::unix::Signal,
) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.stop();
    }
}

/// Ends the server once nothing runs any more, or when that has taken too long.
async fn end_after(app: Arc<App>, drain: Duration) {
    app.stopper.reached(Phase::Draining).await;
    let _ = tokio::time::timeout(drain, app.running.none()).await;
    app.stopper.end();
}

/// One client, until it or the server has had enough.
async fn connection(stream: TcpStream, router: Router, app: Arc<App>) {
    // Events are small, and each is wanted at once.
    let _ = stream.set_nodelay(true);
    let limits = &app.limits;
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time)
            .max_headers(limits.headers)
            .max_buf_size(limits.header_bytes)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let mut ended = Box::pin(app.stopper.reached(Phase::Ended));
    // A client that goes away is no error of ours, and hyper has answered what it could not read.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = &mut ended => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
