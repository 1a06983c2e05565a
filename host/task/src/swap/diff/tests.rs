//! Pairs of versions of one small job: what is said of each, and whether the one can become the other while it runs.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::{Field, Fields, SchemaRef, TimeUnit};
use graph::physical::Parallelism;
use model::job_graph::{
    Aggregate, Assigner, Chaining, Connection, Edge, FailurePolicy, Grid, JobGraph, Partition, Port,
    TimeDomain, Trigger, Ttl, WatermarkStrategy, Watermarks, Window, Windows,
};

use super::*;

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields.iter().map(|(name, of)| Field::new(*name, of.clone(), false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn row() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    schema(&[("key", DataType::Int64), ("n", DataType::Int64), ("at", at)])
}

fn node(uid: &str, kind: NodeKind, output: SchemaRef) -> Node {
    let ports = usize::from(!matches!(kind, NodeKind::Sink(_)));
    let port = || Port { name: "main".into(), schema: Arc::clone(&output), changes: false };
    Node {
        uid: Some(uid.into()),
        name: uid.to_uppercase(),
        origin: None,
        parallelism: None,
        max_parallelism: None,
        kind,
        outputs: (0..ports).map(|_| port()).collect(),
        on_failure: FailurePolicy::Fail,
        chaining: Chaining::Allowed,
    }
}

fn connection(connector: &str) -> Connection {
    let (options, format_options) = (BTreeMap::new(), BTreeMap::new());
    Connection { connector: connector.into(), options, format: None, format_options }
}

/// A state by value of these columns, each with whether it may be null.
fn value(name: &str, columns: &[(&str, DataType, bool)]) -> State {
    let fields: Fields =
        columns.iter().map(|(name, of, null)| Field::new(*name, of.clone(), *null)).collect();
    let value = Arc::new(Schema::new(vec![Field::new("value", DataType::Struct(fields), true)]));
    State { name: name.into(), kind: StateKind::Value, key: Arc::new(Schema::empty()), value, ttl: None }
}

fn sum() -> State {
    value("sum", &[("n", DataType::Int32, false)])
}

fn function(states: Vec<State>) -> Function {
    Function { inputs: vec![row()], states, timers: false, changes: false, windows: None }
}

fn grid(size: u64, step: u64) -> Grid {
    Grid { size: Duration::from_millis(size), step: Duration::from_millis(step), offset: 0, zone: None }
}

fn window() -> Window {
    let count = Aggregate { function: "count".into(), columns: vec![], options: BTreeMap::new() };
    Window {
        assigner: Assigner::Tumbling(grid(10, 10)),
        time: TimeDomain::EventTime,
        lateness: Duration::ZERO,
        late_port: None,
        trigger: Trigger::AtEnd,
        purging: false,
        aggregates: vec![count],
    }
}

fn windows() -> Windows {
    Windows {
        assigner: Assigner::Sliding(grid(20, 10)),
        time: TimeDomain::EventTime,
        lateness: Duration::ZERO,
        late_port: None,
        collects: false,
        merges: true,
    }
}

const MAP: usize = 2;
const COUNT: usize = 3;
const WINDOW: usize = 4;

/// source -> watermarks -> map | by key -> count (a function with state) | by key -> window -> sink
fn job() -> JobGraph {
    let watermarks = Watermarks {
        time_column: None,
        strategy: WatermarkStrategy::Bounded(Duration::from_secs(5)),
        idle_after: None,
        ahead_max: None,
        alignment: None,
    };
    let edge = |producer: u32, consumer: u32, partition: Partition| Edge {
        producer,
        port: 0,
        consumer,
        input: 0,
        partition,
    };
    let by_key = || Partition::Hash(vec![0]);
    JobGraph {
        name: "job".into(),
        nodes: vec![
            node("source", NodeKind::Source(connection("files")), row()),
            node("watermarks", NodeKind::Watermarks(watermarks), row()),
            node("map", NodeKind::Function(function(vec![])), row()),
            node("count", NodeKind::Function(function(vec![sum()])), row()),
            node("window", NodeKind::Window(window()), row()),
            node("sink", NodeKind::Sink(connection("print")), row()),
        ],
        edges: vec![
            edge(0, 1, Partition::Forward),
            edge(1, 2, Partition::Forward),
            edge(2, 3, by_key()),
            edge(3, 4, by_key()),
            edge(4, 5, Partition::Forward),
        ],
        settings: BTreeMap::new(),
    }
}

/// How versions are run.
#[derive(Clone, Copy, Default)]
struct How {
    is_on_disk: bool,
    is_batch: bool,
    is_same_code: bool,
    parallelism: u32,
}

fn between_graphs(old: JobGraph, new: JobGraph, how: How) -> Difference {
    let (natives, two_phases) = (BTreeMap::new(), BTreeSet::new());
    let plan = |job: JobGraph, default: u32| {
        PhysicalGraph::plan(job, Parallelism { default, max: Some(128) }, |_| None).unwrap()
    };
    let (old, new) = (plan(old, 2), plan(new, 2 + how.parallelism));
    let side = |physical| Side {
        physical,
        natives: &natives,
        two_phases: &two_phases,
        is_batch: how.is_batch,
        is_state_on_disk: how.is_on_disk,
    };
    between(side(&old), side(&new), how.is_same_code)
}

/// What differs where the new version, or both, are changed so.
fn changed(change: impl Fn(&mut JobGraph)) -> Difference {
    let mut new = job();
    change(&mut new);
    between_graphs(job(), new, How::default())
}

fn states(job: &mut JobGraph, states: Vec<State>) {
    job.nodes[COUNT].kind = NodeKind::Function(function(states));
}

fn of_states(old: Vec<State>, new: Vec<State>, how: How) -> Difference {
    let (mut before, mut after) = (job(), job());
    states(&mut before, old);
    states(&mut after, new);
    between_graphs(before, after, how)
}

fn of_windows(old: Window, new: Window, how: How) -> Difference {
    let with = |window: Window| {
        let mut job = job();
        let late = window.late_port.map(|_| Port { name: "late".into(), schema: row(), changes: false });
        job.nodes[WINDOW].outputs.extend(late);
        job.nodes[WINDOW].kind = NodeKind::Window(window);
        job
    };
    between_graphs(with(old), with(new), how)
}

fn change_of(difference: &Difference, name: &str) -> Change {
    difference.operators.iter().find(|operator| operator.name == name).unwrap().change
}

/// It is live, and says all of this.
#[track_caller]
fn live(difference: &Difference, said: &[&str]) {
    assert!(difference.is_live() && difference.check_live().is_ok(), "{difference}");
    says(difference, said);
}

/// It is refused with exactly these obstacles.
#[track_caller]
fn refused(difference: &Difference, obstacles: &[&str]) {
    assert_eq!(difference.obstacles, obstacles, "{difference}");
    assert!(!difference.leads_back());
    let said = difference.check_live().unwrap_err().to_string();
    assert!(said.contains(obstacles[0]) && said.contains("--restart"), "{said}");
}

#[track_caller]
fn says(difference: &Difference, said: &[&str]) {
    let text = difference.to_string();
    for said in said {
        assert!(text.contains(said), "`{said}` is not in\n{text}");
    }
}

#[test]
fn what_is_the_same_is_kept() {
    let same = between_graphs(job(), job(), How { is_same_code: true, ..How::default() });
    assert!(same.is_none() && same.leads_back());
    assert_eq!(same.to_string().lines().last(), Some("Nothing differs."));
    let other_code = changed(|_| {});
    live(&other_code, &["code      MAP (uid map)", "code      COUNT (uid count)", "kept      SOURCE"]);
    assert!(other_code.leads_back() && !other_code.is_none());
}

#[test]
fn functions_beside_others_come_and_go() {
    let with_filter = |job: &mut JobGraph| {
        job.nodes.push(node("filter", NodeKind::Function(function(vec![])), row()));
        job.edges[2].producer = 6;
        job.edges.push(Edge { producer: 2, port: 0, consumer: 6, input: 0, partition: Partition::Forward });
    };
    let new = changed(with_filter);
    live(&new, &["new       FILTER (uid filter)", "takes over again at that row"]);
    let mut old = job();
    with_filter(&mut old);
    let dropped = between_graphs(old, job(), How::default());
    live(&dropped, &["dropped   FILTER"]);
    // One with nothing beside it that it could be called together with.
    let alone = changed(|job| {
        with_filter(job);
        job.nodes[6].chaining = Chaining::Never;
    });
    refused(&alone, &["`FILTER` is new, and no function that it could be called together with is beside it"]);
}

#[test]
fn states_are_mapped_by_name_or_refused() {
    let kept = of_states(vec![sum()], vec![sum()], How::default());
    assert_eq!(change_of(&kept, "COUNT"), Change::Code);
    let n = |of: DataType| ("n", of, false);
    let wider = value("sum", &[n(DataType::Int64)]);
    let more = value("sum", &[n(DataType::Int32), ("first", DataType::Utf8, true)]);
    let other = || value("other", &[n(DataType::Int32)]);
    /// States before and after, what is said, and what could not be gone back from.
    type Case = (Vec<State>, Vec<State>, &'static str, Option<&'static str>);
    let cases: [Case; 6] = [
        (vec![sum()], vec![more.clone()], "state `sum`: column `first` is new", None),
        (
            vec![more],
            vec![sum()],
            "state `sum`: column `first` is dropped",
            Some("column `first` is dropped"),
        ),
        (vec![sum()], vec![wider], "column `n` was Int32, and is Int64", Some("column `n` was Int32")),
        (vec![sum()], vec![sum(), other()], "state `other`: is new", None),
        (vec![sum(), other()], vec![sum()], "state `other`: is dropped", Some("state `other` is dropped")),
        (
            vec![sum()],
            vec![value("sum", &[("n", DataType::Int32, true)])],
            "column `n` can be null",
            Some("column `n` can be null"),
        ),
    ];
    for (old, new, said, lost) in cases {
        let on_disk = of_states(old.clone(), new.clone(), How { is_on_disk: true, ..How::default() });
        refused(&on_disk, &["`COUNT` has other states, and they lie on disk (state.backend.type)"]);
        let difference = of_states(old, new, How::default());
        live(&difference, &["migrated  COUNT", said]);
        assert_eq!(difference.losses.len(), usize::from(lost.is_some()), "{difference}");
        assert_eq!(difference.check_back().is_err(), lost.is_some());
        lost.into_iter().for_each(|lost| assert!(difference.losses[0].contains(lost), "{difference}"));
    }
    let text = value("sum", &[n(DataType::Utf8)]);
    let nullable = value("sum", &[("n", DataType::Int32, true)]);
    let list = State { kind: StateKind::Sequence, ..sum() };
    let aging = State { ttl: Some(Ttl { after: Duration::from_secs(1), on_read: false }), ..sum() };
    let why = |why: &str| format!("state `sum` of `COUNT`: {why}");
    for (old, new, said) in [
        (sum(), text, "column `n`"),
        (nullable, sum(), "column `n` could be null, and cannot be any more"),
        (sum(), list, "it was a value, and is a list"),
        (sum(), aging, "its time to live is another"),
    ] {
        let difference = of_states(vec![old], vec![new], How::default());
        let [obstacle] = &difference.obstacles[..] else { panic!("{difference}") };
        assert!(obstacle.starts_with(&why("")) && obstacle.contains(said), "{obstacle}");
    }
    let stateless = of_states(vec![sum()], vec![], How::default());
    refused(&stateless, &["`COUNT` is called with state in one of the versions only"]);
}

#[test]
fn times_of_windows_change_and_their_places_do_not() {
    let late = |lateness: u64| Window { lateness: Duration::from_millis(lateness), ..window() };
    let early = Window { trigger: Trigger::Early(Duration::from_secs(2)), ..window() };
    let counts = |rows: u64| Window { trigger: Trigger::Count(rows), ..window() };
    for (old, new, said) in [
        (window(), late(1_500), "lateness was 0 s, and is 1500 ms"),
        (late(9_000), late(0), "lateness was 9 s, and is 0 s"),
        (window(), early.clone(), "trigger was at the end, and is also before the end, each 2 s"),
        (counts(3), counts(4), "trigger was each 3 rows, and is each 4 rows"),
        (window(), Window { purging: true, ..window() }, "purging was off, and is on"),
    ] {
        let difference = of_windows(old, new, How::default());
        live(&difference, &["settings  WINDOW", said, "takes over again at that row"]);
        assert!(difference.leads_back());
    }
    let on_disk = How { is_on_disk: true, ..How::default() };
    live(&of_windows(window(), late(5), on_disk), &["lateness"]);
    live(&of_windows(counts(3), counts(4), on_disk), &["trigger"]);
    refused(
        &of_windows(window(), early.clone(), on_disk),
        &["the window `WINDOW` has another trigger, and its state lies on disk (state.backend.type)"],
    );
    refused(
        &of_windows(early, counts(3), How::default()),
        &["the window `WINDOW` counts rows from one result to the next in one of the versions only"],
    );
    let sliding = |lateness| Window { assigner: Assigner::Sliding(grid(20, 10)), ..late(lateness) };
    live(&of_windows(sliding(5), sliding(6), How::default()), &["lateness"]);
    let shares = "it shares them only without lateness";
    let refusal = of_windows(sliding(0), sliding(5), How::default());
    assert!(refusal.obstacles[0].contains(shares), "{refusal}");
    for (new, said) in [
        (
            Window { assigner: Assigner::Tumbling(grid(11, 11)), ..window() },
            "has other windows: another kind",
        ),
        (
            Window { time: TimeDomain::ProcessingTime, ..window() },
            "went by event time, and goes by processing",
        ),
        (Window { late_port: Some(1), ..window() }, "gives late rows another way"),
        (
            Window { aggregates: [window().aggregates, window().aggregates].concat(), ..window() },
            "has other aggregates",
        ),
    ] {
        let refusal = of_windows(window(), new, How::default());
        assert!(refusal.obstacles[0].contains(said), "{refusal}");
    }
}

#[test]
fn windows_of_functions_change_their_lateness() {
    let of = |old: Function, new: Function, how: How| {
        let (mut before, mut after) = (job(), job());
        before.nodes[COUNT].kind = NodeKind::Function(old);
        after.nodes[COUNT].kind = NodeKind::Function(new);
        between_graphs(before, after, how)
    };
    let with = |windows: Windows| Function { windows: Some(windows), ..function(vec![sum()]) };
    let late = |lateness| Windows { lateness: Duration::from_millis(lateness), ..windows() };
    let each = |lateness| Windows { merges: false, ..late(lateness) };
    live(
        &of(with(late(5)), with(late(7)), How::default()),
        &["code      COUNT", "lateness was 5 ms, and is 7 ms"],
    );
    live(&of(with(each(0)), with(each(7)), How::default()), &["lateness was 0 s, and is 7 ms"]);
    let refusal = of(with(late(0)), with(late(7)), How::default());
    assert!(refusal.obstacles[0].contains("shares them only without lateness and timers"), "{refusal}");
    let refusal = of(with(each(0)), with(each(7)), How { is_on_disk: true, ..How::default() });
    refused(&refusal, &["`COUNT` has another lateness, and its state lies on disk (state.backend.type)"]);
    let refusal = of(with(each(0)), function(vec![sum()]), How::default());
    assert!(refusal.obstacles[0].contains("is in windows in one of the versions only"), "{refusal}");
    let refusal = of(with(each(0)), with(late(0)), How::default());
    assert!(refusal.obstacles[0].contains("keeps the rows of its windows otherwise"), "{refusal}");
    let other_states = Function { states: vec![value("sum", &[])], ..with(each(0)) };
    let refusal = of(with(each(0)), other_states, How::default());
    assert!(refusal.obstacles[0].contains("has other states in its windows"), "{refusal}");
}

#[test]
fn watermarks_follow_otherwise() {
    let with = |change: &dyn Fn(&mut Watermarks)| {
        changed(|job| match &mut job.nodes[1].kind {
            NodeKind::Watermarks(watermarks) => change(watermarks),
            _ => panic!("no watermarks"),
        })
    };
    let seconds = Duration::from_secs;
    let bound = with(&|of| of.strategy = WatermarkStrategy::Bounded(seconds(9)));
    live(&bound, &["settings  WATERMARKS", "strategy was 5 s behind the greatest time, and is 9 s behind"]);
    live(&with(&|of| of.idle_after = Some(seconds(3))), &["idleness was never, and is 3 s"]);
    live(&with(&|of| of.ahead_max = Some(seconds(60))), &["greatest lead was as by default, and is 60 s"]);
    refused(
        &with(&|of| of.time_column = Some(2)),
        &["the watermarks `WATERMARKS` takes the rows' times from another column"],
    );
    let alignment = model::job_graph::Alignment { group: "all".into(), drift_max: seconds(1) };
    refused(
        &with(&|of| of.alignment = Some(alignment.clone())),
        &["the watermarks `WATERMARKS` is aligned otherwise"],
    );
}

#[test]
fn what_is_laid_out_at_the_start_is_refused() {
    type Deed = fn(&mut JobGraph);
    let cases: [(Deed, &str); 7] = [
        (
            |job| job.nodes[0].kind = NodeKind::Source(connection("socket")),
            "the source `SOURCE` has other settings",
        ),
        (|job| job.nodes[5].kind = NodeKind::Sink(connection("files")), "the sink `SINK` has other settings"),
        (|job| job.nodes[0].on_failure = FailurePolicy::Skip, "the source `SOURCE` has other settings"),
        (
            |job| job.edges[2].partition = Partition::Hash(vec![1]),
            "rows of `MAP` go other ways: to other operators, or by another key",
        ),
        (
            |job| job.nodes[COUNT].uid = Some("other".into()),
            "`COUNT` had the uid `count`, and has `other`: its state is another's",
        ),
        (|job| job.nodes[WINDOW].uid = Some("other".into()), "the window `WINDOW` has another uid"),
        (|job| job.nodes[WINDOW].outputs[0].changes = true, "`WINDOW` gives rows of other columns"),
    ];
    for (change, said) in cases {
        refused(&changed(change), &[said]);
    }
    let columns = changed(|job| {
        let text = || schema(&[("key", DataType::Int64), ("n", DataType::Utf8)]);
        job.nodes[MAP].outputs[0].schema = text();
        job.nodes[COUNT].kind =
            NodeKind::Function(Function { inputs: vec![text()], ..function(vec![sum()]) });
    });
    refused(&columns, &["`MAP` gives rows of other columns", "`COUNT` takes rows of other columns"]);
    let how = |how: How| between_graphs(job(), job(), how).obstacles.join("; ");
    let parallelism = how(How { parallelism: 1, ..How::default() });
    assert!(parallelism.contains("had parallelism 2, and has 3"), "{parallelism}");
    let batch = how(How { is_batch: true, ..How::default() });
    assert!(batch.contains("with --execution batch a job has one version"), "{batch}");
}

#[test]
fn a_difference_is_json() {
    let difference =
        of_windows(window(), Window { lateness: Duration::from_secs(5), ..window() }, How::default());
    let json = serde_json::to_value(&difference).unwrap();
    let window = json["operators"].as_array().unwrap().iter().find(|of| of["name"] == "WINDOW").unwrap();
    assert_eq!(window["change"], "settings");
    assert_eq!(window["settings"][0], "lateness was 0 s, and is 5 s");
    assert!(window.get("states").is_none() && json["obstacles"].as_array().unwrap().is_empty());
}
