//! What the attempts of a job are made of, and what the configuration says of restarts.

use std::sync::Arc;

use checkpoint::Storage;
use checkpoint::coordinator::CheckpointId;
use guest::Program;
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::{Plan, RestartStrategy, RunOptions};

use crate::checkpoints::{self, Asked, Restore, Restoring};
use crate::{Config, Tell};

/// What is done about failures of the job.
///
/// # Errors
/// If the configuration makes no sense.
pub fn strategy(config: &Config) -> Result<RestartStrategy, Diagnostic> {
    let of = |strategy: &str, key: &str| format!("restart-strategy.{strategy}.{key}");
    let time = |strategy: &str, key: &str| config.duration(&of(strategy, key));
    let number = |strategy: &str, key: &str| config.number(&of(strategy, key));
    let has_interval = config.optional_duration("execution.checkpointing.interval").is_some();
    let kind = match config.get("restart-strategy.type").0.to_ascii_lowercase().as_str() {
        "" if has_interval => "exponential-delay".to_owned(),
        kind => kind.to_owned(),
    };
    Ok(match kind.as_str() {
        "fixed-delay" | "fixeddelay" => RestartStrategy::FixedDelay {
            attempts: number("fixed-delay", "attempts").unwrap_or(1),
            delay: time("fixed-delay", "delay"),
        },
        "failure-rate" | "failurerate" => RestartStrategy::FailureRate {
            max_failures: number("failure-rate", "max-failures-per-interval").unwrap_or(1),
            interval: time("failure-rate", "failure-rate-interval"),
            delay: time("failure-rate", "delay"),
        },
        "exponential-delay" | "exponentialdelay" => {
            const NAME: &str = "exponential-delay";
            let (initial, max) = (time(NAME, "initial-backoff"), time(NAME, "max-backoff"));
            if initial > max {
                return Err(Diagnostic::user("the first backoff of restarts is longer than the longest")
                    .detail(format!(
                        "{} is above {}",
                        of(NAME, "initial-backoff"),
                        of(NAME, "max-backoff")
                    )));
            }
            RestartStrategy::ExponentialDelay {
                initial,
                max,
                multiplier: config.real(&of(NAME, "backoff-multiplier")),
                reset_threshold: time(NAME, "reset-backoff-threshold"),
                jitter: config.real(&of(NAME, "jitter-factor")),
                attempts: number(NAME, "attempts-before-reset-backoff"),
            }
        }
        _ => RestartStrategy::None,
    })
}

/// What all attempts of a job have in common.
pub struct Attempts {
    /// Its component.
    pub program: Program,
    /// Its name in the component.
    pub job: String,
    /// Its id, if it has one of its own.
    pub own_id: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it says to them.
    pub graph: JobGraph,
    /// How it is to run; checkpoints and the attempt's number are filled in.
    pub options: RunOptions,
    /// The values in effect.
    pub config: Config,
    /// What the first goes on from.
    pub restore: Option<Restore>,
    /// State that nobody in the job asks for is left out.
    pub allow_non_restored: bool,
    /// The world; its I/O pool is the job's alone.
    pub platform: Platform,
    /// Hears of it.
    pub tell: Arc<dyn Tell>,
}

/// An attempt that may start.
pub struct Planned {
    /// How.
    pub plan: Plan,
    /// The job has finished before: there is nothing left to do.
    pub is_finished: bool,
}

impl Attempts {
    /// How many slots it needs.
    ///
    /// # Errors
    /// If the job cannot be planned.
    pub fn slots(&self) -> Result<u32, Diagnostic> {
        let plan =
            task::plan(&self.program, &self.job, &self.args, self.graph.clone(), self.options.clone())?;
        Ok(plan.physical.slots())
    }

    /// Where the checkpoints of the job of this id are; none = there are none.
    ///
    /// # Errors
    /// If they cannot be there.
    pub fn storage(&self, id: &str) -> Result<Option<Storage>, Diagnostic> {
        checkpoints::storage(&self.config, self.restore.as_ref(), id, &self.platform.faults)
    }

    /// An attempt. Where there are checkpoints from `since` on, which are of the attempts before, it goes on from the
    /// newest; else from where the first began.
    ///
    /// # Errors
    /// If it cannot run: its input is not there, its output is in the way, its state does not fit …
    pub fn plan(&self, attempt: u32, since: Option<CheckpointId>) -> Result<Planned, Diagnostic> {
        self.plan_from(attempt, since, self.restore.as_ref())
    }

    /// The same, from another place than the first began at.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_from(
        &self,
        attempt: u32,
        since: Option<CheckpointId>,
        from: Option<&Restore>,
    ) -> Result<Planned, Diagnostic> {
        let restoring = Restoring { from, allow_non_restored: self.allow_non_restored, since };
        let name = (self.job.as_str(), self.own_id.as_deref());
        let asked = checkpoints::asked(&self.config, restoring, name, &self.platform.faults, &*self.tell)?;
        let Asked { checkpoints, is_finished } = asked;
        let options = RunOptions { checkpoints, attempt, ..self.options.clone() };
        let plan = task::plan(&self.program, &self.job, &self.args, self.graph.clone(), options)?;
        plan.prepare_under(&self.platform.faults)?;
        Ok(Planned { plan, is_finished })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn strategy(defined: &[&str]) -> Result<RestartStrategy, Diagnostic> {
        let defined: Vec<String> = defined.iter().map(|define| (*define).to_owned()).collect();
        super::strategy(&Config::load(&defined)?)
    }

    #[test]
    fn the_strategy_is_that_of_flink() {
        let minute = Duration::from_secs(60);
        let exponential = RestartStrategy::ExponentialDelay {
            initial: Duration::from_secs(1),
            max: minute,
            multiplier: 1.5,
            reset_threshold: 60 * minute,
            jitter: 0.1,
            attempts: None,
        };
        let second = Duration::from_secs(1);
        let rate = RestartStrategy::FailureRate { max_failures: 1, interval: minute, delay: second };
        for (defined, expected) in [
            (&[][..], RestartStrategy::None),
            (&["execution.checkpointing.interval=1s"], exponential.clone()),
            (&["restart-strategy.type=Exponential-Delay"], exponential),
            (
                &["restart-strategy.type=disable", "execution.checkpointing.interval=1s"],
                RestartStrategy::None,
            ),
            (
                &["restart-strategy.type=fixed-delay", "restart-strategy.fixed-delay.attempts=7"],
                RestartStrategy::FixedDelay { attempts: 7, delay: second },
            ),
            (&["restart-strategy.type=failurerate"], rate),
        ] {
            assert_eq!(strategy(defined).unwrap(), expected, "{defined:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for defined in [
            &["restart-strategy.type=always"][..],
            &["restart-strategy.exponential-delay.backoff-multiplier=1"],
            &["restart-strategy.exponential-delay.jitter-factor=1.1"],
            &["restart-strategy.failure-rate.max-failures-per-interval=0"],
            &[
                "restart-strategy.type=exponential-delay",
                "restart-strategy.exponential-delay.initial-backoff=2min",
            ],
        ] {
            assert!(strategy(defined).is_err(), "{defined:?}");
        }
    }
}
