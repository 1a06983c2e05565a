//! Connections: so many at once, each with so long for the headers of a request, and for all that it asks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// So many at once; who comes then waits for a place.
const CONNECTIONS: usize = 256;
/// From the last answer, or the beginning, to the end of a request's headers.
const HEADERS_TIME: Duration = Duration::from_secs(10);
/// A connection may live so long; then it is told to end.
const LIFE: Duration = Duration::from_secs(600);
/// What is being answered when a connection is told to end has so long.
const LAST_TIME: Duration = Duration::from_secs(120);
/// When there are no more descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is told to stop; then what is being answered is answered.
pub(crate) async fn serve(listener: TcpListener, router: Router, stopped: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stopped = pin!(stopped);
    // Whoever is connected learns of the end when `ending` is dropped.
    let (ending, ended) = watch::channel(());
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(REFUSED_PAUSE).await;
            continue;
        };
        let (router, ended) = (router.clone(), ended.clone());
        platform::spawn_task("rest-connection", async move {
            let _place = place;
            connection(stream, router, ended).await;
        });
    }
    drop((listener, ending));
    // None is left when all places are free.
    drop(places.acquire_many(CONNECTIONS as u32).await);
}

async fn connection(stream: TcpStream, router: Router, mut ended: watch::Receiver<()>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIME);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    tokio::select! {
        // What breaks off is its client's affair.
        _ = &mut served => return,
        _ = ended.changed() => {}
        () = sleep(LIFE) => {}
    }
    served.as_mut().graceful_shutdown();
    drop(timeout(LAST_TIME, served).await);
}
