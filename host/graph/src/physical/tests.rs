//! Chains of small graphs, and graphs that are refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::job_graph::{
    Aggregate, Connection, Edge, Function, Node, Port, Riding, State, StateKind, Ttl, WatermarkStrategy,
    Watermarks,
};

use super::*;

fn text() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("word", DataType::Utf8, false)]))
}

fn connection(connector: &str) -> Connection {
    Connection {
        connector: connector.into(),
        options: BTreeMap::new(),
        format: None,
        format_options: BTreeMap::new(),
    }
}

/// A state; of a dictionary or a broadcast state by texts.
fn state(kind: StateKind) -> State {
    let key = match kind {
        StateKind::Value | StateKind::Sequence => Arc::new(Schema::empty()),
        StateKind::Dictionary(_) | StateKind::Broadcast => text(),
    };
    State { name: "s".into(), kind, key, value: text(), ttl: None }
}

fn node(name: &str, kind: NodeKind) -> Node {
    let ports = usize::from(!matches!(kind, NodeKind::Sink(_)));
    Node {
        uid: None,
        name: name.into(),
        origin: Some("src/lib.rs:7".into()),
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: (0..ports).map(|_| Port { name: "out".into(), schema: text(), changes: false }).collect(),
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn function(name: &str) -> Node {
    node(
        name,
        NodeKind::Function(Function {
            inputs: vec![text()],
            states: vec![],
            timers: false,
            changes: false,
            windows: None,
        }),
    )
}

fn edge(producer: u32, consumer: u32, partition: Partition) -> Edge {
    Edge { producer, port: 0, consumer, input: 0, partition }
}

fn count() -> NodeKind {
    NodeKind::Aggregate(vec![Aggregate {
        function: "count".into(),
        columns: vec![],
        options: BTreeMap::new(),
    }])
}

/// lines → split → upper → count by word → print
fn word_count() -> JobGraph {
    JobGraph {
        name: "word_count".into(),
        nodes: vec![
            node("lines", NodeKind::Source(connection("files"))),
            function("split"),
            function("upper"),
            node("count", count()),
            node("print", NodeKind::Sink(connection("print"))),
        ],
        edges: vec![
            edge(0, 1, Partition::Forward),
            edge(1, 2, Partition::Forward),
            edge(2, 3, Partition::Hash(vec![0])),
            edge(3, 4, Partition::Forward),
        ],
        settings: BTreeMap::new(),
    }
}

fn plan(job: JobGraph, p: u32) -> Result<PhysicalGraph, GraphError> {
    PhysicalGraph::plan(job, Parallelism { default: p, max: None }, |_| None)
}

/// `name xparallelism` of each chain, its stages in brackets, and the edges between chains.
fn drawn(graph: &PhysicalGraph) -> String {
    let chains: Vec<String> = graph
        .vertices
        .iter()
        .map(|v| {
            let stages: Vec<_> = v.stages.iter().map(|s| format!("{:?}", s.nodes)).collect();
            format!("{} x{} {}", v.name, v.parallelism, stages.join(""))
        })
        .collect();
    let edges: Vec<String> = graph
        .edges
        .iter()
        .map(|e| format!("{}-{}->{}", e.from, partition_name(&e.partition), e.to))
        .collect();
    format!("{} | {}", chains.join("; "), edges.join(" "))
}

#[test]
fn neighbours_share_a_chain_and_functions_a_guest() {
    let graph = plan(word_count(), 3).unwrap();
    assert_eq!(drawn(&graph), "lines -> split -> upper x3 [0][1, 2]; count -> print x3 [3][4] | 0-HASH->1");
    assert_eq!(graph.key_of(1, 0), Some(&[0][..]));
    assert_eq!((graph.slots(), graph.max_parallelism), (3, 128));
}

#[test]
fn functions_that_do_not_fail_the_job_have_a_call_of_their_own() {
    for (node, policy) in [(1, FailurePolicy::Skip), (2, FailurePolicy::Skip)] {
        let mut job = word_count();
        job.nodes[node].on_failure = policy;
        let drawn = drawn(&plan(job, 3).unwrap());
        assert_eq!(drawn, "lines -> split -> upper x3 [0][1][2]; count -> print x3 [3][4] | 0-HASH->1");
    }
}

#[test]
fn chaining_can_be_forbidden() {
    let mut job = word_count();
    job.nodes[1].chaining = Chaining::Head;
    job.nodes[3].chaining = Chaining::Never;
    assert_eq!(
        drawn(&plan(job, 2).unwrap()),
        "lines x2 [0]; split -> upper x2 [1, 2]; count x2 [3]; print x2 [4] | 0-FORWARD->1 1-HASH->2 2-FORWARD->3"
    );
}

#[test]
fn a_source_of_parallelism_one_is_rebalanced() {
    let graph =
        PhysicalGraph::plan(word_count(), Parallelism { default: 2, max: None }, |id| (id == 0).then_some(1))
            .unwrap();
    assert_eq!(
        drawn(&graph),
        "lines x1 [0]; split -> upper x2 [1, 2]; count -> print x2 [3][4] | 0-REBALANCE->1 1-HASH->2"
    );
}

#[test]
fn a_union_begins_a_chain() {
    let mut job = word_count();
    job.nodes.push(node("more", NodeKind::Source(connection("files"))));
    job.edges.push(edge(5, 1, Partition::Forward));
    assert_eq!(
        drawn(&plan(job, 1).unwrap()),
        "lines x1 [0]; more x1 [5]; split -> upper x1 [1, 2]; count -> print x1 [3][4] | 0-FORWARD->2 1-FORWARD->2 2-HASH->3"
    );
}

/// A source of `(word, at)`, and watermarks by this column.
fn timed(time_column: u32, strategy: WatermarkStrategy) -> JobGraph {
    let at = DataType::Timestamp(arrow_schema::TimeUnit::Millisecond, None);
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("word", DataType::Utf8, false), Field::new("at", at, true)]));
    let watermarks = Watermarks {
        time_column: Some(time_column),
        strategy,
        idle_after: None,
        ahead_max: None,
        alignment: None,
    };
    let mut nodes = vec![
        node("rows", NodeKind::Source(connection("files"))),
        node("watermarks", NodeKind::Watermarks(watermarks)),
        node("print", NodeKind::Sink(connection("print"))),
    ];
    nodes[..2].iter_mut().for_each(|node| node.outputs[0].schema = Arc::clone(&schema));
    let edges = vec![edge(0, 1, Partition::Forward), edge(1, 2, Partition::Forward)];
    JobGraph { name: "timed".into(), nodes, edges, settings: BTreeMap::new() }
}

