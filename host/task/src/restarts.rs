//! Decides whether a job that has failed is started again, and when. A pure function of failures and time.
//!
//! Source: Flink's restart strategies: `FixedDelayRestartBackoffTimeStrategy`,
//! `ExponentialDelayRestartBackoffTimeStrategy`, `FailureRateRestartBackoffTimeStrategy`.

use std::collections::VecDeque;
use std::time::Duration;

use platform::Random;

#[cfg(test)]
mod tests;

/// What is done about failures. Flink: `restart-strategy.*`.
#[derive(Clone, Debug, PartialEq)]
pub enum RestartStrategy {
    /// The first ends the job.
    None,
    /// So many restarts, each after the same time.
    FixedDelay {
        /// How many restarts there are at most.
        attempts: u32,
        /// From a failure to the restart.
        delay: Duration,
    },
    /// Each restart after a longer time, until the job has run for a while.
    ExponentialDelay {
        /// From the first failure to the restart.
        initial: Duration,
        /// From any failure to the restart, at most.
        max: Duration,
        /// The next time is so many times as long; above 1.
        multiplier: f64,
        /// A job that has run for so long begins again with the first time.
        reset_threshold: Duration,
        /// A part of the time, from 0 to 1, that is added or taken away by chance.
        jitter: f64,
        /// How many restarts there are at most before the job has run for that long; none = any number.
        attempts: Option<u32>,
    },
    /// Any number of restarts, as long as there are not too many at once.
    FailureRate {
        /// How many failures there may be in the interval.
        max_failures: u32,
        /// The interval.
        interval: Duration,
        /// From a failure to the restart.
        delay: Duration,
    },
}

/// What is decided of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The job is started again after this time.
    Restart {
        /// The time.
        after: Duration,
    },
    /// The job has failed.
    GiveUp {
        /// Why it is not started again; none = it never is.
        why: Option<String>,
    },
}

/// The restarts of one job.
///
/// `in_a_row ≤ count`, and the failures that are remembered are at most one more than may be in the interval.
pub struct Restarts {
    strategy: RestartStrategy,
    random: Random,
    /// How many there have been.
    count: u32,
    /// How many since the job has run for long.
    in_a_row: u32,
    /// When the last was to be.
    last: Option<Duration>,
    /// The last failures, the oldest first.
    failures: VecDeque<Duration>,
}

impl Restarts {
    /// Of a job that starts now, for the first time; `random` says what chance does.
    #[must_use]
    pub fn new(strategy: RestartStrategy, random: Random) -> Self {
        Self { strategy, random, count: 0, in_a_row: 0, last: None, failures: VecDeque::new() }
    }

    /// How many restarts there have been.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The job has failed: what is to be done.
    #[must_use]
    pub fn on_failure(&mut self, now: Duration) -> Decision {
        let after = match self.decide(now) {
            Ok(after) => after,
            Err(why) => return Decision::GiveUp { why },
        };
        self.count += 1;
        self.in_a_row += 1;
        self.last = Some(now + after);
        Decision::Restart { after }
    }

    fn decide(&mut self, now: Duration) -> Result<Duration, Option<String>> {
        match self.strategy {
            RestartStrategy::None => Err(None),
            RestartStrategy::FixedDelay { attempts, delay } => match self.count < attempts {
                true => Ok(delay),
                false => Err(Some(format!(
                    "it has been restarted {} (restart-strategy.fixed-delay.attempts)",
                    times(attempts)
                ))),
            },
            RestartStrategy::ExponentialDelay { reset_threshold, attempts, .. } => {
                if self.last.is_some_and(|last| now >= last + reset_threshold) {
                    self.in_a_row = 0;
                }
                match attempts {
                    Some(attempts) if self.in_a_row >= attempts => Err(Some(format!(
                        "it has been restarted {} and has not run for long \
                         (restart-strategy.exponential-delay.attempts-before-reset-backoff)",
                        times(attempts)
                    ))),
                    _ => Ok(self.backoff()),
                }
            }
            RestartStrategy::FailureRate { max_failures, interval, delay } => {
                self.failures.push_back(now);
                self.failures.retain(|failure| now - *failure <= interval);
                match self.failures.len() as u64 <= u64::from(max_failures) {
                    true => Ok(delay),
                    false => Err(Some(format!(
                        "it has failed {} within {} ms (restart-strategy.failure-rate.max-failures-per-interval)",
                        times(max_failures + 1),
                        interval.as_millis()
                    ))),
                }
            }
        }
    }

    /// The time before the next restart, which grows.
    fn backoff(&mut self) -> Duration {
        let RestartStrategy::ExponentialDelay { initial, max, multiplier, jitter, .. } = self.strategy else {
            return Duration::ZERO;
        };
        let exponent = i32::try_from(self.in_a_row).unwrap_or(i32::MAX);
        // Beyond any number it is infinite, and the most all the same.
        let grown = (initial.as_secs_f64() * multiplier.powi(exponent)).min(max.as_secs_f64());
        let by_chance = grown * jitter * (2.0 * self.random.unit() - 1.0);
        Duration::from_secs_f64((grown + by_chance).clamp(0.0, max.as_secs_f64()))
    }
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}
