//! Restarts of `streamctl run`: what the configuration says of them, and what a new attempt is made of.

use checkpoint::coordinator::CheckpointId;
use guest::Program;
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::{Plan, RestartStrategy, RunOptions};

use super::checkpoints::{self, Asked, Restoring};
use crate::config::Config;
use crate::terminal::Terminal;

/// What is done about failures of the job.
pub(crate) fn strategy(config: &Config) -> Result<RestartStrategy, Diagnostic> {
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
pub(crate) struct Attempts<'a> {
    pub(crate) program: &'a Program,
    pub(crate) job: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) graph: JobGraph,
    pub(crate) options: RunOptions,
    pub(crate) config: &'a Config,
    pub(crate) restoring: Restoring<'a>,
    pub(crate) platform: &'a Platform,
    pub(crate) terminal: &'a Terminal,
    pub(crate) say: &'a dyn Fn(&str),
}

/// An attempt that may start.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    /// The job has finished before: there is nothing left to do.
    pub(crate) is_finished: bool,
}

impl Attempts<'_> {
    /// The first.
    pub(crate) fn first(&self) -> Result<Planned, Diagnostic> {
        self.plan(0, self.restoring)
    }

    /// One more, from the newest complete checkpoint of those from `since` on, which are of the attempts before;
    /// without any from where the first began.
    pub(crate) fn next(&self, attempt: u32, since: Option<CheckpointId>) -> Result<Planned, Diagnostic> {
        self.plan(attempt, Restoring { since, ..self.restoring })
    }

    fn plan(&self, attempt: u32, restoring: Restoring<'_>) -> Result<Planned, Diagnostic> {
        let asked = checkpoints::asked(
            self.config,
            restoring,
            self.job,
            &self.platform.faults,
            self.terminal,
            self.say,
        )?;
        let Asked { checkpoints, is_finished } = asked;
        let options = RunOptions { checkpoints, attempt, ..self.options.clone() };
        let plan = task::plan(self.program, self.job, self.args, self.graph.clone(), options)?;
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
