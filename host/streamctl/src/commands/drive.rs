//! `streamctl drive`: a job step by step, for the test harness of an SDK.
//!
//! Requests and answers are JSON, one a line: `{"push":{"source":"","rows":{…}}}` is answered by
//! `{"ok":{…}}` with the rows that have come to sinks meanwhile, or by `{"error":{…}}`, after which
//! the job is at its end. Rows are the contract's batches ([`guest::WireBatch`]).

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest::{WireBatch, wire_columns};
use model::Diagnostic;
use model::job_graph::{Connection, JobGraph, Node, NodeId, NodeKind, TimeDomain};
use platform::Platform;
use serde::Deserialize;
use serde_json::{Value, json};
use task::driver::Driver;
use task::{LogRecord, LogSink};

use super::load;
use crate::cli::JobArgs;
use crate::{Done, Stop};
use cluster::Config;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// The sinks.
    Sinks,
    /// Sets the clock of processing time.
    StartAt(i64),
    /// Rows into the source of this name or uid; `""` is the first.
    Push { source: String, rows: WireBatch },
    /// Raises the watermark.
    Watermark(i64),
    /// Moves the clock of processing time by so many milliseconds.
    Advance(u64),
    /// What a key (one row; of a broadcast state none) has in a state.
    State { function: String, state: String, key: WireBatch },
    /// The timers of a function.
    Timers(String),
    /// The input's end.
    End,
}

pub(crate) fn drive(args: &JobArgs) -> Done {
    let platform = Platform::simulated();
    let config = Config::load(&args.define).map_err(Stop::Refused)?;
    let runtime = load::runtime(&config, &platform)?;
    let program = load::program(&runtime, &args.file)?;
    let jobs = load::jobs(&program, &args.file)?;
    let name = &load::job(&jobs, &args.file, args.job.as_deref())?.name;
    let mut graph = load::graph(&program, &args.file, name, &args.args)?;
    // One subtask each: what a test pushes has one order.
    graph.nodes.iter_mut().for_each(|node| node.parallelism = Some(1));
    let code = load::terms(args, config).version(&program, (name, &args.args), graph);
    let code = code.map_err(Stop::Refused)?;
    let options = task::RunOptions { parallelism: 1, ..code.options.clone() };
    let plan = code.plan(options).map_err(Stop::Refused)?;
    let messages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&messages);
    let log: LogSink = Arc::new(move |record: LogRecord| {
        told.lock().unwrap_or_else(PoisonError::into_inner).push(record.message);
    });
    let mut driver = Driver::new(plan, &platform, &log).map_err(Stop::Failed)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Stop::Failed(Diagnostic::external(error.to_string())))?;
        let said = match handle(&mut driver, &line) {
            Ok(mut said) => {
                let rows = driver.take().into_iter().map(|(sink, rows)| json!([sink, WireBatch::of(&rows)]));
                said["rows"] = rows.collect();
                let told = std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner));
                said["messages"] = told.into();
                json!({ "ok": said })
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        if writeln!(out, "{said}").and_then(|()| out.flush()).is_err() {
            // Nobody reads any more.
            break;
        }
    }
    Ok(())
}

fn handle(driver: &mut Driver, line: &str) -> Result<Value, Diagnostic> {
    let request = serde_json::from_str(line)
        .map_err(|error| Diagnostic::user("this is no request").detail(error.to_string()))?;
    match request {
        Request::Sinks => Ok(json!({ "sinks": sinks(driver.graph()) })),
        Request::StartAt(time) => {
            driver.start_at(time);
            Ok(json!({}))
        }
        Request::Push { source, rows } => {
            let source = find(driver.graph(), "source", &source, |kind| matches!(kind, NodeKind::Source(_)))?;
            let schema = Arc::clone(&driver.graph().nodes[source as usize].outputs[0].schema);
            let rows = rows.lifted(&schema).map_err(|error| {
                Diagnostic::user("the rows are not of the source's type").detail(error.to_string())
            })?;
            driver.push(source, rows).map(|()| json!({}))
        }
        Request::Watermark(time) => driver.raise(time).map(|()| json!({})),
        Request::Advance(by) => driver.advance(Duration::from_millis(by)).map(|()| json!({})),
        Request::State { function, state, key } => {
            let function = self::function(driver.graph(), &function)?;
            let key = match key.columns.is_empty() {
                true => Vec::new(),
                false => {
                    let schema = driver.key(function)?;
                    let key = key.lifted(&schema).map_err(|error| {
                        Diagnostic::user("this is no key of the function").detail(error.to_string())
                    })?;
                    key.rows().columns().to_vec()
                }
            };
            let kept = driver.state(function, &state, &key)?;
            Ok(json!({
                "count": kept.values.len(),
                "keys": wire_columns(&kept.keys),
                "values": wire_columns(&[kept.values]),
            }))
        }
        Request::Timers(function) => {
            let function = self::function(driver.graph(), &function)?;
            let timers = driver.timers(function)?;
            let timer = |(domain, time)| json!([domain == TimeDomain::ProcessingTime, time]);
            Ok(json!({ "timers": timers.into_iter().map(timer).collect::<Vec<_>>() }))
        }
        Request::End => {
            driver.end()?;
            let metrics = driver.metrics();
            let description = driver.description();
            let operators = description.vertices.iter().flat_map(|vertex| &vertex.operators);
            let nodes: BTreeMap<&str, NodeId> =
                operators.map(|operator| (operator.uid.as_str(), operator.node)).collect();
            let counters =
                metrics.counters.iter().map(|((uid, name), sum)| json!([nodes[&**uid], name, sum]));
            let gauges = metrics.gauges.iter().map(|((uid, name), last)| json!([nodes[&**uid], name, last]));
            Ok(json!({
                "counters": counters.collect::<Vec<_>>(),
                "gauges": gauges.collect::<Vec<_>>(),
            }))
        }
    }
}

/// A node of this kind and name or uid; `""` is the first.
fn find(
    graph: &JobGraph,
    what: &str,
    name: &str,
    is: impl Fn(&NodeKind) -> bool,
) -> Result<NodeId, Diagnostic> {
    let nodes = (0..).zip(&graph.nodes).filter(|(_, node)| is(&node.kind));
    let is_called = |node: &Node| name.is_empty() || node.name == name || node.uid.as_deref() == Some(name);
    let mut names = Vec::new();
    for (id, node) in nodes {
        if is_called(node) {
            return Ok(id);
        }
        names.push(node.name.as_str());
    }
    Err(Diagnostic::user(format!("the job has no {what} `{name}`"))
        .detail(format!("there are: {}", names.join(", "))))
}

fn function(graph: &JobGraph, name: &str) -> Result<NodeId, Diagnostic> {
    find(graph, "function", name, |kind| matches!(kind, NodeKind::Function(of) if of.is_stateful()))
}

/// The sinks: their nodes, what they are called, and their columns.
fn sinks(graph: &JobGraph) -> Vec<Value> {
    let sink = |(id, node): (NodeId, &Node)| {
        let NodeKind::Sink(Connection { options, .. }) = &node.kind else { return None };
        let edge = graph.edges_into(id).next()?;
        let schema = &graph.nodes[edge.producer as usize].outputs[edge.port as usize].schema;
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let collection = options.get("name").or_else(|| options.get("path"));
        Some(json!({
            "node": id,
            "name": node.name,
            "uid": node.uid,
            "collection": collection,
            "names": names,
        }))
    };
    (0..).zip(&graph.nodes).filter_map(sink).collect()
}
