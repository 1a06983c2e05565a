//! The functions of this instance: opened as one chain, then called.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use millstream_sys::bindings::exports::millstream::job::functions::{NodePort, Task};
use millstream_sys::bindings::millstream::job::calls::{
    EntryChanges, Failure, KeyedBatch, KeyedOutcome, Moment, Outcome as CallOutcome, Output, StateUpdate,
    TimerChanges,
};
use millstream_sys::bindings::millstream::job::graph::{Partition, TimeDomain};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column};
use millstream_sys::host;

use crate::emit::Made;
use crate::job::{Definition, build};
use crate::run::stage::{Frame, KeyedFrame, Outcome, Stage};
use crate::task::TaskInfo;
use crate::{logging, metrics};

thread_local! {
    static OPEN: RefCell<Option<Chain>> = const { RefCell::new(None) };
}

/// A chain: a head and the functions after it, each fed by one before it.
struct Chain {
    functions: Vec<Function>,
}

struct Function {
    node: u32,
    stage: Stage,
    /// where the rows of each port go
    ports: Vec<Vec<Feed>>,
}

#[derive(Clone, Copy)]
enum Feed {
    /// a function later in the chain
    Function(usize),
    /// a place in the call's outputs
    Output(u32),
}

/// Makes this instance a chain: runs the job function again, and keeps the closures of its nodes.
///
/// # Errors
/// If the job has no such functions, or cannot be built.
pub fn open(
    definitions: &[Definition],
    task: &Task,
    nodes: &[u32],
    outputs: &[NodePort],
) -> Result<(), String> {
    let chain = chain(definitions, task, nodes, outputs)?;
    OPEN.with_borrow_mut(|open| match open {
        Some(_) => Err("this instance is open already".to_string()),
        None => {
            *open = Some(chain);
            Ok(())
        }
    })
}

fn chain(
    definitions: &[Definition],
    task: &Task,
    nodes: &[u32],
    outputs: &[NodePort],
) -> Result<Chain, String> {
    logging::begin_call();
    let definition = definitions
        .iter()
        .find(|definition| definition.name == task.job)
        .ok_or_else(|| format!("this component has no job {}", task.job))?;
    let info = TaskInfo::new(&task.job, task.subtask, task.parallelism, task.attempt);
    info.clone().enter();
    let mut plan = build(definition, &task.args).map_err(|refusal| refusal.text().to_string())?;
    let mut functions: Vec<Function> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let planned = plan.nodes.get_mut(*node as usize);
        let ports = planned.as_ref().map_or(0, |planned| planned.node.outputs.len());
        let mut stage = planned
            .and_then(|planned| planned.stage.take())
            .ok_or_else(|| format!("node {node} of job {} is not a function", task.job))?;
        stage.open(&info).map_err(|error| error.to_string())?;
        functions.push(Function { node: *node, stage, ports: vec![Vec::new(); ports] });
    }
    let place = |node: u32| nodes.iter().position(|member| *member == node);
    for edge in &plan.edges {
        if !matches!(edge.partition, Partition::Forward) {
            continue;
        }
        let (Some(producer), Some(consumer)) = (place(edge.producer), place(edge.consumer)) else { continue };
        if consumer <= producer {
            return Err(format!("node {} stands before what feeds it, {}", edge.consumer, edge.producer));
        }
        let is_fed = functions
            .iter()
            .flat_map(|function| function.ports.iter().flatten())
            .any(|feed| matches!(feed, Feed::Function(fed) if *fed == consumer));
        if is_fed {
            return Err(format!("node {} has two inputs in one chain", edge.consumer));
        }
        functions[producer].ports[edge.port as usize].push(Feed::Function(consumer));
    }
    for (number, output) in outputs.iter().enumerate() {
        let port = place(output.node)
            .and_then(|producer| functions[producer].ports.get_mut(output.port as usize))
            .ok_or_else(|| format!("the chain has no port {} of node {}", output.port, output.node))?;
        // A plan has far fewer ports than 2^32.
        port.push(Feed::Output(number as u32));
    }
    if functions.iter().skip(1).any(|function| matches!(function.stage, Stage::Keyed(_))) {
        return Err("a keyed function begins a chain".to_string());
    }
    Ok(Chain { functions })
}

