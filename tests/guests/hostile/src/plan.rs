//! Plans, honest and not.

use crate::exports::millstream::job::job::Refusal;
use crate::millstream::job::graph::{
    Chaining, Connection, Edge, FailurePolicy, Function, JobGraph, Node, NodeKind, Partition, Port, Setting,
};
use crate::millstream::job::rows::{DataType, Field};

/// Jobs that are hostile in their plan.
pub(crate) const NAMES: [&str; 8] = [
    "plan-loop",
    "plan-memory",
    "plan-passwd",
    "plan-large",
    "plan-cycle",
    "plan-edge",
    "plan-escapes",
    "plan-residue",
];

pub(crate) fn plan(job: &str, args: &[String]) -> Result<JobGraph, Refusal> {
    let argument = |place: usize| args.get(place).map_or("", String::as_str);
    let mut graph = honest(job, argument(0), argument(1), argument(2));
    match job {
        "plan-loop" => loop {
            std::hint::black_box(&graph);
        },
        "plan-memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&kept);
            }
        }
        "plan-passwd" => {
            let options = vec![Setting { name: "path".into(), value: "/etc/passwd".into() }];
            graph.nodes[0].kind = NodeKind::Source(connection("files", options, Some("lines")));
        }
        "plan-large" => {
            let node = graph.nodes[1].clone();
            graph.nodes.extend(std::iter::repeat_n(node, 200_000));
        }
        "plan-cycle" => graph.edges.push(Edge {
            producer: 1,
            port: 0,
            consumer: 1,
            input: 0,
            partition: Partition::Forward,
        }),
        "plan-edge" => graph.edges[0].producer = u32::MAX,
        #[cfg(target_arch = "wasm32")]
        "plan-residue" => {
            return Err(Refusal::Help(crate::residue::found(argument(0) == "again").to_string()));
        }
        "plan-escapes" => return Err(Refusal::Usage("\x1b[2J\x1b]0;owned\x07 no".into())),
        _ => {}
    }
    Ok(graph)
}

/// A text, a function, a collection.
fn honest(job: &str, text: &str, name: &str, policy: &str) -> JobGraph {
    let schema = vec![Field { name: "line".into(), data_type: DataType::Text, nullable: false }];
    let source =
        connection("values", vec![Setting { name: "text".into(), value: text.into() }], Some("lines"));
    let sink = match name {
        "" => connection("print", vec![], None),
        name => connection("collect", vec![Setting { name: "name".into(), value: name.into() }], None),
    };
    let function = Function {
        inputs: vec![schema.clone()],
        states: vec![],
        timers: false,
        changes: false,
        windows: None,
    };
    let mut hostile = node("Hostile", NodeKind::Function(function), Some(schema.clone()));
    if policy == "skip" {
        hostile.on_failure = FailurePolicy::Skip;
    }
    let forward =
        |producer, consumer| Edge { producer, port: 0, consumer, input: 0, partition: Partition::Forward };
    JobGraph {
        name: job.into(),
        nodes: vec![
            node("Source", NodeKind::Source(source), Some(schema)),
            hostile,
            node("Sink", NodeKind::Sink(sink), None),
        ],
        edges: vec![forward(0, 1), forward(1, 2)],
        settings: vec![],
    }
}

fn node(name: &str, kind: NodeKind, output: Option<Vec<Field>>) -> Node {
    Node {
        uid: None,
        name: name.into(),
        origin: Some("src/hostile.rs:1".into()),
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

fn connection(connector: &str, options: Vec<Setting>, format: Option<&str>) -> Connection {
    Connection {
        connector: connector.into(),
        options,
        format: format.map(Into::into),
        format_options: vec![],
    }
}
