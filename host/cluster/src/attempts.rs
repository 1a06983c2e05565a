//! What the attempts of a job are made of, and what the configuration says of restarts.

use std::sync::{Arc, OnceLock};

use checkpoint::Storage;
use checkpoint::coordinator::CheckpointId;
use checkpoint::manifest::Version as Ran;
use guest::{Program, Runtime};
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::swap::RollBack;
use task::{CheckpointTracker, Execution, JobDescription, Plan, RestartStrategy, Restored, RunOptions};

use crate::checkpoints::{self, Asked, Restore, Restoring};
use crate::{Config, Tell, program};

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

/// What is asked of all versions of a job: the configuration, and what the command line says over it.
pub struct Terms {
    /// The values in effect, before the job sets its own.
    pub config: Config,
    /// Parallel subtasks; none = as the configuration says.
    pub parallelism: Option<u32>,
    /// Changes, or final results; none = as the configuration says.
    pub execution: Option<Execution>,
    /// What is granted beyond what the arguments name.
    pub allow: Vec<String>,
    /// Every call of the guest has a fresh instance.
    pub chaos_instances: bool,
    /// State that nobody in the job asks for is left out.
    pub allow_non_restored: bool,
    /// Where the checkpoints of all versions are counted.
    tracker: OnceLock<CheckpointTracker>,
}

impl Terms {
    /// The configuration alone.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            parallelism: None,
            execution: None,
            allow: Vec::new(),
            chaos_instances: false,
            allow_non_restored: false,
            tracker: OnceLock::new(),
        }
    }

    /// A version of a job: what a component has under this name, which says to these arguments that it is `graph`.
    ///
    /// # Errors
    /// If a setting makes no sense.
    pub fn version(
        &self,
        program: &Program,
        (job, args): (&str, &[String]),
        graph: JobGraph,
    ) -> Result<Code, Diagnostic> {
        let mut config = self.config.clone();
        let asked = (self.parallelism, self.execution);
        let mut options = program::options(asked, &self.allow, &mut config, &graph)?;
        options.chaos_instances = self.chaos_instances;
        options.checkpoint_tracker =
            Arc::clone(self.tracker.get_or_init(|| Arc::clone(&options.checkpoint_tracker)));
        let (program, job, args) = (program.clone(), job.to_owned(), args.to_vec());
        let allow_non_restored = self.allow_non_restored;
        Ok(Code { program, job, args, graph, config, options, allow_non_restored })
    }
}

/// A version of a job: its code, and how it is to run.
pub struct Code {
    /// Its component.
    pub program: Program,
    /// Its name in the component.
    pub job: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it says to them.
    pub graph: JobGraph,
    /// The values in effect.
    pub config: Config,
    /// How it is to run; checkpoints and the attempt's number are filled in.
    pub options: RunOptions,
    /// State that nobody in it asks for is left out.
    pub allow_non_restored: bool,
}

impl Code {
    /// As manifests name it, from a checkpoint on.
    #[must_use]
    pub fn ran(&self, from: CheckpointId) -> Ran {
        let component = self.program.digest().to_owned();
        Ran { from, component, job: self.job.clone(), args: self.args.clone() }
    }

    /// Its plan, with these options; nothing is looked at outside.
    ///
    /// # Errors
    /// If the job cannot be planned.
    pub fn plan(&self, options: RunOptions) -> Result<Plan, Diagnostic> {
        task::plan(&self.program, &self.job, &self.args, self.graph.clone(), options)
    }

    /// How many slots it needs.
    ///
    /// # Errors
    /// If the job cannot be planned.
    pub fn slots(&self) -> Result<u32, Diagnostic> {
        Ok(self.plan(self.options.clone())?.physical.slots())
    }

    /// What it is made of.
    ///
    /// # Errors
    /// If the job cannot be planned.
    pub fn description(&self) -> Result<JobDescription, Diagnostic> {
        let plan = self.plan(self.options.clone())?;
        Ok(JobDescription::of(&plan.physical, self.options.execution))
    }
}

/// What all attempts of a job have in common.
pub struct Attempts {
    /// The version that it is submitted with.
    pub first: Arc<Code>,
    /// What is asked of all versions.
    pub terms: Terms,
    /// Where other versions are loaded.
    pub runtime: Arc<Runtime>,
    /// Its id, if it has one of its own.
    pub own_id: Option<String>,
    /// What the first goes on from.
    pub restore: Option<Restore>,
    /// The world; its I/O pool is the job's alone.
    pub platform: Platform,
    /// Hears of it.
    pub tell: Arc<dyn Tell>,
}

