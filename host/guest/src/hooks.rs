//! What a guest may ask of the host: to log and to count. Rates and lengths are bounded here.

use std::sync::Arc;
use std::time::Duration;

use model::job_graph::NodeId;
use platform::Clock;
use wasmtime::{Result, StoreLimits};

use crate::bindings::millstream::job::{calls, graph, log, metrics, rows};
use crate::entries::StateAccess;

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The finest.
    Trace,
    /// For developers.
    Debug,
    /// What a user may want to know.
    Info,
    /// What a user should know.
    Warn,
    /// Something failed.
    Error,
}

/// Takes what a guest logs and counts. Called within guest calls: must not block.
pub trait Hooks: Send + Sync {
    /// Whether a message of this level would be kept.
    fn log_enabled(&self, level: LogLevel) -> bool;
    /// A message, cut at 8 KiB and without terminal escapes.
    fn log(&self, level: LogLevel, message: &str);
    /// Adds to a counter.
    fn count(&self, node: NodeId, name: &str, delta: u64);
    /// Sets a gauge.
    fn gauge(&self, node: NodeId, name: &str, value: f64);
    /// Adds samples to a histogram.
    fn histogram(&self, node: NodeId, name: &str, samples: &[f64]);
}

/// Hooks that take nothing.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn log_enabled(&self, _: LogLevel) -> bool {
        false
    }
    fn log(&self, _: LogLevel, _: &str) {}
    fn count(&self, _: NodeId, _: &str, _: u64) {}
    fn gauge(&self, _: NodeId, _: &str, _: f64) {}
    fn histogram(&self, _: NodeId, _: &str, _: &[f64]) {}
}

/// A message is cut after so many bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// A guest may log so many messages a second, and so many at once.
const MESSAGES_A_SECOND: f64 = 100.0;
/// Metric names are cut after so many bytes.
const NAME_BYTES_MAX: usize = 200;

/// The data of a guest's store.
pub(crate) struct Host {
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) clock: Clock,
    pub(crate) limits: StoreLimits,
    /// Memory was refused: a trap that follows is its consequence.
    pub(crate) memory_refused: bool,
    pub(crate) memory_max: usize,
    /// Its linear memories.
    pub(crate) memory_bytes: usize,
    /// What the host did with the columns of the last call.
    pub(crate) boundary: Duration,
    pub(crate) rate: Rate,
    pub(crate) state: StateAccess,
}

/// A token bucket, and how many messages it has dropped.
pub(crate) struct Rate {
    tokens: f64,
    at: Duration,
    dropped: u64,
}

impl Rate {
    pub(crate) fn new(now: Duration) -> Self {
        Self { tokens: MESSAGES_A_SECOND, at: now, dropped: 0 }
    }

    fn admit(&mut self, now: Duration) -> bool {
        let gained = now.saturating_sub(self.at).as_secs_f64() * MESSAGES_A_SECOND;
        self.tokens = (self.tokens + gained).min(MESSAGES_A_SECOND);
        self.at = now;
        if self.tokens < 1.0 {
            self.dropped += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// The text with everything that a terminal would obey made visible, cut at a character.
pub(crate) fn tame(message: &str, bytes_max: usize) -> String {
    let mut tamed = String::with_capacity(message.len().min(bytes_max));
    for c in message.chars() {
        if tamed.len() + c.len_utf8() > bytes_max {
            tamed.push('…');
            break;
        }
        match c {
            '\n' | '\t' => tamed.push(c),
            '\r' => {}
            // Bidirectional overrides and isolates turn text around, as escapes do.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => tamed.push('\u{FFFD}'),
            c if c.is_control() => tamed.extend(c.escape_unicode()),
            c => tamed.push(c),
        }
    }
    tamed
}

impl wasmtime::ResourceLimiter for Host {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let granted = self.limits.memory_growing(current, desired, maximum)?;
        self.memory_refused |= !granted;
        if granted {
            self.memory_bytes += desired.saturating_sub(current);
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

impl rows::Host for Host {}
impl graph::Host for Host {}
impl calls::Host for Host {}

impl log::Host for Host {
    fn enabled(&mut self, level: log::Level) -> Result<bool> {
        Ok(self.hooks.log_enabled(level_of(level)))
    }

    fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        let level = level_of(level);
        if !self.hooks.log_enabled(level) {
            return Ok(());
        }
        if self.rate.admit(self.clock.now()) {
            if self.rate.dropped > 0 {
                let dropped = std::mem::take(&mut self.rate.dropped);
                let note = format!("{dropped} messages were dropped: more than {MESSAGES_A_SECOND} a second");
                self.hooks.log(LogLevel::Warn, &note);
            }
            self.hooks.log(level, &tame(&message, MESSAGE_BYTES_MAX));
        }
        Ok(())
    }

    fn abort(&mut self, message: String) -> Result<()> {
        Err(wasmtime::Error::from(LastWords(tame(&message, MESSAGE_BYTES_MAX))))
    }
}

/// A guest's own message as it gives up.
#[derive(Debug)]
pub(crate) struct LastWords(pub(crate) String);

impl std::fmt::Display for LastWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LastWords {}

fn level_of(level: log::Level) -> LogLevel {
    match level {
        log::Level::Trace => LogLevel::Trace,
        log::Level::Debug => LogLevel::Debug,
        log::Level::Info => LogLevel::Info,
        log::Level::Warn => LogLevel::Warn,
        log::Level::Error => LogLevel::Error,
    }
}

impl metrics::Host for Host {
    fn count(&mut self, node: NodeId, name: String, delta: u64) -> Result<()> {
        self.hooks.count(node, &tame(&name, NAME_BYTES_MAX), delta);
        Ok(())
    }

    fn gauge(&mut self, node: NodeId, name: String, value: f64) -> Result<()> {
        self.hooks.gauge(node, &tame(&name, NAME_BYTES_MAX), value);
        Ok(())
    }

    fn histogram(&mut self, node: NodeId, name: String, samples: Vec<f64>) -> Result<()> {
        self.hooks.histogram(node, &tame(&name, NAME_BYTES_MAX), &samples);
        Ok(())
    }
}
