//! From a component and arguments to what can run: what all commands and the session have in common.

use std::sync::{Arc, Mutex};

use guest::{CompileLimits, Limits, Program, Refusal, Runtime, RuntimeConfig, Yielding};
use model::Diagnostic;
use model::job_graph::JobGraph;
use platform::Platform;
use task::{AggPhase, CheckpointTracker, Execution, RunOptions, StateBackend};

use crate::Config;
use crate::config::Origin;

/// Fuel between two yields of a guest whose time is simulated.
const FUEL: u64 = 1_000_000;

/// A sandbox with this configuration.
///
/// # Errors
/// If the machine does not give what it needs.
pub fn runtime(config: &Config, platform: &Platform) -> Result<Arc<Runtime>, Diagnostic> {
    let limits = Limits {
        memory_bytes: config.size("millstream.guest.memory"),
        call_time: config.duration("millstream.guest.call-time"),
        stack_bytes: config.size("millstream.guest.stack"),
        output_bytes: config.size("millstream.guest.output"),
    };
    // Real time does not pass in a simulated world.
    let yielding = if platform.clock.is_simulated() { Yielding::Fuel(FUEL) } else { Yielding::Epoch };
    let compile = CompileLimits {
        memory_bytes: config.size("millstream.compile.memory"),
        time: config.duration("millstream.compile.time"),
    };
    let config = RuntimeConfig { limits, yielding, cache_dir: config.cache_dir(), compile };
    Runtime::new(platform.clone(), config).map_err(|error| error.diagnostic())
}

/// The job of this name in a component, or its first: its name, and what it says to its arguments.
///
/// # Errors
/// If there is no such job, or it does not take them.
pub fn graph(
    program: &Program,
    job: Option<&str>,
    args: &[String],
) -> Result<(String, JobGraph), Diagnostic> {
    let jobs = program.jobs().map_err(|error| error.diagnostic())?;
    let found = match job {
        Some(name) => jobs.iter().find(|job| job.name == *name),
        None => jobs.first(),
    };
    let job = found.ok_or_else(|| {
        let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
        let wanted = job.unwrap_or_default();
        Diagnostic::user(format!("there is no job `{wanted}` in the component"))
            .detail(format!("there are: {}", names.join(", ")))
    })?;
    let answer = program.plan(&job.name, args).map_err(|error| error.diagnostic())?;
    let graph = answer.map_err(|refusal| match refusal {
        Refusal::Help(text) | Refusal::Usage(text) | Refusal::Invalid(text) => Diagnostic::user(text),
    })?;
    Ok((job.name.clone(), graph))
}

/// How the job is to run: the command line over the job's own settings over the configuration.
///
/// # Errors
/// If a setting makes no sense.
pub fn options(
    (parallelism, execution): (Option<u32>, Option<Execution>),
    allow: &[String],
    config: &mut Config,
    graph: &JobGraph,
) -> Result<RunOptions, Diagnostic> {
    if let Some(parallelism) = parallelism {
        config.set("parallelism.default", &parallelism.to_string(), Origin::CommandLine)?;
    }
    if let Some(execution) = execution {
        let mode = match execution {
            Execution::Streaming => "streaming",
            Execution::Batch => "batch",
        };
        config.set("execution.runtime-mode", mode, Origin::CommandLine)?;
    }
    for (key, value) in &graph.settings {
        config.set(key, value, Origin::Job)?;
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
        allow: allow.to_vec(),
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
