//! The time: the system's, or one that simulation moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock. Cloning shares it.
#[derive(Clone)]
pub struct Clock(Kind);

#[derive(Clone)]
enum Kind {
    System { start: Instant, jumped_ms: Arc<AtomicI64> },
    Simulated { nanoseconds: Arc<AtomicU64>, epoch_ms: Arc<AtomicI64> },
}

/// Where simulated wall time begins: 2026-01-01T00:00:00Z, in milliseconds.
const SIMULATED_EPOCH_MS: i64 = 1_767_225_600_000;

impl Clock {
    /// The system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn system() -> Self {
        Self(Kind::System { start: Instant::now(), jumped_ms: Arc::default() })
    }

    /// A clock that stands still until it is moved by [`advance`](Self::advance).
    #[must_use]
    pub fn simulated() -> Self {
        let epoch_ms = Arc::new(AtomicI64::new(SIMULATED_EPOCH_MS));
        Self(Kind::Simulated { nanoseconds: Arc::default(), epoch_ms })
    }

    /// Time since the clock was made. Never goes back.
    #[must_use]
    pub fn now(&self) -> Duration {
        match &self.0 {
            Kind::System { start, .. } => start.elapsed(),
            Kind::Simulated { nanoseconds, .. } => Duration::from_nanos(nanoseconds.load(Ordering::Relaxed)),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; may go back when the system's clock is set.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn wall_ms(&self) -> i64 {
        match &self.0 {
            Kind::System { jumped_ms, .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                since.saturating_add(jumped_ms.load(Ordering::Relaxed))
            }
            Kind::Simulated { epoch_ms, .. } => {
                let since = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
                epoch_ms.load(Ordering::Relaxed).saturating_add(since)
            }
        }
    }

    /// Moves a simulated clock; the system's does not obey.
    pub fn advance(&self, by: Duration) {
        if let Kind::Simulated { nanoseconds, .. } = &self.0 {
            nanoseconds.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Sets what [`wall_ms`](Self::wall_ms) of a simulated clock is now; the system's does not obey.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        if let Kind::Simulated { epoch_ms, .. } = &self.0 {
            let since = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
            epoch_ms.store(wall_ms.saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// Moves the wall clock alone, as somebody does who sets it.
    pub(crate) fn jump(&self, by_ms: i64) {
        match &self.0 {
            Kind::System { jumped_ms: of, .. } | Kind::Simulated { epoch_ms: of, .. } => {
                of.fetch_add(by_ms, Ordering::Relaxed);
            }
        }
    }

    /// Whether simulation moves this clock.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        matches!(self.0, Kind::Simulated { .. })
    }

    /// Blocks the thread for so long. Simulated: moves the clock at once.
    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    pub fn sleep(&self, time: Duration) {
        match &self.0 {
            Kind::System { .. } => std::thread::sleep(time),
            Kind::Simulated { .. } => self.advance(time),
        }
    }
}
