//! Runs jobs of the hostile guest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arrow_array::cast::AsArray;
use guest::{Limits, Program, Runtime, RuntimeConfig};
use model::Diagnostic;
use platform::Platform;
use task::{JobOutcome, LogRecord, Progress, RunOptions};

/// The guests that `scripts/setup` and `scripts/test` build.
pub(crate) fn component(name: &str) -> Vec<u8> {
    std::fs::read(built::component(name)).unwrap()
}

/// A sandbox for all tests: what one guest does must not touch the others.
pub(crate) fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let limits = Limits { memory_bytes: 64 << 20, output_bytes: 16 << 20, ..Limits::default() };
        Runtime::new(Platform::system(), RuntimeConfig { limits, ..RuntimeConfig::default() }).unwrap()
    })
}

pub(crate) fn hostile() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| runtime().load(&component("hostile")).unwrap())
}

/// What became of a job.
pub(crate) struct Run {
    pub(crate) outcome: Result<(), Diagnostic>,
    pub(crate) lines: Vec<String>,
    pub(crate) logs: Vec<LogRecord>,
    pub(crate) progress: Progress,
    pub(crate) metrics: usize,
}

/// Runs a job of the hostile guest over a text.
pub(crate) fn run(job: &str, text: &str, policy: &str) -> Run {
    run_with(job, text, policy, RunOptions::default())
}

/// The same with other options.
pub(crate) fn run_with(job: &str, text: &str, policy: &str, options: RunOptions) -> Run {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let name = format!("sandbox-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let args = [text, &name, policy].map(str::to_owned);
    let graph = hostile().plan(job, &args).unwrap().unwrap_or_else(|refusal| panic!("{refusal:?}"));
    let plan = task::plan(hostile(), job, &args, graph, options).unwrap();
    plan.prepare().unwrap();
    let logs: Arc<Mutex<Vec<LogRecord>>> = Arc::default();
    let log: task::LogSink = {
        let logs = Arc::clone(&logs);
        Arc::new(move |record| logs.lock().unwrap().push(record))
    };
    let job = task::start(plan, &Platform::system(), log).unwrap();
    let outcome = match job.wait() {
        JobOutcome::Finished => Ok(()),
        JobOutcome::Cancelled => panic!("nobody cancelled it"),
        JobOutcome::Failed(error) => Err(error),
    };
    let lines = connectors::collected(&name)
        .iter()
        .flat_map(|(_, rows)| {
            let text = rows.column(0).as_string::<i32>();
            (0..rows.num_rows()).map(|row| text.value(row).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let logs = std::mem::take(&mut *logs.lock().unwrap());
    Run { outcome, lines, logs, progress: job.progress(), metrics: job.user_metrics().counters.len() }
}
