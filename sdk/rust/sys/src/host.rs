//! What a guest may ask of its host: the log and the metrics.

pub use crate::bindings::millstream::job::log::Level;

#[cfg(target_arch = "wasm32")]
pub use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub use stub::{abort, count, enabled, gauge, histogram, write};

#[cfg(target_arch = "wasm32")]
mod wasm {
    pub use crate::bindings::millstream::job::log::{enabled, write};
    pub use crate::bindings::millstream::job::metrics::{count, gauge, histogram};

    /// Traps, with this message to the user.
    pub fn abort(message: &str) -> ! {
        crate::bindings::millstream::job::log::abort(message);
        std::process::abort()
    }
}

/// A host for tests: it keeps, by thread, what the guest says.
#[cfg(not(target_arch = "wasm32"))]
pub mod stub {
    use std::cell::RefCell;

    use super::Level;

    /// What a guest told the stub host.
    #[derive(Clone, Debug, Default)]
    pub struct Told {
        /// messages, in order
        pub messages: Vec<(Level, String)>,
        /// additions to counters: node, name, delta
        pub counts: Vec<(u32, String, u64)>,
        /// settings of gauges
        pub gauges: Vec<(u32, String, f64)>,
        /// samples of histograms
        pub histograms: Vec<(u32, String, Vec<f64>)>,
    }

    thread_local! {
        static TOLD: RefCell<Told> = RefCell::default();
    }

    /// Takes what this thread's guest has told since the last time.
    pub fn take() -> Told {
        TOLD.with(RefCell::take)
    }

    /// Keeps messages from `debug` up.
    pub fn enabled(level: Level) -> bool {
        level != Level::Trace
    }

    /// Keeps a message.
    pub fn write(level: Level, message: &str) {
        TOLD.with_borrow_mut(|told| told.messages.push((level, message.to_string())));
    }

    /// Panics with the message.
    ///
    /// # Panics
    /// Always.
    pub fn abort(message: &str) -> ! {
        panic!("{message}")
    }

    /// Adds to a counter.
    pub fn count(node: u32, name: &str, delta: u64) {
        TOLD.with_borrow_mut(|told| told.counts.push((node, name.to_string(), delta)));
    }

    /// Sets a gauge.
    pub fn gauge(node: u32, name: &str, value: f64) {
        TOLD.with_borrow_mut(|told| told.gauges.push((node, name.to_string(), value)));
    }

    /// Adds samples to a histogram.
    pub fn histogram(node: u32, name: &str, samples: &[f64]) {
        TOLD.with_borrow_mut(|told| told.histograms.push((node, name.to_string(), samples.to_vec())));
    }
}
