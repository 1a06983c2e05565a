//! Runs a whole graph natively, node by node, batch by batch.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use millstream_sys::bindings::millstream::job::calls::Moment;
use millstream_sys::bindings::millstream::job::graph::{
    Connection, FailurePolicy, JobGraph, Node, NodeKind, Partition, Setting,
};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Field};
use millstream_sys::host::stub;

use super::aggregate::Aggregates;
use super::driver::Engine;
use super::keyed::{EVENT, Key, KeyedState, PROCESSING, key_of};
use super::value::{Value, column_of, row_of};
use super::watermarks::Watermarks;
use super::{Run, batch_of};
use crate::metrics;
use crate::process::{TimeDomain, Timer};
use crate::record::top_level;
use crate::run::{Frame, Outcome, Stage};
use crate::task::TaskInfo;

/// The code of each node.
pub(super) type Stages = Vec<Option<Stage>>;

/// The rows that came to a sink.
pub(super) struct Output {
    pub(super) name: String,
    uid: Option<String>,
    collection: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) batches: Vec<Batch>,
    /// how many batches the test has taken
    pub(super) taken: usize,
}

impl Output {
    /// That of a sink, without rows.
    pub(super) fn new(
        name: String,
        uid: Option<String>,
        collection: Option<String>,
        names: Vec<String>,
    ) -> Output {
        Output { name, uid, collection, names, batches: Vec::new(), taken: 0 }
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.uid.as_deref() == Some(name) || self.collection.as_deref() == Some(name)
    }
}

/// What a node is, while the graph runs.
enum Work {
    Source,
    Watermarks(Watermarks),
    Function(Stage, KeyedState),
    Aggregate(Aggregates),
    Sink(usize),
}

/// A node, and the watermark of each of its edges.
struct Running {
    work: Work,
    inputs: BTreeMap<usize, i64>,
    watermark: i64,
}

/// What travels on an edge.
enum Element {
    Rows(Batch),
    Watermark(i64),
}

/// A graph that runs: one subtask a node.
pub(super) struct Runner {
    graph: Rc<JobGraph>,
    nodes: Vec<Running>,
    pub(super) outputs: Vec<Output>,
    /// the edge, and what is on it
    waiting: VecDeque<(usize, Element)>,
    /// processing time
    now: i64,
    /// whether `now` is a time that rows can be ahead of
    is_dated: bool,
}

impl Runner {
    pub(super) fn new(graph: JobGraph, stages: Stages) -> Runner {
        let graph = Rc::new(graph);
        let mut runner = Runner {
            graph: Rc::clone(&graph),
            nodes: Vec::new(),
            outputs: Vec::new(),
            waiting: VecDeque::new(),
            now: 0,
            is_dated: false,
        };
        for (id, (node, stage)) in graph.nodes.iter().zip(stages).enumerate() {
            let work = runner.work_of(id as u32, node, stage);
            let inputs = graph.edges.iter().enumerate().filter(|(_, edge)| edge.consumer as usize == id);
            let inputs = inputs.map(|(edge, _)| (edge, i64::MIN)).collect();
            runner.nodes.push(Running { work, inputs, watermark: i64::MIN });
        }
        runner
    }

    /// Feeds the inputs, source by source, to their ends.
    pub(super) fn run(&mut self, mut inputs: BTreeMap<String, Vec<Batch>>) {
        let graph = Rc::clone(&self.graph);
        for (id, node) in graph.nodes.iter().enumerate() {
            let NodeKind::Source(connection) = &node.kind else { continue };
            for batch in input_of(node, connection, &mut inputs) {
                self.feed(id as u32, batch);
            }
        }
        assert!(inputs.is_empty(), "the job has no source called {:?}", inputs.keys());
        self.end_all();
    }

    /// Feeds rows to a source.
    fn feed(&mut self, source: u32, batch: Batch) {
        let graph = Rc::clone(&self.graph);
        let node = &graph.nodes[source as usize];
        assert!(!is_of_tables(node), "{} is of several tables: test its job in the engine", node.name);
        let fields = &node.outputs[0].schema;
        assert_eq!(batch.columns.len(), fields.len(), "rows for {} are of another type", node.name);
        self.send(source, 0, batch);
        self.drain();
    }

