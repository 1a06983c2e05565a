//! Tasks that talk to the network, on tokio; the engine meets them in inboxes only.

use std::future::Future;
use std::sync::{Once, OnceLock};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The process's one runtime, started when it is first needed: one thread, `network`.
///
/// # Panics
/// If the system refuses a thread or an epoll instance.
pub fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .expect("the system gives a thread and an event queue")
    })
}

/// Starts a network task. The name is for whoever reads the code: tokio takes names only under its
/// unstable flag.
pub fn spawn_task<T: Send + 'static>(
    _name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    runtime().spawn(task)
}

/// Gives the process its cryptography for TLS, which HTTP clients ask for. Called before the first is made.
pub fn set_up_cryptography() {
    static RING: Once = Once::new();
    // An error says that the process has one already.
    RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Waits, in a task of the network's.
pub async fn sleep(time: std::time::Duration) {
    tokio::time::sleep(time).await;
}
