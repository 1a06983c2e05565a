//! Runs a whole graph natively, node by node, batch by batch.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, KeyedRows};
use millstream_sys::bindings::millstream::job::graph::{
    Connection, FailurePolicy, JobGraph, Node, NodeKind, Partition, Setting,
};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, DataType, Field, Values};

use super::aggregate::Aggregates;
use super::batch_of;
use super::value::{Value, column_of, row_of, value_at};
use crate::metrics;
use crate::record::{is_set, top_level};
use crate::run::{Frame, KeyedFrame, Outcome, Stage};

/// The code of each node.
pub(super) type Stages = Vec<Option<Stage>>;

/// The rows that came to a sink.
pub(super) struct Output {
    pub(super) name: String,
    uid: Option<String>,
    collection: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) batches: Vec<Batch>,
}

impl Output {
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.uid.as_deref() == Some(name) || self.collection.as_deref() == Some(name)
    }
}

/// What a node is, while the graph runs.
enum Work {
    Source,
    Function(Stage, KeyedState),
    Aggregate(Aggregates),
    Sink(usize),
}

/// A keyed function's keys and its state, one batch of one row a key.
#[derive(Default)]
struct KeyedState {
    keys: Vec<u32>,
    input: Vec<Field>,
    value: Vec<Field>,
    by_key: BTreeMap<Vec<u8>, Batch>,
}

struct Runner<'g> {
    graph: &'g JobGraph,
    work: Vec<Work>,
    outputs: Vec<Output>,
    waiting: VecDeque<(u32, Batch)>,
}

