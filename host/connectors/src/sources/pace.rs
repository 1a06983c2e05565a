//! How many made-up rows are due by now, and who wakes the subtask when more are.

use std::time::Duration;

use model::Diagnostic;
use platform::{Inbox, Platform, spawn_task};

use crate::Context;
use crate::options::Options;

/// With a rate, rows are due at most so late.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The rate in the option `rate` of the source `of`; none = as fast as it goes.
pub(super) fn rate(of: &str, options: &Options<'_>) -> Result<Option<f64>, Diagnostic> {
    let rate: Option<f64> = options.parsed("rate")?;
    match rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        true => Err(Diagnostic::user(format!("the rate of `{of}` is above 0, in rows a second"))),
        false => Ok(rate),
    }
}

/// A subtask's view of the rate of all subtasks together.
pub(super) struct Pace {
    /// Rows a second, of all subtasks together; none = as fast as it goes.
    rate: Option<f64>,
    start: Duration,
    /// The number that was due first.
    first: u64,
    ticks: Inbox<()>,
    /// A tick will come.
    asleep: bool,
    platform: Platform,
    /// What the waiting task is called.
    name: &'static str,
}

impl Pace {
    /// From now on, when the row of the number `first` is due.
    pub(super) fn new(name: &'static str, rate: Option<f64>, first: u64, context: &Context) -> Self {
        Self {
            rate,
            first,
            start: context.platform.clock.now(),
            ticks: Inbox::new(context.waker.clone()),
            asleep: false,
            platform: context.platform.clone(),
            name,
        }
    }

    /// Of `total` rows those below this number may be made now.
    pub(super) fn due(&self, total: u64) -> u64 {
        let Some(rate) = self.rate else { return total };
        let since = self.platform.clock.now() - self.start;
        // The first row is due at once.
        ((since.as_secs_f64() * rate) as u64).saturating_add(1).saturating_add(self.first).min(total)
    }

    /// Wakes the subtask after a tick.
    pub(super) fn sleep(&mut self) {
        while self.ticks.take().is_some() {
            self.asleep = false;
        }
        if std::mem::replace(&mut self.asleep, true) {
            return;
        }
        let clock = self.platform.clock.clone();
        if clock.is_simulated() {
            self.platform.io.submit(&self.ticks, move || clock.sleep(TICK));
        } else {
            let ticks = self.ticks.clone();
            spawn_task(self.name, async move {
                tokio::time::sleep(TICK).await;
                ticks.put(());
            });
        }
    }
}
