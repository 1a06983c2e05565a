//! From a file and arguments to a plan: what `run`, `info` and `test` have in common.

use std::path::Path;
use std::sync::{Arc, Mutex};

use guest::{JobInfo, Limits, Program, Refusal, Runtime, RuntimeConfig, Yielding};
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::{AggPhase, CheckpointTracker, Execution, RunOptions, StateBackend};

use crate::Stop;
use crate::cli::{self, JobArgs};
use crate::config::{Config, Origin};

/// Fuel between two yields of a guest whose time is simulated.
const FUEL: u64 = 1_000_000;

/// A sandbox with this configuration.
pub(crate) fn runtime(config: &Config, platform: &Platform) -> Result<Arc<Runtime>, Stop> {
    let limits = Limits {
        memory_bytes: config.size("millstream.guest.memory"),
        call_time: config.duration("millstream.guest.call-time"),
        stack_bytes: config.size("millstream.guest.stack"),
        output_bytes: config.size("millstream.guest.output"),
    };
    // Real time does not pass in a simulated world.
    let yielding = if platform.clock.is_simulated() { Yielding::Fuel(FUEL) } else { Yielding::Epoch };
    let config = RuntimeConfig { limits, yielding, cache_dir: config.cache_dir() };
    Runtime::new(platform.clone(), config).map_err(|error| Stop::Failed(error.diagnostic()))
}

/// The component in this file.
pub(crate) fn program(runtime: &Arc<Runtime>, file: &Path) -> Result<Program, Stop> {
    let bytes = std::fs::read(file).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = match missing {
            true => Diagnostic::user(format!("there is no file `{}`", file.display())),
            false => Diagnostic::user(format!("cannot read `{}`", file.display())).detail(error.to_string()),
        };
        Stop::Refused(error.hint("run takes a component: `streamctl build DIR -o FILE` makes one"))
    })?;
    runtime.load(&bytes).map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))
}

/// The error, with the component's file.
pub(crate) fn of_file(mut error: Diagnostic, file: &Path) -> Diagnostic {
    error.message = format!("{}: {}", file.display(), error.message);
    error
}

/// The jobs of a component, the default one first.
pub(crate) fn jobs(program: &Program, file: &Path) -> Result<Vec<JobInfo>, Stop> {
    program.jobs().map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))
}

/// The job of this name, or the component's first.
pub(crate) fn job<'a>(jobs: &'a [JobInfo], file: &Path, name: Option<&str>) -> Result<&'a JobInfo, Stop> {
    let names = || jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match name {
        None => jobs.first(),
        Some(name) => jobs.iter().find(|job| job.name == name),
    };
    found.ok_or_else(|| {
        Stop::Refused(match name {
            None => Diagnostic::user(format!("{} has no job", file.display())),
            Some(name) => Diagnostic::user(format!("there is no job `{name}` in {}", file.display()))
                .detail(format!("there are: {}", names()))
                .hint("-c takes one of them"),
        })
    })
}

/// What a job says to its arguments.
pub(crate) fn graph(program: &Program, file: &Path, job: &str, args: &[String]) -> Result<JobGraph, Stop> {
    let answer = program.plan(job, args).map_err(|error| Stop::Refused(of_file(error.diagnostic(), file)))?;
    answer.map_err(|refusal| match refusal {
        Refusal::Help(text) => {
            crate::terminal::answer(&text);
            Stop::Code(0)
        }
        Refusal::Usage(text) => Stop::Usage(text),
        Refusal::Invalid(text) => Stop::Refused(Diagnostic::user(text)),
    })
}

/// How the job is to run: the command line over the job's own settings over the configuration.
pub(crate) fn options(args: &JobArgs, config: &mut Config, graph: &JobGraph) -> Result<RunOptions, Stop> {
    let refused = Stop::Refused;
    if let Some(parallelism) = args.parallelism {
        config.set("parallelism.default", &parallelism.to_string(), Origin::CommandLine).map_err(refused)?;
    }
    if let Some(execution) = args.execution {
        let mode = match execution {
            cli::Execution::Streaming => "streaming",
            cli::Execution::Batch => "batch",
        };
        config.set("execution.runtime-mode", mode, Origin::CommandLine).map_err(refused)?;
    }
    for (key, value) in &graph.settings {
        config.set(key, value, Origin::Job).map_err(refused)?;
    }
    let batch = config.get("execution.runtime-mode").0.eq_ignore_ascii_case("batch");
    Ok(RunOptions {
        parallelism: config.number("parallelism.default").unwrap_or(1),
        max_parallelism: config.number("pipeline.max-parallelism"),
        execution: if batch { Execution::Batch } else { Execution::Streaming },
        fold_updates: config.get("millstream.aggregate.fold").0 == "true",
        agg_phase: match config.get("table.optimizer.agg-phase-strategy").0.to_ascii_uppercase().as_str() {
            "ONE_PHASE" => AggPhase::OnePhase,
            "TWO_PHASE" => AggPhase::TwoPhase,
            _ => AggPhase::Auto,
        },
        latency_interval: config.optional_duration("metrics.latency.interval"),
        state_backend: state_backend(config),
        allow: args.allow.clone(),
        checkpoint_tracker: checkpoint_tracker(config),
        ..RunOptions::default()
    })
}

fn checkpoint_tracker(config: &Config) -> CheckpointTracker {
    let history = config.number("web.checkpoints.history").unwrap_or_default();
    Arc::new(Mutex::new(checkpoint::Tracker::new(history as usize)))
}

fn state_backend(config: &Config) -> StateBackend {
    if !config.get("state.backend.type").0.eq_ignore_ascii_case("rocksdb") {
        return StateBackend::HashMap;
    }
    let folder = match config.get("state.backend.rocksdb.localdir").0 {
        "" => std::env::temp_dir(),
        folder => folder.into(),
    };
    StateBackend::RocksDb { folder, slot_bytes: config.size("state.backend.rocksdb.memory.fixed-per-slot") }
}