/// Runs a graph to the end of its inputs.
pub(super) fn run(graph: &JobGraph, stages: Stages, mut inputs: BTreeMap<String, Vec<Batch>>) -> Vec<Output> {
    let mut runner = Runner { graph, work: Vec::new(), outputs: Vec::new(), waiting: VecDeque::new() };
    for (id, (node, stage)) in graph.nodes.iter().zip(stages).enumerate() {
        let work = runner.work_of(id as u32, node, stage);
        runner.work.push(work);
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        let NodeKind::Source(connection) = &node.kind else { continue };
        for batch in input_of(node, connection, &mut inputs) {
            let fields = &node.outputs[0].schema;
            assert_eq!(batch.columns.len(), fields.len(), "rows for {} are of another type", node.name);
            runner.send(id as u32, 0, batch);
            runner.drain();
        }
    }
    assert!(inputs.is_empty(), "the job has no source called {:?}", inputs.keys());
    runner.outputs
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

impl Runner<'_> {
    fn work_of(&mut self, id: u32, node: &Node, stage: Option<Stage>) -> Work {
        let edge = self.graph.edges.iter().find(|edge| edge.consumer == id);
        let keys = match edge.map(|edge| &edge.partition) {
            Some(Partition::Hash(keys)) => keys.clone(),
            _ => Vec::new(),
        };
        let fields: Vec<Field> = edge.map_or_else(Vec::new, |edge| {
            self.graph.nodes[edge.producer as usize].outputs[edge.port as usize].schema.clone()
        });
        match (&node.kind, stage) {
            (NodeKind::Source(_), _) => Work::Source,
            (NodeKind::Function(function), Some(stage)) => {
                let value = function.states.first().map_or_else(Vec::new, |state| state.value.clone());
                Work::Function(stage, KeyedState { keys, input: fields, value, by_key: BTreeMap::new() })
            }
            (NodeKind::Aggregate(aggregates), _) => {
                let output = node.outputs[0].schema.clone();
                Work::Aggregate(Aggregates::new(keys, aggregates.clone(), fields, output))
            }
            (NodeKind::Sink(connection), _) => {
                let collection =
                    connection.options.iter().find(|option| ["name", "path"].contains(&option.name.as_str()));
                self.outputs.push(Output {
                    name: node.name.clone(),
                    uid: node.uid.clone(),
                    collection: collection.map(|option| option.value.clone()),
                    names: top_level(&fields).into_iter().map(|place| fields[place].name.clone()).collect(),
                    batches: Vec::new(),
                });
                Work::Sink(self.outputs.len() - 1)
            }
            (NodeKind::Watermarks(_), _) => panic!("the harness has no event time yet"),
            (NodeKind::Function(_), None) => panic!("{} has no code", node.name),
        }
    }

    fn drain(&mut self) {
        while let Some((id, batch)) = self.waiting.pop_front() {
            if batch.length == 0 {
                continue;
            }
            let outcome = match &mut self.work[id as usize] {
                Work::Source => panic!("a source has no input"),
                Work::Sink(output) => {
                    self.outputs[*output].batches.push(batch);
                    continue;
                }
                Work::Aggregate(aggregates) => {
                    let rows = aggregates.process(&batch);
                    self.send(id, 0, rows);
                    continue;
                }
                Work::Function(Stage::Stateless(stage), _) => {
                    stage(Frame { rows: Cow::Borrowed(&batch), skip: None, origins: false })
                }
                Work::Function(Stage::Keyed(stage), state) => state.call(stage, &batch),
            };
            metrics::flush(id);
            self.failed(id, &batch, &outcome.failures);
            for (port, made) in outcome.made {
                self.send(id, port, made.rows);
            }
        }
    }

    /// Does with the rows that failed what the node's policy says.
    fn failed(&mut self, id: u32, batch: &Batch, failures: &[(u32, String)]) {
        let node = &self.graph.nodes[id as usize];
        let port = node.outputs.len().saturating_sub(1);
        for (row, message) in failures {
            match node.on_failure {
                FailurePolicy::Fail => panic!("{} failed row {row}: {message}", node.name),
                FailurePolicy::Skip => {}
                FailurePolicy::Divert => {
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
        for edge in &self.graph.edges {
            if (edge.producer, edge.port) == (producer, port) {
                let mut batch = batch.clone();
                if let Partition::Chosen(column) = edge.partition {
                    batch.columns.truncate(column as usize);
                }
                self.waiting.push_back((edge.consumer, batch));
            }
        }
    }
}

impl KeyedState {
    /// Calls a keyed function with the states of the batch's keys, and takes what it writes.
    fn call(&mut self, stage: &mut dyn FnMut(KeyedFrame<'_>) -> Outcome, rows: &Batch) -> Outcome {
        let mut places: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut order: Vec<(Vec<u8>, Vec<Value>)> = Vec::new();
        let mut groups = Vec::new();
        for row in 0..rows.length as usize {
            let key: Vec<Value> =
                self.keys.iter().map(|key| value_at(&rows.columns[*key as usize], row)).collect();
            let bytes: Vec<u8> = key.iter().flat_map(Value::key).collect();
            let place = *places.entry(bytes.clone()).or_insert_with(|| {
                order.push((bytes, key));
                order.len() as u32 - 1
            });
            groups.push(place);
        }
        let key_columns = self.keys.iter().enumerate().map(|(place, key)| {
            let values: Vec<Value> = order.iter().map(|(_, key)| key[place].clone()).collect();
            column_of(&self.input[*key as usize], &values)
        });
        let states: Vec<Option<&Batch>> = order.iter().map(|(bytes, _)| self.by_key.get(bytes)).collect();
        let call = KeyedBatch {
            group_count: order.len() as u32,
            keys: key_columns.collect(),
            state: state_columns(&self.value, &states),
            inputs: vec![KeyedRows { input: 0, groups, rows: rows.clone() }],
        };
        let outcome = stage(KeyedFrame { call: &call, skip: None, origins: false });
        for update in &outcome.updates {
            let length = order.len() as u32;
            let written = Batch { length, event_times: None, kinds: None, columns: update.columns.clone() };
            for (group, (bytes, _)) in order.iter().enumerate() {
                let is_written = update.written.as_ref().is_none_or(|bits| is_set(bits, group));
                if is_written {
                    self.by_key.insert(bytes.clone(), row_of(&self.value, &written, group));
                }
            }
        }
        outcome
    }
}

/// Puts states of one row each together; none is null.
///
/// # Panics
/// If the state has lists, which this stand-in cannot put together.
fn state_columns(fields: &[Field], states: &[Option<&Batch>]) -> Vec<Column> {
    let column = |(place, field): (usize, &Field)| {
        if let DataType::Structure(_) = field.data_type {
            let is_present = |state: &Option<&Batch>| {
                let validity = state.map(|state| state.columns[place].validity.as_ref());
                Value::Boolean(validity.is_some_and(|bits| bits.is_none_or(|bits| is_set(bits, 0))))
            };
            let present: Vec<Value> = states.iter().map(is_present).collect();
            let bit = Field { name: String::new(), data_type: DataType::Boolean, nullable: false };
            let Values::Bits(validity) = column_of(&bit, &present).values else {
                panic!("a column of truth values is bits")
            };
            return Column { values: Values::Nothing, validity: Some(validity) };
        }
        let value = |state: &Option<&Batch>| match state {
            Some(state) => value_at(&state.columns[place], 0),
            None => Value::Null,
        };
        column_of(field, &states.iter().map(value).collect::<Vec<_>>())
    };
    fields.iter().enumerate().map(column).collect()
}
