//! Windows, joins, top-n and changelogs that are refused, with the place in the user's code.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::job_graph::{
    Aggregate, Assigner, Chaining, Connection, Edge, FailurePolicy, Function, Grid, JobGraph, Join, JoinForm,
    JoinSides, Node, NodeKind, Ordering, Partition, Port, TimeDomain, Top, Trigger, Ttl, WatermarkStrategy,
    Watermarks, Window,
};

use super::validate;

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), false)).collect();
    Arc::new(Schema::new(fields))
}

fn words() -> SchemaRef {
    schema(&[("word", DataType::Utf8), ("n", DataType::Int64)])
}

fn node(name: &str, kind: NodeKind, output: Option<(SchemaRef, bool)>) -> Node {
    Node {
        uid: None,
        name: name.into(),
        origin: Some("src/lib.rs:7".into()),
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: output
            .map(|(schema, changes)| Port { name: "main".into(), schema, changes })
            .into_iter()
            .collect(),
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn connection() -> Connection {
    Connection {
        connector: "print".into(),
        options: BTreeMap::new(),
        format: None,
        format_options: BTreeMap::new(),
    }
}

fn source(schema: SchemaRef) -> Node {
    node("Source", NodeKind::Source(connection()), Some((schema, false)))
}

/// The graph with watermarks right after each source.
fn timed(mut graph: JobGraph) -> JobGraph {
    for id in 0..graph.nodes.len() {
        if matches!(graph.nodes[id].kind, NodeKind::Source(_)) {
            let watermarks = Watermarks {
                time_column: None,
                strategy: WatermarkStrategy::Bounded(Duration::ZERO),
                idle_after: None,
                ahead_max: None,
                alignment: None,
            };
            let output = (Arc::clone(&graph.nodes[id].outputs[0].schema), false);
            let (from, to) = (id as u32, graph.nodes.len() as u32);
            graph.nodes.push(node("Times", NodeKind::Watermarks(watermarks), Some(output)));
            graph.edges.iter_mut().filter(|edge| edge.producer == from).for_each(|edge| edge.producer = to);
            graph.edges.push(edge(from, to, 0, Partition::Forward));
        }
    }
    graph
}

fn edge(producer: u32, consumer: u32, input: u32, partition: Partition) -> Edge {
    Edge { producer, port: 0, consumer, input, partition }
}

fn by_word() -> Partition {
    Partition::Hash(vec![0])
}

/// Source → by word → the node → sink.
fn after(kind: NodeKind, output: SchemaRef, changes: bool, partition: Partition) -> JobGraph {
    JobGraph {
        name: "job".into(),
        nodes: vec![
            source(words()),
            node("Native", kind, Some((output, changes))),
            node("Sink", NodeKind::Sink(connection()), None),
        ],
        edges: vec![edge(0, 1, 0, partition), edge(1, 2, 0, Partition::Forward)],
        settings: BTreeMap::new(),
    }
}

/// Two sources by word → a join → sink.
fn joined(join: Join, right: SchemaRef, changes: bool) -> JobGraph {
    let fields: Vec<_> = words().fields().iter().chain(right.fields()).cloned().collect();
    JobGraph {
        name: "job".into(),
        nodes: vec![
            source(words()),
            source(right),
            node("Join", NodeKind::Join(join), Some((Arc::new(Schema::new(fields)), changes))),
            node("Sink", NodeKind::Sink(connection()), None),
        ],
        edges: vec![edge(0, 2, 0, by_word()), edge(1, 2, 1, by_word()), edge(2, 3, 0, Partition::Forward)],
        settings: BTreeMap::new(),
    }
}

fn count() -> Vec<Aggregate> {
    vec![Aggregate { function: "count".into(), columns: Vec::new(), options: BTreeMap::new() }]
}

fn grid(size: u64, step: u64) -> Grid {
    Grid { size: Duration::from_millis(size), step: Duration::from_millis(step), offset: 0, zone: None }
}

fn window(assigner: Assigner) -> Window {
    Window {
        assigner,
        time: TimeDomain::EventTime,
        lateness: Duration::ZERO,
        late_port: None,
        trigger: Trigger::AtEnd,
        purging: false,
        aggregates: count(),
    }
}

/// Why a graph is refused: the node, where it is written, and what is wrong with it.
fn refusal(graph: &JobGraph) -> String {
    refusal_of(&timed(graph.clone()))
}

fn refusal_of(graph: &JobGraph) -> String {
    let error = validate(graph).expect_err("it is refused").diagnostic();
    assert_eq!(error.hint.as_deref(), Some("it is written at src/lib.rs:7"), "{error:?}");
    format!("{}: {}", error.message, error.detail.unwrap_or_default())
}

fn is_right(graph: JobGraph) -> bool {
    validate(&timed(graph)).is_ok()
}

fn refused_window(window: Window) -> String {
    refusal(&after(NodeKind::Window(window), words(), false, by_word()))
}

#[test]
fn windows_that_cannot_be() {
    let kind = NodeKind::Window(window(Assigner::Tumbling(grid(10, 10))));
    assert!(is_right(after(kind, words(), false, by_word())));
    let of_grid = |grid: Grid| refused_window(window(Assigner::Sliding(grid)));
    assert_eq!(of_grid(grid(0, 0)), "node `Native` cannot be planned: its size is 0 ms");
    assert_eq!(of_grid(grid(10, 0)), "node `Native` cannot be planned: its step is 0 ms");
    let slide = of_grid(grid(10, 20));
    assert!(
        slide.ends_with("it slides by 20 ms, more than its size of 10 ms: rows would be in no window"),
        "{slide}"
    );
    assert!(of_grid(grid(u64::MAX, 10)).contains("longer than a thousand years"));
    assert!(of_grid(grid(10_000_000, 1)).contains("is more than 1000000 steps"));
    assert!(
        of_grid(Grid { offset: 10, ..grid(10, 10) })
            .contains("its offset of 10 ms is not less than its step")
    );
    let zone = |zone: &str, size| Grid { zone: Some(zone.into()), ..grid(size, size) };
    assert!(of_grid(zone("Europe/Atlantis", 86_400_000)).contains("there is no time zone `Europe/Atlantis`"));
    assert!(of_grid(zone("Europe/Paris", 3_600_000)).contains("its size and step are whole days"));
    let cumulating = refused_window(window(Assigner::Cumulating(grid(25, 10))));
    assert!(cumulating.ends_with("its size of 25 ms is not a multiple of its step of 10 ms"), "{cumulating}");
    assert!(refused_window(window(Assigner::Session(Duration::ZERO))).ends_with("its gap is 0 ms"));
    let rows = |size, step| refused_window(window(Assigner::Count { size, step }));
    assert!(rows(2_000_000, 3).contains("is more than 1000000 times what it has in common"));
    let kind = NodeKind::Window(window(Assigner::Count { size: 2_000_000, step: 2 }));
    assert!(is_right(after(kind, words(), false, by_word())));
    let early =
        Window { trigger: Trigger::Early(Duration::ZERO), ..window(Assigner::Tumbling(grid(10, 10))) };
    assert!(refused_window(early).ends_with("the time between its early results is 0"));
    let early = Window {
        trigger: Trigger::Early(Duration::from_secs(1)),
        ..window(Assigner::Session(Duration::from_secs(1)))
    };
    assert!(refused_window(early).ends_with("session windows have no early results"));
    let kind = NodeKind::Window(window(Assigner::Tumbling(grid(10, 10))));
    let unkeyed = refusal(&after(kind, words(), false, Partition::Forward));
    assert!(unkeyed.ends_with("a window's input is keyed (use key_by)"), "{unkeyed}");
}

#[test]
fn joins_that_cannot_be() {
    let unbounded = |sides| Join { sides, form: JoinForm::Unbounded(None) };
    assert!(is_right(joined(unbounded(JoinSides::Inner), words(), false)));
    assert!(is_right(joined(unbounded(JoinSides::Left), words(), true)));
    let of_form = |form| refusal(&joined(Join { sides: JoinSides::Inner, form }, words(), false));
    let numbers = schema(&[("word", DataType::Int64), ("n", DataType::Int64)]);
    let types = refusal(&joined(unbounded(JoinSides::Inner), numbers, false));
    assert!(types.contains("Utf8") && types.contains("Int64"), "{types}");
    assert!(of_form(JoinForm::Interval { lower: 5, upper: 4 }).contains("its lower bound of 5 ms is above"));
    assert!(of_form(JoinForm::Interval { lower: i64::MIN, upper: 4 }).contains("a thousand years"));
    let ttl = Ttl { after: Duration::ZERO, on_read: false };
    assert!(of_form(JoinForm::Unbounded(Some(ttl))).contains("its time to live is 0"));
    let sessions = of_form(JoinForm::Window(Assigner::Session(Duration::from_secs(1))));
    assert!(sessions.contains("a join has no session windows"), "{sessions}");
    let undeclared = refusal(&joined(unbounded(JoinSides::Left), words(), false));
    assert!(undeclared.contains("it gives a changelog, which its output does not declare"), "{undeclared}");
}

#[test]
fn orders_that_cannot_be() {
    let top = |limit, column| {
        let order = vec![Ordering { column, descending: true, nulls_last: false }];
        after(NodeKind::Top(Top { limit, order, rank: false }), words(), true, by_word())
    };
    assert!(is_right(top(1, 1)));
    assert!(refusal(&top(0, 1)).ends_with("it keeps 0 rows"));
    assert!(refusal(&top(1, 2)).ends_with("there is no column 2 to order by"));
}

/// A changelog by word, into a node after it.
fn changelog_into(kind: NodeKind, changes: bool, partition: Partition) -> JobGraph {
    let top = Top { limit: 1, order: Vec::new(), rank: false };
    let mut graph = after(NodeKind::Top(top), words(), true, by_word());
    graph.nodes.insert(2, node("After", kind, Some((words(), changes))));
    graph.edges = vec![edge(0, 1, 0, by_word()), edge(1, 2, 0, partition), edge(2, 3, 0, Partition::Forward)];
    graph
}

#[test]
fn a_changelog_reaches_only_what_takes_it() {
    let function = |changes| {
        NodeKind::Function(Function {
            inputs: vec![words()],
            states: vec![],
            timers: false,
            changes,
            windows: None,
        })
    };
    let into = |kind, changes, partition| refusal(&changelog_into(kind, changes, partition));
    assert!(is_right(changelog_into(function(true), true, Partition::Forward)));
    assert!(is_right(changelog_into(NodeKind::Aggregate(count()), true, by_word())));
    let refused = into(function(false), false, Partition::Forward);
    assert!(refused.ends_with("`Native` gives a changelog (updates and deletes), and it leads into a function that takes inserts only"), "{refused}");
    let window = NodeKind::Window(window(Assigner::Tumbling(grid(10, 10))));
    assert!(into(window, false, by_word()).ends_with("it leads into a window, which takes inserts only"));
    assert!(
        into(function(true), true, Partition::Rebalance)
            .contains("would let updates of a row overtake each other")
    );
    let silent = into(NodeKind::Aggregate(count()), false, by_word());
    assert!(silent.ends_with("it gives a changelog, which its output does not declare"), "{silent}");
}

#[test]
fn windows_without_an_end_have_the_times_of_rows() {
    let has_times = |assigner: Assigner, trigger: Trigger, is_watermarked: bool| {
        let kind = NodeKind::Window(Window { trigger, ..window(assigner) });
        let graph = after(kind, words(), false, by_word());
        let graph = if is_watermarked { timed(graph) } else { graph };
        let at = graph.nodes.iter().position(|node| matches!(node.kind, NodeKind::Window(_))).unwrap();
        super::native::has_times(&graph, at as u32)
    };
    let count = Assigner::Count { size: 2, step: 1 };
    assert!(has_times(count.clone(), Trigger::AtEnd, true));
    assert!(!has_times(count, Trigger::AtEnd, false));
    assert!(has_times(Assigner::Everything, Trigger::Count(3), true));
    assert!(!has_times(Assigner::Everything, Trigger::Count(3), false));
    assert!(!has_times(Assigner::Everything, Trigger::AtEnd, true));
    assert!(has_times(Assigner::Tumbling(grid(10, 10)), Trigger::Count(3), true));
}

#[test]
fn windows_want_event_times() {
    let kind = NodeKind::Window(window(Assigner::Tumbling(grid(10, 10))));
    let refused = refusal_of(&after(kind, words(), false, by_word()));
    assert!(
        refused.ends_with("a window by event time, and rows of `Source` have none (give them watermarks)"),
        "{refused}"
    );
    let processing = Window { time: TimeDomain::ProcessingTime, ..window(Assigner::Tumbling(grid(10, 10))) };
    assert!(validate(&after(NodeKind::Window(processing), words(), false, by_word())).is_ok());
    let form = JoinForm::Interval { lower: 0, upper: 1 };
    let join = joined(Join { sides: JoinSides::Inner, form }, words(), false);
    assert!(refusal_of(&join).contains("a join by event time"));
    assert!(is_right(join));
}
