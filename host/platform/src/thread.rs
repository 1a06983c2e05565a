//! Named threads.

use std::thread::JoinHandle;

/// Starts a thread of this name.
///
/// # Panics
/// If the system refuses another thread.
#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub fn spawn_thread<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.into()).spawn(body).expect("the system gives another thread")
}

/// How many threads can run at once here; at least 1.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// CPU time that this thread has had, where the system tells. Less than a microsecond a call.
#[must_use]
pub fn thread_cpu_time() -> Option<std::time::Duration> {
    Some(cpu_time::ThreadTime::try_now().ok()?.as_duration())
}