/// What an attempt goes on from.
pub struct Origin<'a> {
    /// The newest checkpoint from this one on, where there are any: they are of the attempts before.
    pub since: Option<CheckpointId>,
    /// Else this.
    pub restore: Option<&'a Restore>,
    /// It goes back to an older version, which is given, than the checkpoint's.
    pub back: Option<&'a RollBack>,
}

/// An attempt that may start.
pub struct Planned {
    /// How.
    pub plan: Plan,
    /// The job has finished before: there is nothing left to do.
    pub is_finished: bool,
    /// The version that runs.
    pub code: Arc<Code>,
    /// Which versions have run, the first first; the last is this one.
    pub versions: Vec<Ran>,
}

impl Attempts {
    /// Where the checkpoints of the job of this id are; none = there are none.
    ///
    /// # Errors
    /// If they cannot be there.
    pub fn storage(&self, id: &str) -> Result<Option<Storage>, Diagnostic> {
        checkpoints::storage(&self.first.config, self.restore.as_ref(), id, &self.platform.faults)
    }

    /// The first attempt.
    ///
    /// # Errors
    /// As [`plan_from`](Self::plan_from).
    pub fn plan(&self) -> Result<Planned, Diagnostic> {
        self.plan_from(0, &Origin { since: None, restore: self.restore.as_ref(), back: None }, &self.first)
    }

    /// An attempt. It is of the version that a checkpoint says, else of `code`.
    ///
    /// # Errors
    /// If it cannot run: its input is not there, its output is in the way, its state does not fit …
    pub fn plan_from(
        &self,
        attempt: u32,
        origin: &Origin<'_>,
        code: &Arc<Code>,
    ) -> Result<Planned, Diagnostic> {
        let (since, from) = (origin.since, origin.restore);
        let restoring = Restoring { from, allow_non_restored: code.allow_non_restored, since };
        let name = (self.first.job.as_str(), self.own_id.as_deref());
        let asked = checkpoints::asked(&code.config, restoring, name, &self.platform.faults, &*self.tell)?;
        let Asked { mut checkpoints, is_finished } = asked;
        let restored = checkpoints.as_mut().and_then(|checkpoints| checkpoints.restored.as_mut());
        if let (Some(restored), Some(back)) = (restored.and_then(Arc::get_mut), origin.back) {
            restored.take_back(back);
        }
        let restored = checkpoints.as_ref().and_then(|checkpoints| checkpoints.restored.clone());
        let code = match &restored {
            Some(restored) if origin.back.is_none() => self.version_of(restored, since, code)?,
            _ => Arc::clone(code),
        };
        let versions = code.ran(0).follows(restored.as_deref().map(Restored::manifest));
        let plan = code.plan(RunOptions { checkpoints, attempt, ..code.options.clone() })?;
        plan.prepare_under(&self.platform.faults)?;
        Ok(Planned { plan, is_finished, code, versions })
    }

    /// The version that goes on from a checkpoint: the one that it was made for, unless that is not there, or another is
    /// given which has not run before.
    fn version_of(
        &self,
        restored: &Restored,
        since: Option<CheckpointId>,
        given: &Arc<Code>,
    ) -> Result<Arc<Code>, Diagnostic> {
        let Some(last) = restored.version() else { return Ok(Arc::clone(given)) };
        let Some(component) = restored.component(&last.component) else { return Ok(Arc::clone(given)) };
        let manifest = restored.manifest();
        let is_own = since.is_some_and(|since| manifest.checkpoint >= since);
        let is_given = given.config.get("millstream.restore.version").0 == "given";
        let has_run = manifest.versions.iter().any(|version| version.is_same(&given.ran(0)));
        if last.is_same(&given.ran(0)) || !is_own && (is_given || !has_run) {
            return Ok(Arc::clone(given));
        }
        self.tell.say(&format!(
            "it goes on as the version to which it was changed at checkpoint {} (component {})",
            last.from,
            short(&last.component)
        ));
        let program = self.runtime.load(component).map_err(|error| error.diagnostic())?;
        self.version(&program, Some(&last.job), &last.args).map(Arc::new)
    }

    /// A version of the job: of a component, in which it has this name, or is the first.
    ///
    /// # Errors
    /// If there is no such job in the component, or it does not take the arguments.
    pub fn version(&self, program: &Program, job: Option<&str>, args: &[String]) -> Result<Code, Diagnostic> {
        let (job, graph) = program::graph(program, job, args)?;
        self.terms.version(program, (&job, args), graph)
    }
}

/// As much of a digest as people compare.
#[must_use]
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
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