    /// Ends every source: the watermark is the greatest.
    fn end_all(&mut self) {
        let graph = Rc::clone(&self.graph);
        for (id, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, NodeKind::Source(_)) {
                self.send_watermark(id as u32, i64::MAX);
            }
        }
        self.drain();
    }

    /// The function of this name or uid.
    fn function(&self, name: &str) -> &KeyedState {
        let nodes = self.graph.nodes.iter().zip(&self.nodes);
        let found = nodes.into_iter().find_map(|(node, running)| match &running.work {
            Work::Function(_, state) if node.name == name || node.uid.as_deref() == Some(name) => Some(state),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("the job has no function `{name}`"))
    }
}

impl Engine for Runner {
    fn start_at(&mut self, time: i64) {
        self.now = time;
        self.is_dated = true;
    }

    fn push(&mut self, name: &str, rows: Batch) {
        let is_source = |node: &Node| matches!(node.kind, NodeKind::Source(_));
        let found = self.graph.nodes.iter().position(|node| {
            is_source(node) && (name.is_empty() || node.name == name || node.uid.as_deref() == Some(name))
        });
        let Some(source) = found else { panic!("the job has no source `{name}`") };
        self.feed(source as u32, rows);
    }

    fn raise(&mut self, time: i64) {
        for id in 0..self.nodes.len() {
            let node = &mut self.nodes[id];
            let is_origin = match &mut node.work {
                Work::Source => true,
                Work::Watermarks(watermarks) => watermarks.raise(time),
                _ => false,
            };
            if is_origin {
                self.send_watermark(id as u32, time);
            }
        }
        self.drain();
    }

    fn advance(&mut self, by: i64) {
        let time = self.now.saturating_add(by);
        loop {
            let next = self.nodes.iter().enumerate().filter_map(|(id, node)| match &node.work {
                Work::Function(_, state) => Some((state.timers[PROCESSING].first()?.0, id)),
                _ => None,
            });
            let Some((due, id)) = next.min().filter(|(due, _)| *due <= time) else { break };
            self.now = self.now.max(due);
            self.fire(id as u32);
            self.drain();
        }
        self.now = self.now.max(time);
    }

    fn outputs(&mut self) -> &mut Vec<Output> {
        &mut self.outputs
    }

    fn value(&self, function: &str, state: &str, key: &Batch) -> Option<Vec<Column>> {
        Some(self.function(function).state(state, key, self.now)?.columns.clone())
    }

    fn entries(&self, function: &str, state: &str, key: Option<&Batch>) -> (Vec<Column>, Vec<Column>, usize) {
        let key = key.map_or_else(Key::new, key_of);
        self.function(function).entries.of(state, &key, self.now)
    }

    fn timers(&self, function: &str) -> Vec<Timer> {
        let timers = &self.function(function).timers;
        let domains = [(EVENT, TimeDomain::EventTime), (PROCESSING, TimeDomain::ProcessingTime)];
        let of = |(place, domain): (usize, TimeDomain)| {
            timers[place].iter().map(move |(time, _)| Timer { domain, time: *time })
        };
        domains.into_iter().flat_map(of).collect()
    }

    fn end(mut self: Box<Self>) -> Run {
        self.end_all();
        Run { outputs: self.outputs, told: stub::take() }
    }
}

/// The rows of a source: what the test gives it, or what a source of its own text has.
fn input_of(node: &Node, connection: &Connection, inputs: &mut BTreeMap<String, Vec<Batch>>) -> Vec<Batch> {
    let given = inputs
        .remove(&node.name)
        .or_else(|| node.uid.as_ref().and_then(|uid| inputs.remove(uid)))
        .or_else(|| inputs.remove(""));
    if let Some(given) = given {
        return given;
    }
    let text = connection.options.iter().find(|option| option.name == "text");
    match (connection.connector.as_str(), connection.format.as_deref(), text) {
        ("values", Some("lines"), Some(Setting { value, .. })) => vec![batch_of::<String>(value.lines())],
        _ => panic!("the test has no rows for {}", node.name),
    }
}

