//! What all simulated runs share: guests, a platform that a seed drives, a sink that collects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use guest::{Program, Runtime, RuntimeConfig, Yielding};
use model::Batch;
use model::job_graph::{JobGraph, NodeKind};
use platform::Platform;
use task::simulation::{Asked, Fault, Report, run, run_asking};
use task::swap::{Difference, SwapOptions, diff};
use task::{JobOutcome, RunOptions, SavepointRequest};

/// How many seeds CI runs; `SEEDS` asks for more.
const SEEDS: u64 = 1_000;
/// Fuel of a slice: a call of some hundred words is cut a few times.
const FUEL: u64 = 20_000;

/// A guest in a simulated world.
pub(crate) struct Simulated {
    platform: Platform,
    program: Program,
}

/// Who is not told what a job goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheard {
    Nobody,
    Sinks,
}

/// Loads a guest.
pub(crate) fn load(name: &str) -> Simulated {
    let platform = Platform::simulated();
    let config = RuntimeConfig { yielding: Yielding::Fuel(FUEL), ..RuntimeConfig::default() };
    let runtime = Runtime::new(platform.clone(), config).unwrap();
    let bytes = std::fs::read(built::component(name)).unwrap();
    Simulated { platform, program: runtime.load(&bytes).unwrap() }
}

