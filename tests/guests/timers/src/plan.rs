//! The job graph.

use crate::millstream::job::graph::{
    Alignment, Chaining, Connection, Edge, FailurePolicy, Function, JobGraph, Node, NodeKind, Partition,
    Port, Setting, State, StateKind, WatermarkStrategy, Watermarks,
};
use crate::millstream::job::rows::{DataType, Field, TimeUnit};

pub(crate) const OBEY: u32 = 2;

/// Takes `--input PATH` (`-` = standard input) and `--bound MS`; with `--second PATH` the function
/// has a second input, of other rows of the same form; with `--drift MS` sources are aligned.
pub(crate) fn plan(name: String, args: &[String]) -> Result<JobGraph, String> {
    let (mut input, mut second, mut bound, mut drift) = (None, None, 0, None);
    for pair in args.chunks(2) {
        match pair {
            [name, value] if name == "--input" => input = Some(value),
            [name, value] if name == "--drift" => {
                drift = Some(value.parse().map_err(|_| "--drift MS".to_string())?);
            }
            [name, value] if name == "--second" => second = Some(value),
            [name, value] if name == "--bound" => {
                bound = value.parse().map_err(|_| "--bound MS".to_string())?
            }
            _ => return Err(format!("--input PATH --bound MS, not {pair:?}")),
        }
    }
    let input = input.ok_or("--input PATH is missing")?;
    let row = vec![
        number("key", false),
        Field { data_type: DataType::Timestamp(TimeUnit::Milliseconds), ..number("at", false) },
        number("deed", false),
        number("time", true),
        number("then", true),
    ];
    let result = ["kind", "key", "time", "count"].map(|name| number(name, false)).to_vec();
    let state = State {
        name: "state".into(),
        kind: StateKind::Value,
        key: vec![],
        value: vec![
            Field { data_type: DataType::Structure(2), ..number("state", true) },
            number("count", false),
            number("then", true),
        ],
        ttl: None,
    };
    let watermarks = Watermarks {
        time_column: Some(1),
        strategy: WatermarkStrategy::Bounded(bound),
        idle_after: None,
        ahead_max: Some(u64::MAX),
        alignment: drift.map(|drift_max| Alignment { group: "all".into(), drift_max }),
    };
    let inputs = vec![row.clone(); if second.is_some() { 2 } else { 1 }];
    let function = Function { inputs, states: vec![state], timers: true, changes: false, windows: None };
    let files = |path: &str| match path {
        "-" => connection("stdin", &[], Some("json")),
        path => connection("files", &[("path", path)], Some("json")),
    };
    let source = |name: &str, path: &str| node(name, NodeKind::Source(files(path)), Some(row.clone()));
    let timed = |name: &str| node(name, NodeKind::Watermarks(watermarks.clone()), Some(row.clone()));
    let obey =
        Node { on_failure: FailurePolicy::Skip, ..node("Obey", NodeKind::Function(function), Some(result)) };
    let mut nodes = vec![
        source("Source", input),
        timed("Watermarks"),
        obey,
        node("Sink", NodeKind::Sink(connection("print", &[], None)), None),
    ];
    let by_key = || Partition::Hash(vec![0]);
    let mut edges = vec![
        edge(0, 1, 0, Partition::Forward),
        edge(1, OBEY, 0, by_key()),
        edge(OBEY, 3, 0, Partition::Forward),
    ];
    if let Some(second) = second {
        nodes.extend([source("Second source", second), timed("Second watermarks")]);
        edges.extend([edge(4, 5, 0, Partition::Forward), edge(5, OBEY, 1, by_key())]);
    }
    Ok(JobGraph { name, nodes, edges, settings: vec![] })
}

fn number(name: &str, nullable: bool) -> Field {
    Field { name: name.into(), data_type: DataType::Int64, nullable }
}

fn node(name: &str, kind: NodeKind, output: Option<Vec<Field>>) -> Node {
    let port = |schema| Port { name: "main".into(), schema, changes: false };
    Node {
        uid: Some(name.to_lowercase()),
        name: name.into(),
        origin: Some(file!().into()),
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: output.into_iter().map(port).collect(),
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn connection(connector: &str, options: &[(&str, &str)], format: Option<&str>) -> Connection {
    let options =
        options.iter().map(|(name, value)| Setting { name: (*name).into(), value: (*value).into() });
    Connection {
        connector: connector.into(),
        options: options.collect(),
        format: format.map(Into::into),
        format_options: vec![],
    }
}

fn edge(producer: u32, consumer: u32, input: u32, partition: Partition) -> Edge {
    Edge { producer, port: 0, consumer, input, partition }
}