/// Whether a source has a port for each of several tables.
fn is_of_tables(node: &Node) -> bool {
    node.outputs.len() > 1 && node.on_failure != FailurePolicy::Divert
}

/// Says where a job of operators that are the engine's alone is tested.
fn not_here(node: &Node) -> ! {
    panic!(
        "{} is the engine's alone: windows, joins, top-n and changelogs have no native stand-in\n\
         detail: the operator is made at {}\n\
         hint: test the job as a component in the engine: `streamctl build -o FILE`, then \
         `Harness::of(…).component(FILE)`",
        node.name,
        node.origin.as_deref().unwrap_or("?")
    )
}

impl Runner {
    fn work_of(&mut self, id: u32, node: &Node, stage: Option<Stage>) -> Work {
        let first =
            |input: u32| self.graph.edges.iter().find(|edge| edge.consumer == id && edge.input == input);
        let keys_of = |input: u32| match first(input).map(|edge| &edge.partition) {
            Some(Partition::Hash(keys)) => Some(keys.clone()),
            Some(Partition::Global) => Some(Vec::new()),
            _ => None,
        };
        let fields_of = |input: u32| -> Vec<Field> {
            first(input).map_or_else(Vec::new, |edge| {
                self.graph.nodes[edge.producer as usize].outputs[edge.port as usize].schema.clone()
            })
        };
        let (keys, fields) = (keys_of(0).unwrap_or_default(), fields_of(0));
        match (&node.kind, stage) {
            (NodeKind::Source(_), _) => Work::Source,
            (NodeKind::Watermarks(watermarks), _) => {
                Work::Watermarks(Watermarks::new(watermarks.clone(), fields))
            }
            (NodeKind::Function(function), _) if function.windows.is_some() => not_here(node),
            (NodeKind::Function(function), Some(mut stage)) => {
                if let Err(error) = stage.open(&TaskInfo::new("job", 0, 1, 0)) {
                    panic!("{} cannot be opened: {error}", node.name);
                }
                let inputs = 0..function.inputs.len() as u32;
                let fields: Vec<_> = inputs.clone().map(fields_of).collect();
                let keys = inputs.map(keys_of).collect();
                Work::Function(stage, KeyedState::new(keys, &fields, function))
            }
            (NodeKind::Aggregate(_), _) if node.outputs[0].changes => not_here(node),
            (NodeKind::Aggregate(aggregates), _) => {
                let output = node.outputs[0].schema.clone();
                Work::Aggregate(Aggregates::new(keys, aggregates.clone(), fields, output))
            }
            (NodeKind::Sink(connection), _) => {
                let collection =
                    connection.options.iter().find(|option| ["name", "path"].contains(&option.name.as_str()));
                let collection = collection.map(|option| option.value.clone());
                let names = top_level(&fields).into_iter().map(|place| fields[place].name.clone());
                self.outputs.push(Output::new(
                    node.name.clone(),
                    node.uid.clone(),
                    collection,
                    names.collect(),
                ));
                Work::Sink(self.outputs.len() - 1)
            }
            (NodeKind::Function(_), None) => panic!("{} has no code", node.name),
            (NodeKind::Window(_) | NodeKind::Join(_) | NodeKind::Top(_) | NodeKind::Lookup(_), _) => {
                not_here(node)
            }
        }
    }

    fn drain(&mut self) {
        while let Some((edge, element)) = self.waiting.pop_front() {
            let id = self.graph.edges[edge].consumer;
            match element {
                Element::Rows(rows) if rows.length > 0 => self.rows(id, self.graph.edges[edge].input, rows),
                Element::Rows(_) => {}
                Element::Watermark(time) => self.watermark(id, edge, time),
            }
        }
    }

