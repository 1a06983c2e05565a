//! What a guest may ask of its host: the log, the metrics, entries of its states.

pub use crate::bindings::millstream::job::log::Level;

#[cfg(target_arch = "wasm32")]
pub use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
pub use stub::{abort, count, enabled, gauge, get_entries, histogram, scan_entries, state_version, write};

#[cfg(target_arch = "wasm32")]
mod wasm {
    pub use crate::bindings::millstream::job::log::{enabled, write};
    pub use crate::bindings::millstream::job::metrics::{count, gauge, histogram};
    pub use crate::bindings::millstream::job::state::{
        get as get_entries, scan as scan_entries, version as state_version,
    };

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
    use std::rc::Rc;

    use super::Level;
    use crate::bindings::millstream::job::rows::Column;
    use crate::bindings::millstream::job::state::Entries;

    /// The states of the function that is called, as the interface `state` gives them.
    pub trait StateSource {
        /// As `state.get`.
        fn get(&self, state: u32, count: u32, groups: &[u32], keys: &[Column]) -> Vec<Column>;
        /// As `state.scan`.
        fn scan(&self, state: u32, groups: &[u32], after: &[Column], limit: u32) -> Entries;
        /// As `state.version`.
        fn version(&self, state: u32) -> u64;
    }

    thread_local! {
        static STATE: RefCell<Option<Rc<dyn StateSource>>> = const { RefCell::new(None) };
    }

    /// Answers reads of state from here while a function is called.
    pub fn with_state<R>(source: Rc<dyn StateSource>, call: impl FnOnce() -> R) -> R {
        STATE.set(Some(source));
        let result = call();
        STATE.set(None);
        result
    }

    fn state() -> Rc<dyn StateSource> {
        STATE.with_borrow(Clone::clone).unwrap_or_else(|| abort("a read of state outside of a call"))
    }

    /// As `state.get`.
    pub fn get_entries(state: u32, count: u32, groups: &[u32], keys: &[Column]) -> Vec<Column> {
        self::state().get(state, count, groups, keys)
    }

    /// As `state.scan`.
    pub fn scan_entries(state: u32, groups: &[u32], after: &[Column], limit: u32) -> Entries {
        self::state().scan(state, groups, after, limit)
    }

    /// As `state.version`.
    pub fn state_version(state: u32) -> u64 {
        self::state().version(state)
    }

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