/// Runs rows through the open chain.
pub fn process(now: Moment, input: u32, rows: Batch) -> CallOutcome {
    let result = run(now, &Head::Rows(input, rows));
    CallOutcome { outputs: result.outputs, failures: result.failures }
}

/// Runs keyed rows through the open chain.
pub fn process_keyed(now: Moment, call: KeyedBatch) -> KeyedOutcome {
    run(now, &Head::Keyed(call)).keyed()
}

/// Fires timers.
pub fn on_timers(now: Moment, domain: TimeDomain, times: Vec<i64>, call: KeyedBatch) -> KeyedOutcome {
    run(now, &Head::Timers { domain, times, call }).keyed()
}

/// Makes one value of the state of each of `count` pairs: of two windows that are one.
pub fn merge(count: u32, left: Vec<Column>, right: Vec<Column>) -> Vec<Column> {
    OPEN.with_borrow_mut(|open| match open.as_mut().and_then(|chain| chain.functions.first_mut()) {
        Some(Function { stage: Stage::Keyed(code), .. }) => code.merge(count, &left, &right),
        _ => host::abort("no function with windows is open"),
    })
}

enum Head {
    Rows(u32, Batch),
    Keyed(KeyedBatch),
    Timers { domain: TimeDomain, times: Vec<i64>, call: KeyedBatch },
}

impl Head {
    fn length(&self) -> usize {
        match self {
            Head::Rows(_, rows) => rows.length as usize,
            Head::Keyed(call) => call.inputs.iter().map(|input| input.rows.length as usize).sum(),
            Head::Timers { times, .. } => times.len(),
        }
    }

    /// The group whose state a row may have changed.
    fn group(&self, row: u32) -> Option<u32> {
        match self {
            Head::Rows(..) => None,
            // Rows without a key share what they change.
            Head::Keyed(call) => Some(call.inputs[0].groups.get(row as usize).copied().unwrap_or(0)),
            Head::Timers { .. } => Some(row),
        }
    }
}

fn run(now: Moment, head: &Head) -> CallResult {
    logging::begin_call();
    OPEN.with_borrow_mut(|open| match open {
        Some(chain) => chain.call(now, head),
        None => host::abort("called before `open`"),
    })
}

struct CallResult {
    outputs: Vec<Output>,
    updates: Vec<StateUpdate>,
    entries: Vec<EntryChanges>,
    timers: Option<TimerChanges>,
    failures: Vec<Failure>,
}

impl CallResult {
    fn keyed(self) -> KeyedOutcome {
        let none = TimerChanges { groups: Vec::new(), times: Vec::new(), changes: Vec::new() };
        KeyedOutcome {
            outputs: self.outputs,
            updates: self.updates,
            entries: self.entries,
            timers: self.timers.unwrap_or(none),
            failures: self.failures,
        }
    }
}

/// What one pass through the chain gives.
#[derive(Default)]
struct Pass {
    outputs: Vec<Output>,
    updates: Vec<StateUpdate>,
    entries: Vec<EntryChanges>,
    timers: Option<TimerChanges>,
    /// the function, its input's row, the message
    failures: Vec<(usize, u32, String)>,
}

impl Chain {
    /// Mostly one pass. If a function after the head fails rows, a second one finds the head's rows
    /// that they came from, and a third runs without those: a failed row leaves nothing anywhere.
    ///
    /// Without a row, the state that later rows of its group meet is another. So of each group only the
    /// first failure counts in a pass; whether later rows fail, the next pass tells.
    fn call(&mut self, now: Moment, head: &Head) -> CallResult {
        let mut pass = self.pass(now, head, None, false);
        let mut failed = BTreeMap::new();
        if pass.failures.iter().all(|(function, ..)| *function == 0) {
            failed.extend(pass.failures.drain(..).map(|(function, row, message)| (row, (function, message))));
        } else {
            // What these passes log and count has been logged and counted.
            let _muted = logging::mute();
            let mut skip = vec![false; head.length()];
            loop {
                pass = self.pass(now, head, Some(&skip), true);
                if pass.failures.is_empty() {
                    break;
                }
                pass.failures.sort_by_key(|(_, row, _)| *row);
                let mut groups = BTreeSet::new();
                for (function, row, message) in pass.failures.drain(..) {
                    if head.group(row).is_none_or(|group| groups.insert(group)) {
                        skip[row as usize] = true;
                        failed.entry(row).or_insert((function, message));
                    }
                }
            }
        }
        let failures = failed
            .into_iter()
            .map(|(row, (function, message))| Failure { node: self.functions[function].node, row, message })
            .collect();
        CallResult {
            outputs: pass.outputs,
            updates: pass.updates,
            entries: pass.entries,
            timers: pass.timers,
            failures,
        }
    }