    fn rows(&mut self, id: u32, input: u32, batch: Batch) {
        let node = &mut self.nodes[id as usize];
        let now = Moment { watermark: node.watermark, processing_time: self.now };
        let outcome = match &mut node.work {
            Work::Source => panic!("a source has no input"),
            Work::Sink(output) => {
                self.outputs[*output].batches.push(batch);
                return;
            }
            Work::Aggregate(aggregates) => {
                let rows = aggregates.process(&batch);
                self.send(id, 0, rows);
                return;
            }
            Work::Watermarks(watermarks) => {
                let timed = watermarks.process(&batch, self.now, self.is_dated);
                self.failed(id, Some((0, &batch)), &timed.failures);
                self.send(id, 0, timed.rows);
                if let Some(time) = timed.watermark {
                    self.send_watermark(id, time);
                }
                return;
            }
            Work::Function(Stage::Stateless(stage), _) => {
                stage(Frame { input, rows: Cow::Borrowed(&batch), skip: None, origins: false })
            }
            Work::Function(Stage::Keyed(stage), state) => state.call(&mut **stage, now, input, &batch),
        };
        self.made(id, Some((input, &batch)), outcome);
        self.fire(id);
    }

    fn made(&mut self, id: u32, rows: Option<(u32, &Batch)>, outcome: Outcome) {
        metrics::flush(id);
        self.failed(id, rows, &outcome.failures);
        for (port, made) in outcome.made {
            self.send(id, port, made.rows);
        }
    }

    /// Takes an edge's watermark; the node's is the least of all its edges.
    fn watermark(&mut self, id: u32, edge: usize, time: i64) {
        let node = &mut self.nodes[id as usize];
        node.inputs.insert(edge, time);
        let least = node.inputs.values().copied().min().unwrap_or(i64::MAX);
        if least <= node.watermark {
            return;
        }
        node.watermark = least;
        let passes = match &mut node.work {
            // What a node of watermarks gives is its own, but for the end.
            Work::Watermarks(watermarks) => least == i64::MAX && watermarks.raise(least),
            _ => true,
        };
        if passes {
            self.fire(id);
            self.send_watermark(id, least);
        }
    }

    /// Fires what is due, in rounds of one timer a key.
    fn fire(&mut self, id: u32) {
        loop {
            let node = &mut self.nodes[id as usize];
            let now = Moment { watermark: node.watermark, processing_time: self.now };
            let Work::Function(Stage::Keyed(stage), state) = &mut node.work else { return };
            let Some(outcome) = state.fire(&mut **stage, now) else { return };
            self.made(id, None, outcome);
        }
    }

    /// Does with the rows that failed what the node's policy says.
    fn failed(&mut self, id: u32, rows: Option<(u32, &Batch)>, failures: &[(u32, String)]) {
        let graph = Rc::clone(&self.graph);
        let node = &graph.nodes[id as usize];
        let inputs = match &node.kind {
            NodeKind::Function(function) => function.inputs.len(),
            _ => 1,
        };
        for (row, message) in failures {
            match node.on_failure {
                FailurePolicy::Fail => {
                    let what = if rows.is_some() { "row" } else { "timer" };
                    panic!("{} failed {what} {row}: {message}", node.name)
                }
                FailurePolicy::Skip => {}
                FailurePolicy::Divert => {
                    // A timer that fails has no row.
                    let Some((input, batch)) = rows else { continue };
                    let port = node.outputs.len() - inputs + input as usize;
                    let schema = &node.outputs[port].schema;
                    let mut one = row_of(&schema[..schema.len() - 1], batch, *row as usize);
                    let message = Value::Bytes(message.clone().into_bytes());
                    one.columns.push(column_of(&schema[schema.len() - 1], &[message]));
                    self.send(id, port as u32, one);
                }
            }
        }
    }

    /// Hands a batch to all consumers of a port. There is one subtask of each.
    fn send(&mut self, producer: u32, port: u32, batch: Batch) {
        for (number, edge) in self.graph.edges.iter().enumerate() {
            if (edge.producer, edge.port) == (producer, port) {
                let mut batch = batch.clone();
                if let Partition::Chosen(column) = edge.partition {
                    batch.columns.truncate(column as usize);
                }
                self.waiting.push_back((number, Element::Rows(batch)));
            }
        }
    }

    fn send_watermark(&mut self, producer: u32, time: i64) {
        for (number, edge) in self.graph.edges.iter().enumerate() {
            if edge.producer == producer {
                self.waiting.push_back((number, Element::Watermark(time)));
            }
        }
    }
}