impl Simulated {
    /// Its world.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The simulated time, in milliseconds since the epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.platform.clock.wall_ms()
    }

    /// Runs a job under a seed; what it did, and what came to its sink.
    pub(crate) fn run(
        &self,
        job: &str,
        args: &[String],
        options: RunOptions,
        seed: u64,
        fault: Option<Fault>,
    ) -> (Report, Vec<Batch>) {
        self.run_with(job, args, options, seed, fault, |_| {})
    }

    /// Runs a job whose graph is changed before, with whatever sinks it has; a crash leaves blocking work undone.
    /// A fault on purpose: these do not hear what is restored.
    #[expect(clippy::too_many_arguments, reason = "what a run is made of")]
    pub(crate) fn run_in_files(
        &self,
        job: &str,
        args: &[String],
        options: RunOptions,
        seed: u64,
        fault: Option<Fault>,
        unheard: Unheard,
        change: impl FnOnce(&mut JobGraph),
    ) -> Result<Report, model::Diagnostic> {
        let mut graph = self.program.plan(job, args).unwrap().unwrap_or_else(|r| panic!("{r:?}"));
        change(&mut graph);
        let plan = task::plan(&self.program, job, args, graph, options)?;
        match unheard {
            Unheard::Nobody => plan.prepare()?,
            Unheard::Sinks => plan.prepare_sources()?,
        }
        let log: task::LogSink = Arc::new(|_| {});
        let report = run(plan, &self.platform, &log, seed, fault);
        self.platform.io.forget();
        tell(seed, report.as_ref());
        report
    }

    /// A job's graph.
    pub(crate) fn graph(&self, job: &str, args: &[String]) -> JobGraph {
        self.program.plan(job, args).unwrap().unwrap_or_else(|r| panic!("{r:?}"))
    }

    /// Runs a job that is asked to change to other versions, of these arguments, after so many steps each.
    pub(crate) fn run_swapping(
        &self,
        (job, args): (&str, &[String]),
        options: &RunOptions,
        seed: u64,
        fault: Option<Fault>,
        swaps: &[(u64, Vec<String>, SwapOptions)],
        change: impl Fn(&mut JobGraph),
    ) -> Result<Report, model::Diagnostic> {
        let plan = |args: &[String], options: RunOptions| {
            let mut graph = self.program.plan(job, args).unwrap().unwrap_or_else(|r| panic!("{r:?}"));
            change(&mut graph);
            task::plan(&self.program, job, args, graph, options)
        };
        let first = plan(args, options.clone())?;
        first.prepare()?;
        let swap = |(at, args, how): &(u64, Vec<String>, SwapOptions)| {
            Ok((*at, Asked::Swap(Box::new(plan(args, options.of_next_version())?), how.clone())))
        };
        let swaps = swaps.iter().map(swap).collect::<Result<Vec<_>, model::Diagnostic>>()?;
        let log: task::LogSink = Arc::new(|_| {});
        let report = task::simulation::run_with(first, &self.platform, &log, (seed, fault), swaps);
        self.platform.io.forget();
        tell(seed, report.as_ref());
        report
    }

    /// What differs between two versions of a job, of these arguments.
    pub(crate) fn difference(
        &self,
        (job, old): (&str, &[String]),
        new: &[String],
        options: &RunOptions,
        change: impl Fn(&mut JobGraph),
    ) -> Difference {
        let version = |args: &[String], changed: bool| {
            let mut graph = self.graph(job, args);
            if changed {
                change(&mut graph);
            }
            task::plan(&self.program, job, args, graph, options.clone()).unwrap().version()
        };
        diff(&version(old, false), &version(new, true))
    }

    /// Runs a job that is asked for a savepoint after so many steps.
    pub(crate) fn run_asked(
        &self,
        (job, args): (&str, &[String]),
        options: RunOptions,
        seed: u64,
        fault: Option<Fault>,
        ask: Option<(u64, SavepointRequest)>,
        change: impl FnOnce(&mut JobGraph),
    ) -> Result<Report, model::Diagnostic> {
        let mut graph = self.program.plan(job, args).unwrap().unwrap_or_else(|r| panic!("{r:?}"));
        change(&mut graph);
        let plan = task::plan(&self.program, job, args, graph, options)?;
        plan.prepare()?;
        let log: task::LogSink = Arc::new(|_| {});
        let report = run_asking(plan, &self.platform, &log, seed, fault, ask);
        self.platform.io.forget();
        tell(seed, report.as_ref());
        report
    }

    /// The same, of a graph that is changed before.
    pub(crate) fn run_with(
        &self,
        job: &str,
        args: &[String],
        options: RunOptions,
        seed: u64,
        fault: Option<Fault>,
        change: impl FnOnce(&mut JobGraph),
    ) -> (Report, Vec<Batch>) {
        // Tests run side by side: each run collects under a name of its own.
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let collection = format!("simulation-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let graph = self.program.plan(job, args).unwrap().unwrap_or_else(|r| panic!("{r:?}"));
        let mut graph = with_collecting_sink(graph, &collection);
        change(&mut graph);
        let plan = task::plan(&self.program, job, args, graph, options).unwrap();
        plan.prepare().unwrap();
        let log: task::LogSink = Arc::new(|_| {});
        let report = run(plan, &self.platform, &log, seed, fault);
        tell(seed, report.as_ref());
        let report = report.unwrap();
        (report, connectors::collected(&collection).into_iter().map(|(_, batch)| batch).collect())
    }
}

/// The job with `collect` in the place of its sink.
fn with_collecting_sink(mut graph: JobGraph, name: &str) -> JobGraph {
    for node in &mut graph.nodes {
        if let NodeKind::Sink(connection) = &mut node.kind {
            connection.connector = "collect".to_owned();
            connection.options = BTreeMap::from([("name".to_owned(), name.to_owned())]);
            connection.format = None;
            connection.format_options.clear();
        }
    }
    graph
}

/// The seeds that are asked for.
pub(crate) fn seeds() -> Vec<u64> {
    let from_environment = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match from_environment("SEED") {
        Some(seed) => vec![seed],
        None => (0..from_environment("SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Says what became of a run that did not come to its end: seen where its test fails.
fn tell(seed: u64, report: Result<&Report, &model::Diagnostic>) {
    match report.map(|report| &report.outcome) {
        Ok(Some(JobOutcome::Finished | JobOutcome::Cancelled)) => {}
        Ok(Some(JobOutcome::Failed(error))) | Err(error) => println!("seed {seed}: {error}"),
        Ok(None) => println!("seed {seed}: it stands still"),
    }
}