    /// With `origins`, failures have the numbers of the head's rows.
    fn pass(&mut self, now: Moment, head: &Head, skip: Option<&[bool]>, origins: bool) -> Pass {
        let mut pass = Pass::default();
        let mut waiting: Vec<Option<Made>> = Vec::new();
        waiting.resize_with(self.functions.len(), || None);
        for place in 0..self.functions.len() {
            let (outcome, of_head) = if place == 0 {
                (self.functions[0].call_head(now, head, skip, origins), None)
            } else {
                let Some(made) = waiting[place].take() else { continue };
                let frame = Frame { input: 0, rows: Cow::Owned(made.rows), skip: None, origins };
                (self.functions[place].call(frame), made.origins)
            };
            metrics::flush(self.functions[place].node);
            let head_row = |row: u32| of_head.as_ref().map_or(row, |rows| rows[row as usize]);
            pass.failures
                .extend(outcome.failures.into_iter().map(|(row, message)| (place, head_row(row), message)));
            if place == 0 {
                pass.updates = outcome.updates;
                pass.entries = outcome.entries;
                pass.timers = outcome.timers;
            }
            for (port, made) in outcome.made {
                let origins = made.origins.map(|rows| rows.into_iter().map(head_row).collect());
                self.functions[place].send(port, Made { rows: made.rows, origins }, &mut waiting, &mut pass);
            }
        }
        pass
    }
}

impl Function {
    fn call_head(&mut self, now: Moment, head: &Head, skip: Option<&[bool]>, origins: bool) -> Outcome {
        match (&mut self.stage, head) {
            (Stage::Stateless(stage), Head::Rows(input, rows)) => {
                stage(Frame { input: *input, rows: Cow::Borrowed(rows), skip, origins })
            }
            (Stage::Keyed(stage), Head::Keyed(call)) => {
                stage.call(KeyedFrame { now, call, timers: None, skip, origins })
            }
            (Stage::Keyed(stage), Head::Timers { domain, times, call }) => {
                stage.call(KeyedFrame { now, call, timers: Some((*domain, times)), skip, origins })
            }
            (Stage::Stateless(_), Head::Keyed(_) | Head::Timers { .. }) => {
                host::abort("a stateless function has no keyed calls")
            }
            (Stage::Keyed(_), Head::Rows(..)) => host::abort("a keyed function has keyed calls only"),
        }
    }

    fn call(&mut self, frame: Frame<'_>) -> Outcome {
        match &mut self.stage {
            Stage::Stateless(stage) => stage(frame),
            Stage::Keyed(_) => host::abort("a keyed function begins a chain"),
        }
    }

    /// Hands a batch to all that want it, the last without a copy.
    fn send(&self, port: u32, made: Made, waiting: &mut [Option<Made>], pass: &mut Pass) {
        let Some((last, others)) = self.ports[port as usize].split_last() else { return };
        for feed in others {
            let copy = Made { rows: made.rows.clone(), origins: made.origins.clone() };
            feed.take(copy, waiting, pass);
        }
        last.take(made, waiting, pass);
    }
}

impl Feed {
    fn take(self, made: Made, waiting: &mut [Option<Made>], pass: &mut Pass) {
        match self {
            Feed::Function(place) => waiting[place] = Some(made),
            Feed::Output(port) => pass.outputs.push(Output { port, rows: made.rows }),
        }
    }
}