#[test]
fn watermarks_stay_in_the_chain_of_their_source() {
    let job = timed(1, WatermarkStrategy::Bounded(Duration::from_secs(5)));
    assert_eq!(drawn(&plan(job, 2).unwrap()), "rows -> watermarks -> print x2 [0][1][2] | ");
}

#[test]
fn watermarks_of_no_time_are_refused() {
    let check = |job: JobGraph, expected: &str| {
        let error = plan(job, 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let bounded = WatermarkStrategy::Bounded(Duration::ZERO);
    check(timed(0, bounded), "node 1 `watermarks` cannot be planned: the time column `word` is Utf8, not");
    check(timed(2, bounded), "there is no time column 2: its input is (word Utf8, at");
    check(timed(1, WatermarkStrategy::Punctuated(0)), "the time column `word` is Utf8, not a timestamp");
    let mut job = timed(1, bounded);
    job.nodes[1].outputs[0].schema = text();
    check(job, "its output is not its input");
    let mut job = timed(1, bounded);
    job.edges.remove(0);
    check(job, "watermarks of no input");
}

#[test]
fn what_cannot_run_is_refused() {
    let check = |change: &dyn Fn(&mut JobGraph), expected: &str| {
        let mut job = word_count();
        change(&mut job);
        let error = plan(job, 1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|job: &mut JobGraph| job.nodes[0].kind = count(), "it has no source");
    check(&|job: &mut JobGraph| job.edges[0].producer = 9, "there is no node 9");
    check(&|job: &mut JobGraph| job.edges[0].port = 9, "`lines` has no port 9");
    check(&|job: &mut JobGraph| job.edges[0].input = 1, "`split` has no input 1");
    check(
        &|job: &mut JobGraph| job.edges.truncate(3),
        "node 4 `print` cannot be planned: a sink without an input",
    );
    check(
        &|job: &mut JobGraph| job.edges[2].partition = Partition::Hash(vec![4]),
        "there is no key column 4",
    );
    check(&|job: &mut JobGraph| job.edges[2].partition = Partition::Forward, "an aggregate's input is keyed");
    check(&|job: &mut JobGraph| job.edges.push(edge(2, 1, Partition::Forward)), "it has a cycle");
    check(
        &|job: &mut JobGraph| job.edges[0].partition = Partition::Chosen(0),
        "the chosen subtask is not the last column",
    );
    check(&|job: &mut JobGraph| job.nodes[1].parallelism = Some(0), "its parallelism is 0");
    check(
        &|job: &mut JobGraph| job.nodes[1].on_failure = FailurePolicy::Divert,
        "its last port is not its input's columns",
    );
    check(
        &|job: &mut JobGraph| {
            job.nodes[0].uid = Some("a".into());
            job.nodes[1].uid = Some("a".into());
        },
        "another node has the uid `a`",
    );
    check(
        &|job: &mut JobGraph| {
            let state = state(StateKind::Value);
            job.nodes[1].kind = NodeKind::Function(Function {
                inputs: vec![text()],
                states: vec![state],
                timers: false,
                changes: false,
                windows: None,
            });
        },
        "it has state, but its input is not keyed",
    );
    check(
        &|job: &mut JobGraph| {
            job.nodes[1].kind = NodeKind::Function(Function {
                inputs: vec![text()],
                states: vec![],
                timers: true,
                changes: false,
                windows: None,
            });
        },
        "it sets timers, but its input is not keyed",
    );
    check(
        &|job: &mut JobGraph| {
            let states = vec![state(StateKind::Value), state(StateKind::Sequence)];
            job.edges[0].partition = Partition::Hash(vec![0]);
            job.nodes[1].kind = NodeKind::Function(Function {
                inputs: vec![text()],
                states,
                timers: true,
                changes: false,
                windows: None,
            });
        },
        "node 1 `split` cannot be planned: two states of the name `s`",
    );
    check(
        &|job: &mut JobGraph| {
            let ttl = Some(Ttl { after: Duration::ZERO, on_read: false });
            let states = vec![State { ttl, ..state(StateKind::Value) }];
            job.edges[0].partition = Partition::Hash(vec![0]);
            job.nodes[1].kind = NodeKind::Function(Function {
                inputs: vec![text()],
                states,
                timers: true,
                changes: false,
                windows: None,
            });
        },
        "the TTL of its state `s` is 0",
    );
    let keyed = |states: Vec<State>| {
        move |job: &mut JobGraph| {
            job.edges[0].partition = Partition::Hash(vec![0]);
            let function = Function {
                inputs: vec![text()],
                states: states.clone(),
                timers: false,
                changes: false,
                windows: None,
            };
            job.nodes[1].kind = NodeKind::Function(function);
        }
    };
    let riding = |input, columns| StateKind::Dictionary(vec![Riding { input, columns }]);
    let number: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, false)));
    let list: SchemaRef = Arc::new(Schema::new(vec![Field::new("l", list, false)]));
    for (wrong, message) in [
        (state(StateKind::Broadcast), "it has a broadcast state, so one of two inputs is `broadcast`"),
        (
            State { key: text(), ..state(StateKind::Value) },
            "entries of its state `s` have no key of their own",
        ),
        (
            State { key: Arc::new(Schema::empty()), ..state(riding(0, vec![0])) },
            "entries of its state `s` have no key",
        ),
        (State { key: list, ..state(riding(0, vec![0])) }, "cannot be a key of its state `s`"),
        (state(riding(3, vec![0])), "entries of its state `s` ride with input 3: none has a key"),
        (state(riding(0, vec![7])), "the columns of input 0 that name them ([7], which it has not)"),
        (
            State { key: number, ..state(riding(0, vec![0])) },
            "keys of its state `s` are (Int64), the columns of input 0 that name them (Utf8)",
        ),
    ] {
        check(&keyed(vec![wrong]), message);
    }
    let error = PhysicalGraph::plan(word_count(), Parallelism { default: 200, max: Some(128) }, |_| None)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "parallelism 200 of `lines` is above max parallelism 128");
}
