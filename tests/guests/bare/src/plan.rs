//! The job graph.

use crate::arguments::Arguments;
use crate::millstream::job::graph::{
    Aggregate, Chaining, Connection, Edge, FailurePolicy, Function, JobGraph, Node, NodeKind, Partition,
    Port, Setting,
};
use crate::millstream::job::rows::{DataType, Field};

const SOURCE: u32 = 0;
pub(crate) const SPLIT: u32 = 1;
const COUNT: u32 = 2;
const SINK: u32 = 3;

/// Counted when no input is given.
const SAMPLE: &str = "to be or not to be\nthat is the question\n";

pub(crate) fn plan(name: String, arguments: &Arguments) -> JobGraph {
    let line = vec![text("line")];
    let word = vec![text("word")];
    let counted =
        vec![text("word"), Field { name: "count".into(), data_type: DataType::Int64, nullable: false }];
    let count = Aggregate { function: "count".into(), columns: vec![], options: vec![] };
    JobGraph {
        name,
        nodes: vec![
            node("Source", NodeKind::Source(source(arguments)), Some(line.clone())),
            node(
                "Split",
                NodeKind::Function(Function {
                    inputs: vec![line],
                    states: vec![],
                    timers: false,
                    changes: false,
                    windows: None,
                }),
                Some(word),
            ),
            node("Count", NodeKind::Aggregate(vec![count]), Some(counted)),
            node("Sink", NodeKind::Sink(sink(arguments)), None),
        ],
        edges: vec![
            edge(SOURCE, SPLIT, Partition::Forward),
            edge(SPLIT, COUNT, Partition::Hash(vec![0])),
            edge(COUNT, SINK, Partition::Forward),
        ],
        settings: vec![],
    }
}

fn source(arguments: &Arguments) -> Connection {
    match (&arguments.input, &arguments.host, &arguments.port) {
        (Some(path), _, _) => connection("files", vec![setting("path", path)], Some("lines")),
        (None, Some(host), Some(port)) => {
            connection("socket", vec![setting("host", host), setting("port", port)], Some("lines"))
        }
        _ => connection("values", vec![setting("text", SAMPLE)], Some("lines")),
    }
}

fn sink(arguments: &Arguments) -> Connection {
    let format = arguments.format.as_deref();
    match arguments.output.as_deref() {
        None | Some("print") => connection("print", vec![], format),
        Some("blackhole") => connection("blackhole", vec![], format),
        Some(path) => connection("files", vec![setting("path", path)], format.or(Some("json"))),
    }
}

fn node(name: &str, kind: NodeKind, output: Option<Vec<Field>>) -> Node {
    Node {
        uid: Some(name.to_lowercase()),
        name: name.into(),
        origin: Some(file!().into()),
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: output
            .into_iter()
            .map(|schema| Port { name: "main".into(), schema, changes: false })
            .collect(),
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn edge(producer: u32, consumer: u32, partition: Partition) -> Edge {
    Edge { producer, port: 0, consumer, input: 0, partition }
}

fn text(name: &str) -> Field {
    Field { name: name.into(), data_type: DataType::Text, nullable: false }
}

fn connection(connector: &str, options: Vec<Setting>, format: Option<&str>) -> Connection {
    Connection {
        connector: connector.into(),
        options,
        format: format.map(Into::into),
        format_options: vec![],
    }
}

fn setting(name: &str, value: &str) -> Setting {
    Setting { name: name.into(), value: value.into() }
}
