//! Connections: so many at once, each with so long for TLS, for the headers of a request, and for all that it asks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// What connections may take.
#[derive(Clone, Copy)]
struct Limits {
    /// So many at once; who comes then waits for a place.
    connections: u32,
    /// For TLS to begin; and from the last answer, or the beginning, to the end of a request's headers.
    headers: Duration,
    /// A connection may live so long; then it is told to end.
    life: Duration,
    /// What is being answered when a connection is told to end has so long.
    last: Duration,
}

const LIMITS: Limits = Limits {
    connections: 256,
    headers: Duration::from_secs(10),
    life: Duration::from_secs(600),
    last: Duration::from_secs(120),
};
/// When there are no more descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is told to stop; then what is being answered is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stopped: impl Future<Output = ()>,
) {
    serve_within(LIMITS, listener, tls, router, stopped).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stopped: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let tls = tls.map(TlsAcceptor::from);
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
        let (tls, router, ended) = (tls.clone(), router.clone(), ended.clone());
        platform::spawn_task("rest-connection", async move {
            let _place = place;
            begin(limits, stream, tls, router, ended).await;
        });
    }
    drop((listener, ending));
    // None is left when all places are free.
    drop(places.acquire_many(limits.connections).await);
}

/// Begins with TLS where there is any.
async fn begin(
    limits: Limits,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut ended: watch::Receiver<()>,
) {
    let Some(tls) = tls else {
        return connection(limits, stream, router, ended).await;
    };
    let begun = tokio::select! {
        begun = timeout(limits.headers, tls.accept(stream)) => begun,
        _ = ended.changed() => return,
    };
    // Who speaks no TLS, or not in time, is not answered.
    if let Ok(Ok(stream)) = begun {
        connection(limits, stream, router, ended).await;
    }
}

async fn connection(
    limits: Limits,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut ended: watch::Receiver<()>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.headers);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = pin!(served);
    tokio::select! {
        // What breaks off is its client's affair.
        _ = &mut served => return,
        _ = ended.changed() => {}
        () = sleep(limits.life) => {}
    }
    served.as_mut().graceful_shutdown();
    drop(timeout(limits.last, served).await);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream as Client};

    use axum::routing::get;
    use platform::Clock;
    use tokio::sync::oneshot;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Limits = Limits { connections: 2, headers: PATIENCE, life: PATIENCE, last: PATIENCE };

    /// A server with these limits, which ends when what it gives is dropped.
    fn server(limits: Limits) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().route("/", get(|| async { "here" }));
        platform::spawn_task("server", async move {
            let listener = TcpListener::from_std(listener).unwrap();
            serve_within(limits, listener, None, router, async { drop(stopped.await) }).await;
        });
        (address, stop)
    }

    fn connected(address: SocketAddr) -> Client {
        let stream = Client::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(stream: &mut Client) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 256]);
        while !answer.ends_with(b"here") {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "it ends: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(part.get(..read).unwrap());
        }
    }

    /// How long it takes until the server ends the connection.
    fn ends_after(stream: &mut Client) -> Duration {
        let clock = Clock::system();
        let before = clock.now();
        drop(stream.read_to_end(&mut Vec::new()));
        clock.now() - before
    }

    #[test]
    fn who_says_nothing_or_half_a_request_is_cut_off() {
        let (address, _stop) = server(Limits { headers: SHORT, ..LONG });
        for said in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut stream = connected(address);
            stream.write_all(said.as_bytes()).unwrap();
            assert!(ends_after(&mut stream) < PATIENCE / 2, "after `{said}`");
        }
        // Nor may it say nothing after an answer.
        let mut stream = connected(address);
        ask(&mut stream);
        assert!(ends_after(&mut stream) < PATIENCE / 2);
    }

    #[test]
    fn who_goes_on_asking_is_cut_off_at_the_end_of_its_life() {
        let (address, _stop) = server(Limits { life: SHORT, ..LONG });
        let mut stream = connected(address);
        ask(&mut stream);
        assert!(ends_after(&mut stream) < PATIENCE / 2);
    }

    #[test]
    fn who_comes_when_all_places_are_taken_waits_for_one() {
        let (address, _stop) = server(LONG);
        let mut first = connected(address);
        let mut second = connected(address);
        ask(&mut first);
        ask(&mut second);
        let mut third = connected(address);
        third.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        third.set_read_timeout(Some(SHORT)).unwrap();
        assert!(third.read(&mut [0; 1]).is_err(), "it is answered beside two others");
        third.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(first);
        let mut answer = String::new();
        third.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[test]
    fn who_speaks_no_tls_where_it_is_spoken_has_no_place_for_long() {
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = oneshot::channel::<()>();
        let limits = Limits { headers: SHORT, ..LONG };
        platform::spawn_task("server", async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let stopped = async { drop(stopped.await) };
            serve_within(limits, listener, Some(Arc::new(tls)), Router::new(), stopped).await;
        });
        for said in ["", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut stream = connected(address);
            stream.write_all(said.as_bytes()).unwrap();
            assert!(ends_after(&mut stream) < PATIENCE / 2, "after `{said}`");
        }
    }
}
