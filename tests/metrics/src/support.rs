//! Starts jobs of the built guests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use guest::{Program, Runtime, RuntimeConfig};
use model::job_graph::{NodeId, NodeKind};
use platform::{Clock, Platform};
use task::metrics::{JobMetrics, SubtaskMetrics};
use task::{Job, Plan, RunOptions};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(name: &str) -> Program {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new(Platform::system(), RuntimeConfig::default()).unwrap());
    runtime.load(&std::fs::read(built::component(name)).unwrap()).unwrap()
}

/// The plan of a job of this guest.
pub(crate) fn plan(guest: &str, job: &str, args: &[&str], parallelism: u32) -> Plan {
    plan_with(guest, job, args, RunOptions { parallelism, ..RunOptions::default() })
}

/// The same with other options.
pub(crate) fn plan_with(guest: &str, job: &str, args: &[&str], options: RunOptions) -> Plan {
    let program = load(guest);
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let graph = program.plan(job, &args).unwrap().unwrap_or_else(|refusal| panic!("{refusal:?}"));
    task::plan(&program, job, &args, graph, options).unwrap()
}

/// The plan's sinks.
pub(crate) fn sinks(plan: &Plan) -> Vec<NodeId> {
    let nodes = (0..).zip(&plan.physical.job.nodes);
    nodes.filter(|(_, node)| matches!(node.kind, NodeKind::Sink(_))).map(|(id, _)| id).collect()
}

pub(crate) fn start(plan: Plan) -> Job {
    plan.prepare().unwrap();
    task::start(plan, &Platform::system(), Arc::new(|_| {})).unwrap()
}

/// Waits until a job's metrics are so; fails after a minute.
pub(crate) fn until(job: &Job, what: &str, is_so: impl Fn(&JobMetrics) -> bool) -> JobMetrics {
    let clock = Clock::system();
    loop {
        let metrics = job.metrics();
        if is_so(&metrics) {
            return metrics;
        }
        assert!(clock.now() < Duration::from_secs(60), "never {what}: {metrics:#?}");
        clock.sleep(Duration::from_millis(10));
    }
}

/// All subtasks, vertex by vertex.
pub(crate) fn subtasks(metrics: &JobMetrics) -> impl Iterator<Item = &SubtaskMetrics> {
    metrics.vertices.iter().flat_map(|vertex| &vertex.subtasks)
}

/// All time that a subtask has spent.
pub(crate) fn all_time(subtask: &SubtaskMetrics) -> Duration {
    subtask.spent.busy + subtask.spent.idle + subtask.spent.backpressured
}

/// A text of so many lines of five words.
pub(crate) fn text(lines: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |n: usize| format!("w{} w{} to be w{}\n", n % 97, n % 1_009, n % 13);
    std::fs::write(file.path(), (0..lines).map(line).collect::<String>()).unwrap();
    file
}
