//! The REST interface: Flink's paths and JSON, with and without `/v1`, over a [`Session`].
//!
//! What there is to ask is one table (`routes`), of which an OpenAPI document is made too. What takes long is triggered
//! and looked at later (`triggers`); errors are `{"errors": […]}`. Who may ask is `guard`'s.
#![forbid(unsafe_code)]

mod answer;
mod applications;
mod checkpoints;
pub mod client;
mod connections;
mod guard;
mod jars;
mod jobs;
mod metrics;
pub mod openapi;
mod overview;
mod process;
mod routes;
mod spread;
mod swaps;
mod triggers;
mod vertices;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use cluster::Session;
use model::Diagnostic;
use platform::Clock;
use platform::network::runtime;
use task::metrics::rates::Sampler;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Served(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) session: Arc<Session>,
    pub(crate) triggers: triggers::Triggers,
    /// By job.
    pub(crate) samplers: Mutex<BTreeMap<String, Sampler>>,
    pub(crate) address: SocketAddr,
    /// Somebody asks for the session's end.
    pub(crate) end: Arc<Notify>,
    /// Who uploads, at once.
    pub(crate) uploads: Semaphore,
}

impl std::ops::Deref for Served {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A component may have so many bytes.
const UPLOAD_BYTES: usize = 64 << 20;
/// So many are uploaded at once.
const UPLOADS: usize = 4;
/// How often is looked whether all have been told.
const TOLD_EVERY: Duration = Duration::from_millis(5);
/// How often rates are sampled.
const SAMPLED_EVERY: Duration = Duration::from_secs(5);

/// A server that answers until it is dropped or closed.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    end: Arc<Notify>,
    served: Weak<Inner>,
    stop: oneshot::Sender<()>,
    /// Nothing comes; it ends when all that was asked has been answered.
    over: oneshot::Receiver<()>,
}

impl Server {
    /// Waits until somebody asks for the session's end; the server need not be held for that.
    pub fn ends(&self) -> impl Future<Output = ()> + Send + use<> {
        let end = Arc::clone(&self.end);
        async move { end.notified().await }
    }

    /// Waits until all who have asked for something have been told what came of it, for so long at most. Blocks.
    pub fn tell_all(&self, time: Duration, clock: &Clock) {
        let end = clock.now() + time;
        while self.served.upgrade().is_some_and(|served| served.triggers.are_owed()) && clock.now() < end {
            clock.sleep(TOLD_EVERY);
        }
    }

    /// Answers nothing new, and waits until what has been asked is answered, for so long at most. Blocks.
    pub fn close(self, time: Duration) {
        drop(self.stop);
        runtime().block_on(async { drop(timeout(time, self.over).await) });
    }
}

/// Serves a session at this address; port 0 = any that is free.
///
/// # Errors
/// If the address is not to be had.
pub fn serve(session: &Arc<Session>, address: SocketAddr) -> Result<Server, Diagnostic> {
    let not_had = |error: std::io::Error| {
        Diagnostic::external(format!("the REST interface cannot listen at {address}"))
            .detail(error.to_string())
            .hint("another port: -D rest.port=N")
    };
    let listener = std::net::TcpListener::bind(address).map_err(not_had)?;
    listener.set_nonblocking(true).map_err(not_had)?;
    let address = listener.local_addr().map_err(not_had)?;
    let served = Served(Arc::new(Inner {
        session: Arc::clone(session),
        triggers: triggers::Triggers::default(),
        samplers: Mutex::default(),
        address,
        end: Arc::new(Notify::new()),
        uploads: Semaphore::new(UPLOADS),
    }));
    let end = Arc::clone(&served.end);
    let (stop, stopped) = oneshot::channel::<()>();
    let (answering, over) = oneshot::channel::<()>();
    let sampled = Arc::downgrade(&served.0);
    let of = Weak::clone(&sampled);
    platform::spawn_task("rates", async move {
        while let Some(inner) = sampled.upgrade() {
            metrics::sample(&inner);
            drop(inner);
            tokio::time::sleep(SAMPLED_EVERY).await;
        }
    });
    let router = router(served);
    platform::spawn_task("rest", async move {
        // Made where the runtime is.
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let stopped = async move { drop(stopped.await) };
        connections::serve(listener, router, stopped).await;
        drop(answering);
    });
    Ok(Server { address, end, served: of, stop, over })
}

fn router(served: Served) -> Router {
    routes::router()
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_path)
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES))
        .layer(axum::middleware::from_fn_with_state(served.clone(), guard::guard))
        .layer(axum::middleware::map_response(answer::in_one_form))
        .with_state(served)
}
